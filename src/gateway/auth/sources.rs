//! Where keys come from, and the keyring that is made of them.
//!
//! Configuration and feed change at different times; either change makes a new [`Keyring`] with the next generation,
//! so that what an older one verified is verified again. A change that fails leaves everything as it was.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    error::{Error, TokenError},
    keys::{Issuer, Issuers},
    own_keys::OwnKeys,
    principal::Principal,
    session,
    ticket::Ticket,
    token::TicketClaims,
};
use crate::{api::feed::FeedKeys, config};

/// All that is needed to verify, at one moment. Never changed: another takes its place.
#[derive(Debug)]
pub(super) struct Keyring {
    pub(super) generation: u64,
    pub(super) issuers: Issuers,
    pub(super) own: Arc<OwnKeys>,
    pub(super) token_cookies: Arc<[Box<str>]>,
    pub(super) session_max: Duration,
    feed_issuer: Option<Arc<str>>,
}

/// What keyrings are made of.
#[derive(Debug)]
pub(super) struct Sources {
    state_dir: PathBuf,
    generation: u64,
    configured: Configured,
    feed: Option<(FeedKeys, Arc<Issuer>)>,
}

#[derive(Debug, Clone)]
struct Configured {
    issuers: Vec<Arc<Issuer>>,
    own: Arc<OwnKeys>,
    token_cookies: Arc<[Box<str>]>,
    session_max: Duration,
}

impl Sources {
    pub(super) fn load(
        config: &config::Gateway,
        state_dir: &Path,
    ) -> Result<(Self, Keyring), Error> {
        let configured = Configured::load(config, state_dir)?;
        let keyring = keyring(&configured, None, 0)?;
        Ok((
            Self {
                state_dir: state_dir.into(),
                generation: 0,
                configured,
                feed: None,
            },
            keyring,
        ))
    }

    pub(super) fn reload(&mut self, config: &config::Gateway) -> Result<Keyring, Error> {
        let configured = Configured::load(config, &self.state_dir)?;
        let feed = self.feed.as_ref().map(|(_, issuer)| issuer);
        let keyring = keyring(&configured, feed, self.generation + 1)?;
        self.generation += 1;
        self.configured = configured;
        Ok(keyring)
    }

    /// None: nothing is new.
    pub(super) fn feed(&mut self, keys: &FeedKeys) -> Result<Option<Keyring>, Error> {
        if self.feed.as_ref().is_some_and(|(known, _)| known == keys) {
            return Ok(None);
        }
        let issuer = Arc::new(Issuer::feed(keys)?);
        let keyring = keyring(&self.configured, Some(&issuer), self.generation + 1)?;
        self.generation += 1;
        self.feed = Some((keys.clone(), issuer));
        Ok(Some(keyring))
    }
}

impl Configured {
    fn load(config: &config::Gateway, state_dir: &Path) -> Result<Self, Error> {
        let issuers = config
            .issuer
            .iter()
            .map(|issuer| Issuer::load(issuer).map(Arc::new));
        let own = config
            .keys
            .file
            .clone()
            .unwrap_or_else(|| state_dir.join("gateway.keys"));
        let token_cookies = config
            .auth
            .token_cookies
            .iter()
            .map(|name| token_cookie(name));
        Ok(Self {
            issuers: issuers.collect::<Result<_, _>>()?,
            own: Arc::new(OwnKeys::load(&own)?),
            token_cookies: token_cookies.collect::<Result<_, _>>()?,
            session_max: config.timeouts.session,
        })
    }
}

fn token_cookie(name: &str) -> Result<Box<str>, Error> {
    let token = |byte: u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte);
    if name.is_empty() || name == session::COOKIE || !name.bytes().all(token) {
        return Err(Error::TokenCookie(name.into()));
    }
    Ok(name.into())
}

fn keyring(
    configured: &Configured,
    feed: Option<&Arc<Issuer>>,
    generation: u64,
) -> Result<Keyring, Error> {
    let Configured {
        issuers,
        own,
        token_cookies,
        session_max,
    } = configured.clone();
    Ok(Keyring {
        generation,
        issuers: Issuers::new(issuers.into_iter().chain(feed.cloned()))?,
        own,
        token_cookies,
        session_max,
        feed_issuer: feed.map(|issuer| Arc::clone(&issuer.name)),
    })
}

impl Keyring {
    /// Opens a session cookie. Gives who it is, and until when it holds.
    pub(super) fn session(
        &self,
        cookie: &[u8],
        host: &str,
        now: i64,
    ) -> Result<(Principal, i64), TokenError> {
        let principal = session::open(
            cookie,
            host,
            &self.own,
            &self.issuers,
            now,
            self.session_max,
        )?;
        let end = principal.session_end.unwrap_or(now);
        Ok((principal, end))
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
