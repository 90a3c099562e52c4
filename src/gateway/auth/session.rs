//! The session: what a browser holds for one host after its ticket was exchanged.
//!
//! A cookie `__Host-gitspace`, sealed ([`sealed`]) and bound to one host. It ends when it is not used for a while, is made anew
//! while it is used, and ends for good at its maximum. Those who came by a share's link have one of another kind ([`visitor`]).

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use serde::{Deserialize, Serialize};

use super::{
    error::TokenError,
    keys::Issuers,
    own_keys::OwnKeys,
    principal::Principal,
    sealed::{self, Unopened},
    visitor,
};
use crate::{
    api::{GitspaceId, access::Port},
    config,
};

/// The cookie's name. The prefix makes browsers accept it only with `Secure`, `Path=/` and without `Domain`.
pub const COOKIE: &str = "__Host-gitspace";
const KIND: &str = "1";
/// Browsers drop a cookie whose name and value are longer than 4,096 bytes; the host, times and the seal need some of it.
const PAYLOAD_MAX: usize = 2_600;

/// How long sessions hold, in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    max: i64,
    idle: i64,
}

impl From<&config::Timeouts> for Limits {
    fn from(timeouts: &config::Timeouts) -> Self {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        Self {
            max: seconds(timeouts.session),
            idle: seconds(timeouts.session_idle),
        }
    }
}

/// When a session began, and when it ends, in seconds since 1970.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Life {
    pub(super) begin: i64,
    /// For good.
    pub(super) end: i64,
    /// If it is not used before.
    #[serde(default)]
    idle: Option<i64>,
}

impl Life {
    /// One that begins now, and ends at `end` at the latest.
    pub(super) fn new(now: i64, end: Option<i64>, limits: Limits) -> Self {
        let max = now.saturating_add(limits.max);
        let end = end.map_or(max, |end| end.min(max));
        let life = Self {
            begin: now,
            end,
            idle: None,
        };
        life.used(now, limits)
    }

    /// The same one, used now.
    pub(super) fn used(self, now: i64, limits: Limits) -> Self {
        let idle = now.saturating_add(limits.idle).min(self.end);
        Self {
            idle: Some(idle),
            ..self
        }
    }

    /// With a maximum that was lowered since.
    pub(super) fn within(self, limits: Limits) -> Self {
        let end = self.end.min(self.begin.saturating_add(limits.max));
        Self { end, ..self }
    }

    /// Until when it holds.
    pub(super) fn until(&self) -> i64 {
        self.idle.map_or(self.end, |idle| idle.min(self.end))
    }

    /// From when on its use makes it hold longer: once half of the time it may lie unused is over.
    pub(super) fn renew_at(&self, limits: Limits) -> i64 {
        let until = self.until();
        if until < self.end {
            until.saturating_sub(limits.idle / 2)
        } else {
            i64::MAX
        }
    }

    /// How long the browser may keep it.
    pub(super) fn left(&self, now: i64) -> i64 {
        self.until().saturating_sub(now).max(0)
    }

    pub(super) fn check(&self, now: i64) -> Result<(), TokenError> {
        let until = self.until();
        if now >= until {
            return Err(TokenError::Expired { since: now - until });
        }
        Ok(())
    }
}

/// What is sealed in the cookie.
#[derive(Debug, Serialize, Deserialize)]
struct Payload {
    iss: Arc<str>,
    sub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    org: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    groups: Box<[Arc<str>]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gitspaces: Option<Box<[GitspaceId]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<Box<[Port]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<Arc<str>>,
    /// When the ticket was issued: revocation counts from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    host: String,
    #[serde(flatten)]
    life: Life,
}

impl Payload {
    fn new(principal: &Principal, subject: &str, host: &str, life: Life) -> Self {
        Self {
            iss: Arc::clone(&principal.issuer),
            sub: subject.into(),
            org: principal.org.clone(),
            groups: principal.groups.clone(),
            gitspaces: principal.gitspaces.clone(),
            ports: principal.ports.clone(),
            sid: principal.sid.clone(),
            jti: principal.jti.clone(),
            iat: principal.issued_at,
            host: host.into(),
            life,
        }
    }

    fn json(&self) -> Vec<u8> {
        // Texts, numbers and lists of them always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Refuses a ticket whose session would not fit into a cookie, before it is used up.
pub(super) fn check_size(principal: &Principal, subject: &str) -> Result<(), TokenError> {
    let life = Life {
        begin: i64::MAX,
        end: i64::MAX,
        idle: Some(i64::MAX),
    };
    if Payload::new(principal, subject, "", life).json().len() > PAYLOAD_MAX {
        return Err(TokenError::Ticket(
            "has too many groups or too long claims for a session cookie; have fewer put in",
        ));
    }
    Ok(())
}

/// The `Set-Cookie` value that begins a session.
pub(super) fn begin(
    keys: &OwnKeys,
    principal: &Principal,
    subject: &str,
    host: &str,
    now: i64,
    limits: Limits,
) -> HeaderValue {
    let life = Life::new(now, None, limits);
    let payload = Payload::new(principal, subject, host, life);
    set_cookie(&sealed::seal(KIND, &payload, keys), life.left(now))
}

/// The `Set-Cookie` value with which a session that was opened holds longer. None: it cannot be opened any more.
pub(super) fn renew(
    cookie: &[u8],
    keys: &OwnKeys,
    now: i64,
    limits: Limits,
) -> Option<HeaderValue> {
    if visitor::is_visitor(cookie) {
        return visitor::renew(keys, cookie, now, limits);
    }
    let payload: Payload = sealed::open(KIND, cookie, keys).ok()?;
    let life = payload.life.within(limits).used(now, limits);
    let payload = Payload { life, ..payload };
    let cookie = sealed::seal(KIND, &payload, keys);
    Some(set_cookie(&cookie, life.left(now)))
}

/// The `Set-Cookie` value that ends it.
pub(super) fn end() -> HeaderValue {
    set_cookie("", 0)
}

pub(super) fn set_cookie(value: &str, max_age: i64) -> HeaderValue {
    sealed::set_cookie(COOKIE, value, max_age)
}

/// Opens a session cookie at `host`. Gives who it is and how long it holds.
pub(super) fn open(
    cookie: &[u8],
    host: &str,
    keys: &OwnKeys,
    issuers: &Issuers,
    now: i64,
    limits: Limits,
) -> Result<(Principal, Life), TokenError> {
    if visitor::is_visitor(cookie) {
        return visitor::open(keys, cookie, host, now, limits);
    }
    let payload: Payload = sealed::open(KIND, cookie, keys).map_err(unopened)?;
    if payload.host != host {
        return Err(TokenError::Session("is another host's"));
    }
    let life = payload.life.within(limits);
    life.check(now)?;
    let issuer = issuers.find(&payload.iss).ok_or(TokenError::Session(
        "comes from an issuer that is no longer configured",
    ))?;
    let principal = Principal {
        name: issuers.name(issuer, &payload.sub)?,
        issuer: payload.iss,
        org: payload.org,
        groups: payload.groups,
        gitspaces: payload.gitspaces,
        ports: payload.ports,
        grants: issuer.grants,
        share: None,
        sid: payload.sid,
        jti: payload.jti,
        issued_at: payload.iat,
        session_end: Some(life.end),
    };
    Ok((principal, life))
}

pub(super) fn unopened(why: Unopened) -> TokenError {
    TokenError::Session(match why {
        Unopened::Broken => "cookie is not one of this gateway's, or was changed",
        Unopened::NoKey => "is sealed with a key that this gateway no longer has",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        max: 1000,
        idle: 100,
    };

    #[test]
    fn it_ends_unused_and_slides_while_it_is_used() {
        let life = Life::new(0, None, LIMITS);
        assert_eq!((life.until(), life.renew_at(LIMITS)), (100, 50));
        assert!(life.check(99).is_ok());
        assert_eq!(life.check(103), Err(TokenError::Expired { since: 3 }));
        let life = life.used(60, LIMITS);
        assert_eq!((life.until(), life.left(60)), (160, 100));
    }

    #[test]
    fn it_never_outlives_its_maximum() {
        let life = Life::new(0, None, LIMITS).used(950, LIMITS);
        assert_eq!((life.until(), life.renew_at(LIMITS)), (1000, i64::MAX));
        let lowered = Limits {
            max: 500,
            idle: 100,
        };
        assert_eq!(life.within(lowered).until(), 500);
        let shared = Life::new(0, Some(70), LIMITS);
        assert_eq!((shared.until(), shared.renew_at(LIMITS)), (70, i64::MAX));
    }

    #[test]
    fn one_of_before_holds_as_long_as_it_said() {
        let life: Life = serde_json::from_str(r#"{"begin":0,"end":500}"#).unwrap();
        assert_eq!(life.within(LIMITS).until(), 500);
    }
}
