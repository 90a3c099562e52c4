//! Where keys come from, and the keyring that is made of them.
//!
//! Configuration, feed and published key sets change at different times; each change makes a new [`Keyring`] with the next generation,
//! so that what an older one verified is verified again. A change that fails leaves everything as it was.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    OUR_COOKIES,
    error::{Error, TokenError},
    keys::{Issuer, Issuers},
    own_keys::OwnKeys,
    principal::Principal,
    published::Published,
    session,
    ticket::Ticket,
    token::TicketClaims,
};
use http::HeaderValue;
use tokio::sync::Notify;

use crate::{api::feed::FeedKeys, config};

/// All that is needed to verify, at one moment. Never changed: another takes its place.
#[derive(Debug)]
pub(super) struct Keyring {
    pub(super) generation: u64,
    pub(super) issuers: Issuers,
    /// By the name of the issuer.
    pub(super) published: HashMap<Arc<str>, Arc<Published>>,
    pub(super) own: Arc<OwnKeys>,
    pub(super) token_cookies: Arc<[Box<str>]>,
    pub(super) sessions: session::Limits,
    feed_issuer: Option<Arc<str>>,
}

/// What keyrings are made of.
#[derive(Debug)]
pub(super) struct Sources {
    state_dir: PathBuf,
    generation: u64,
    configured: Configured,
    feed: Option<(FeedKeys, Arc<Issuer>)>,
    /// Wakes who fetches published keys.
    wake: Arc<Notify>,
}

#[derive(Debug, Clone)]
struct Configured {
    issuers: Vec<(Arc<Issuer>, Option<Arc<Published>>)>,
    own: Arc<OwnKeys>,
    token_cookies: Arc<[Box<str>]>,
    sessions: session::Limits,
}

impl Sources {
    pub(super) fn load(
        config: &config::Gateway,
        state_dir: &Path,
        now: i64,
    ) -> Result<(Self, Keyring), Error> {
        let wake = Arc::new(Notify::new());
        let configured = Configured::load(config, state_dir, &[], &wake, now)?;
        let keyring = keyring(&configured, None, 0, now)?;
        Ok((
            Self {
                state_dir: state_dir.into(),
                generation: 0,
                configured,
                feed: None,
                wake,
            },
            keyring,
        ))
    }

    /// `then` has the last word before anything changes.
    pub(super) fn reload<E: From<Error>>(
        &mut self,
        config: &config::Gateway,
        now: i64,
        then: impl FnOnce() -> Result<(), E>,
    ) -> Result<Keyring, E> {
        let known = &self.configured.issuers;
        let configured = Configured::load(config, &self.state_dir, known, &self.wake, now)?;
        let feed = self.feed.as_ref().map(|(_, issuer)| issuer);
        let keyring = keyring(&configured, feed, self.generation + 1, now)?;
        then()?;
        self.generation += 1;
        self.configured = configured;
        self.wake.notify_one();
        Ok(keyring)
    }

    /// Published keys have changed, or got too old.
    pub(super) fn published_changed(&mut self, now: i64) -> Result<Keyring, Error> {
        let feed = self.feed.as_ref().map(|(_, issuer)| issuer);
        let keyring = keyring(&self.configured, feed, self.generation + 1, now)?;
        self.generation += 1;
        Ok(keyring)
    }

    /// The key sets that issuers publish.
    pub(super) fn published(&self) -> impl Iterator<Item = &Arc<Published>> {
        self.configured
            .issuers
            .iter()
            .filter_map(|(_, published)| published.as_ref())
    }

    /// Resolves when one of them may be due.
    pub(super) fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    /// None: nothing is new.
    pub(super) fn feed(&mut self, keys: &FeedKeys, now: i64) -> Result<Option<Keyring>, Error> {
        let Some((issuer, keyring)) = self.made_with(keys, now)? else {
            return Ok(None);
        };
        self.generation += 1;
        self.feed = Some((keys.clone(), issuer));
        Ok(Some(keyring))
    }

    /// What the keys of the feed would make. None: nothing is new.
    pub(super) fn made_with(
        &self,
        keys: &FeedKeys,
        now: i64,
    ) -> Result<Option<(Arc<Issuer>, Keyring)>, Error> {
        if self.feed.as_ref().is_some_and(|(known, _)| known == keys) {
            return Ok(None);
        }
        let issuer = Arc::new(Issuer::feed(keys)?);
        let keyring = keyring(&self.configured, Some(&issuer), self.generation + 1, now)?;
        Ok(Some((issuer, keyring)))
    }
}

impl Configured {
    /// What is published is kept from `known`, where it is the same.
    fn load(
        config: &config::Gateway,
        state_dir: &Path,
        known: &[(Arc<Issuer>, Option<Arc<Published>>)],
        wake: &Arc<Notify>,
        now: i64,
    ) -> Result<Self, Error> {
        let issuers = config.issuer.iter().map(|issuer| {
            let known = known.iter().filter_map(|(_, published)| published.as_ref());
            let published = match known.into_iter().find(|published| published.fits(issuer)) {
                Some(published) => Some(Arc::clone(published)),
                None => Published::of(issuer, state_dir, wake, now)?.map(Arc::new),
            };
            Ok((Arc::new(Issuer::load(issuer)?), published))
        });
        let own = super::keys_file(config, state_dir);
        let token_cookies = config
            .auth
            .token_cookies
            .iter()
            .map(|name| token_cookie(name));
        Ok(Self {
            issuers: issuers.collect::<Result<_, _>>()?,
            own: Arc::new(OwnKeys::load(&own)?),
            token_cookies: token_cookies.collect::<Result<_, _>>()?,
            sessions: session::Limits::from(&config.timeouts),
        })
    }
}

fn token_cookie(name: &str) -> Result<Box<str>, Error> {
    let token = |byte: u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte);
    if name.is_empty() || OUR_COOKIES.contains(&name) || !name.bytes().all(token) {
        return Err(Error::TokenCookie(name.into()));
    }
    Ok(name.into())
}

fn keyring(
    configured: &Configured,
    feed: Option<&Arc<Issuer>>,
    generation: u64,
    now: i64,
) -> Result<Keyring, Error> {
    let Configured {
        issuers,
        own,
        token_cookies,
        sessions,
    } = configured.clone();
    let mut by_issuer = HashMap::new();
    let issuers = issuers
        .into_iter()
        .map(|(issuer, published)| match published {
            Some(published) => {
                let all = issuer.with(&published.keys(now));
                by_issuer.insert(Arc::clone(&issuer.name), published);
                Arc::new(all)
            }
            None => issuer,
        });
    Ok(Keyring {
        generation,
        issuers: Issuers::new(issuers.chain(feed.cloned()))?,
        published: by_issuer,
        own,
        token_cookies,
        sessions,
        feed_issuer: feed.map(|issuer| Arc::clone(&issuer.name)),
    })
}

impl Keyring {
    /// Opens a session cookie. Gives who it is, and how long it holds.
    pub(super) fn session(
        &self,
        cookie: &[u8],
        host: &str,
        now: i64,
    ) -> Result<(Principal, session::Life), TokenError> {
        session::open(cookie, host, &self.own, &self.issuers, now, self.sessions)
    }

    /// The `Set-Cookie` value with which a session holds longer.
    pub(super) fn renewed(&self, cookie: &[u8], now: i64) -> Option<Box<HeaderValue>> {
        session::renew(cookie, &self.own, now, self.sessions).map(Box::new)
    }

    /// Makes of a verified ticket what the next steps need.
    pub(super) fn ticket(
        &self,
        (principal, claims): (Principal, TicketClaims),
        location: String,
        otherwise: Option<(Arc<Principal>, bool)>,
    ) -> Ticket {
        Ticket {
            from_feed: self.feed_issuer.as_deref() == Some(&*principal.issuer),
            principal: Arc::new(principal),
            location,
            otherwise,
            subject: claims.subject,
            jti: claims.jti,
            expires: claims.expires,
        }
    }
}
