//! The session: what a browser holds for one host after its ticket was exchanged.
//!
//! A cookie `__Host-gitspace`, sealed ([`sealed`]) and bound to one host.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use serde::{Deserialize, Serialize};

use super::{
    error::TokenError,
    keys::Issuers,
    own_keys::OwnKeys,
    principal::Principal,
    sealed::{self, Unopened},
};
use crate::api::{GitspaceId, access::Port};

/// The cookie's name. The prefix makes browsers accept it only with `Secure`, `Path=/` and without `Domain`.
pub const COOKIE: &str = "__Host-gitspace";
const KIND: &str = "1";
/// Browsers drop a cookie whose name and value are longer than 4,096 bytes; the host, times and the seal need some of it.
const PAYLOAD_MAX: usize = 2_600;

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
    begin: i64,
    end: i64,
}

impl Payload {
    fn new(principal: &Principal, subject: &str, host: &str, begin: i64, end: i64) -> Self {
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
            begin,
            end,
        }
    }

    fn json(&self) -> Vec<u8> {
        // Texts, numbers and lists of them always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Refuses a ticket whose session would not fit into a cookie, before it is used up.
pub(super) fn check_size(principal: &Principal, subject: &str) -> Result<(), TokenError> {
    if Payload::new(principal, subject, "", 0, 0).json().len() > PAYLOAD_MAX {
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
    max: Duration,
) -> HeaderValue {
    let seconds = i64::try_from(max.as_secs()).unwrap_or(i64::MAX);
    let payload = Payload::new(principal, subject, host, now, now.saturating_add(seconds));
    set_cookie(&sealed::seal(KIND, &payload, keys), seconds)
}

/// The `Set-Cookie` value that ends it.
pub(super) fn end() -> HeaderValue {
    set_cookie("", 0)
}

fn set_cookie(value: &str, max_age: i64) -> HeaderValue {
    let cookie =
        format!("{COOKIE}={value}; Path=/; Max-Age={max_age}; Secure; HttpOnly; SameSite=Lax");
    // Only base64url, dots, digits and the words above.
    let mut header = HeaderValue::try_from(cookie).unwrap_or_else(|_| HeaderValue::from_static(""));
    header.set_sensitive(true);
    header
}

/// Opens a session cookie at `host`. Gives who it is and when it ends.
pub(super) fn open(
    cookie: &[u8],
    host: &str,
    keys: &OwnKeys,
    issuers: &Issuers,
    now: i64,
    max: Duration,
) -> Result<Principal, TokenError> {
    let payload = unseal(cookie, keys)?;
    if payload.host != host {
        return Err(TokenError::Session("is another host's"));
    }
    // A maximum that was lowered since holds too.
    let seconds = i64::try_from(max.as_secs()).unwrap_or(i64::MAX);
    let end = payload.end.min(payload.begin.saturating_add(seconds));
    if now >= end {
        return Err(TokenError::Expired { since: now - end });
    }
    let issuer = issuers.find(&payload.iss).ok_or(TokenError::Session(
        "comes from an issuer that is no longer configured",
    ))?;
    Ok(Principal {
        name: issuers.name(issuer, &payload.sub)?,
        issuer: payload.iss,
        org: payload.org,
        groups: payload.groups,
        gitspaces: payload.gitspaces,
        ports: payload.ports,
        grants: issuer.grants,
        sid: payload.sid,
        jti: payload.jti,
        issued_at: payload.iat,
        session_end: Some(end),
    })
}

fn unseal(cookie: &[u8], keys: &OwnKeys) -> Result<Payload, TokenError> {
    sealed::open(KIND, cookie, keys).map_err(|why| {
        TokenError::Session(match why {
            Unopened::Broken => "cookie is not one of this gateway's, or was changed",
            Unopened::NoKey => "is sealed with a key that this gateway no longer has",
        })
    })
}
