//! What the carriers of a request hold: the order in which they count, and what is remembered of them.
//!
//! Not here: where tokens stand in a request (`carrier`), what makes one good (`token`, `session`).

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use http::{Method, Uri, request::Parts};

use super::{
    Authentication, Authenticator, LastToken, Principal, TokenError,
    cache::{Digest, Entry},
    carrier::{self, Carrier, Place},
    published::Published,
    seconds,
    sources::Keyring,
    token::{self, TicketClaims},
};

/// What a request asks beside what its carriers hold.
struct Asks<'a> {
    uri: &'a Uri,
    host: &'a str,
    navigation: bool,
    now: i64,
    last: &'a LastToken,
}

/// A carrier's token as far as its recognition got: its digest, and the entry if it is cached.
#[derive(Debug)]
struct Recognised {
    digest: Digest,
    entry: Option<Entry>,
}

/// What a carrier turned out to hold.
enum Held {
    /// With from when on a session's use makes it hold longer.
    Access(Arc<Principal>, i64),
    Ticket(Box<(Principal, TicketClaims)>),
}

impl Authenticator {
    /// Takes everything of ours out of the request, and tells who is asking.
    ///
    /// `host` is canonical. A ticket counts only on a `navigation`. `last` is the connection's.
    /// It waits only for an issuer's new keys: where a token names one that is not known, and the issuer may have it.
    pub async fn authenticate(
        &self,
        request: &mut Parts,
        host: &str,
        navigation: bool,
        now: SystemTime,
        last: &LastToken,
    ) -> Authentication {
        let now = seconds(now);
        let carriers = match self.carriers(request, last) {
            Ok(carriers) => carriers,
            Err(error) => return Authentication::Refused(error),
        };
        let navigation = navigation && request.method == Method::GET;
        let asks = Asks {
            uri: &request.uri,
            host,
            navigation,
            now,
            last,
        };
        let found = self.judge(&carriers, &asks);
        if let Authentication::Refused(error) = &found
            && let Some((issuer, kid)) = error.wants_key()
            && let Some(published) = self.published(issuer)
            && Box::pin(published.ask_for(kid, Instant::now())).await
        {
            return self.judge(&carriers, &asks);
        }
        found
    }

    /// Takes out what is ours by its name, for an app that tells itself who is asking. What may be the app's stays, whatever is in it.
    pub(crate) fn leave_to_app(request: &mut Parts) -> Authentication {
        match carrier::take::<()>(request, &[], |_| None) {
            Ok(_) => Authentication::Anonymous,
            Err(error) => Authentication::Refused(error),
        }
    }

    fn published(&self, issuer: &str) -> Option<Arc<Published>> {
        self.keyring.load().published.get(issuer).map(Arc::clone)
    }

    fn carriers(
        &self,
        request: &mut Parts,
        last: &LastToken,
    ) -> Result<Vec<Carrier<Recognised>>, TokenError> {
        let keyring = self.keyring.load();
        let recognise = |token: &[u8]| self.recognise(&keyring, token, last);
        carrier::take(request, &keyring.token_cookies, recognise)
    }

    fn judge(&self, carriers: &[Carrier<Recognised>], asks: &Asks<'_>) -> Authentication {
        let keyring = self.keyring.load();
        let &Asks {
            uri,
            host,
            navigation,
            now,
            last,
        } = asks;
        let mut ticket = None;
        let mut refusal = None;
        let mut principal = None;
        // A ticket beats the rest but stands in the query, which comes late: a navigation looks for it before it is content.
        let ticket_possible =
            |carrier: &Carrier<Recognised>| navigation && carrier.place == Place::Query;
        for carrier in carriers {
            if principal.is_some() && !ticket_possible(carrier) {
                continue;
            }
            let held = self.verify(&keyring, carrier, host, now, last);
            match held.and_then(|held| self.unless_revoked(held, now)) {
                Ok(Held::Access(found, renew_at)) if principal.is_none() => {
                    let by_cookie = matches!(carrier.place, Place::Session | Place::TokenCookie);
                    let renewed = (renew_at <= now).then(|| keyring.renewed(&carrier.token, now));
                    principal = Some((found, by_cookie, renewed.flatten()));
                }
                Ok(Held::Access(..)) => {}
                Ok(Held::Ticket(found)) if ticket_possible(carrier) => {
                    ticket = ticket.or(Some(found))
                }
                Ok(Held::Ticket(_)) => refusal = refusal.or(Some(TokenError::TicketMisplaced)),
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        match (ticket, principal, refusal) {
            (Some(ticket), otherwise, _) => {
                let location = carrier::location(uri);
                let otherwise = otherwise.map(|(principal, by_cookie, _)| (principal, by_cookie));
                Authentication::Ticket(keyring.ticket(*ticket, location, otherwise))
            }
            (None, Some((principal, by_cookie, renewed)), _) => Authentication::Principal {
                principal,
                by_cookie,
                renewed,
            },
            (None, None, Some(error)) => Authentication::Refused(error),
            (None, None, None) => Authentication::Anonymous,
        }
    }

    /// Whether a token under a name that is not ours concerns us: verified before, or with a configured issuer in it.
    fn recognise(&self, keyring: &Keyring, token: &[u8], last: &LastToken) -> Option<Recognised> {
        if memchr::memchr_iter(b'.', token).count() != 2 {
            return None;
        }
        let digest = last.digest(token);
        if let Some(entry) = self.cache.find(&digest, keyring.generation) {
            last.keep(token, digest);
            return Some(Recognised {
                digest,
                entry: Some(entry),
            });
        }
        let known = token::claims_issuer(token, |issuer| keyring.issuers.find(issuer).is_some());
        known.then_some(Recognised {
            digest,
            entry: None,
        })
    }

    fn verify(
        &self,
        keyring: &Keyring,
        carrier: &Carrier<Recognised>,
        host: &str,
        now: i64,
        last: &LastToken,
    ) -> Result<Held, TokenError> {
        let (digest, entry) = match (&carrier.known, carrier.place) {
            (Some(known), _) => (known.digest, known.entry.clone()),
            (None, place) => {
                let digest = match place {
                    Place::Session => Digest::session(&carrier.token, host),
                    Place::Header | Place::Query | Place::TokenCookie => {
                        last.digest(&carrier.token)
                    }
                };
                let entry = self.cache.find(&digest, keyring.generation);
                if entry.is_some() && carrier.place != Place::Session {
                    last.keep(&carrier.token, digest);
                }
                (digest, entry)
            }
        };
        if let Some(entry) = entry {
            entry.check_time(now)?;
            return Ok(Held::Access(entry.principal, entry.renew_at));
        }
        let (principal, until, renew_at) = match carrier.place {
            Place::Session => {
                let (principal, life) = keyring.session(&carrier.token, host, now)?;
                let renew_at = life.renew_at(keyring.sessions);
                (principal, life.until(), renew_at)
            }
            Place::Header | Place::Query | Place::TokenCookie => {
                let verified = token::verify(&carrier.token, &keyring.issuers, now)?;
                if let Some(ticket) = verified.ticket {
                    return Ok(Held::Ticket(Box::new((verified.principal, ticket))));
                }
                (verified.principal, verified.until, i64::MAX)
            }
        };
        let principal = Arc::new(principal);
        self.cache.insert(
            digest,
            Entry {
                principal: Arc::clone(&principal),
                until,
                renew_at,
                generation: keyring.generation,
            },
        );
        Ok(Held::Access(principal, renew_at))
    }

    fn unless_revoked(&self, held: Held, now: i64) -> Result<Held, TokenError> {
        let principal = match &held {
            Held::Access(principal, _) => principal,
            Held::Ticket(ticket) => &ticket.0,
        };
        self.revoked.check(principal, now).map(|()| held)
    }
}
