//! Visitors: who came by the signed link of a share, and has no name of its own.
//!
//! The link holds the share, sealed ([`sealed`]) by our own keys. Whoever opens it gets a session for one port at one host, in the
//! cookie of all sessions but of another kind. Whether the share still counts is not said here: every request asks again.

use std::sync::Arc;

use http::HeaderValue;
use serde::{Deserialize, Serialize};

use super::{
    error::TokenError,
    own_keys::OwnKeys,
    principal::Principal,
    sealed::{self, Unopened},
    session::{self, Life},
};
use crate::api::{GitspaceId, access::Port};

const LINK: &str = "link1";
const SESSION: &str = "visitor1";
/// How names of visitors begin. No token may give such a name.
pub(super) const PREFIX: &str = "share:";

/// What a share's link says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Invitation {
    /// Which share.
    pub(crate) share: Arc<str>,
    /// Of which gitspace.
    pub(crate) gitspace: GitspaceId,
    /// Of which port.
    pub(crate) port: Port,
}

/// What is sealed in a visitor's cookie.
#[derive(Serialize, Deserialize)]
struct Payload {
    #[serde(flatten)]
    to: Invitation,
    /// Tells visitors of one share apart.
    id: String,
    host: String,
    #[serde(flatten)]
    life: Life,
}

/// The signed text of a link.
pub(super) fn link(keys: &OwnKeys, invitation: &Invitation) -> String {
    sealed::seal(LINK, invitation, keys)
}

/// What a link says, if it is ours.
pub(super) fn open_link(keys: &OwnKeys, text: &[u8]) -> Result<Invitation, TokenError> {
    sealed::open(LINK, text, keys).map_err(|why| {
        TokenError::Link(match why {
            Unopened::Broken => "is not one of this gateway's, or was changed",
            Unopened::NoKey => "is signed with a key that this gateway no longer has",
        })
    })
}

/// The `Set-Cookie` value that begins a visitor's session. None: the system has no randomness.
pub(super) fn begin(
    keys: &OwnKeys,
    invitation: &Invitation,
    host: &str,
    now: i64,
    life: Life,
) -> Option<HeaderValue> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).ok()?;
    let payload = Payload {
        to: invitation.clone(),
        id: format!("{:016x}", u64::from_ne_bytes(random)),
        host: host.into(),
        life,
    };
    let cookie = sealed::seal(SESSION, &payload, keys);
    Some(session::set_cookie(&cookie, life.left(now)))
}

/// Whether a session cookie is a visitor's.
pub(super) fn is_visitor(cookie: &[u8]) -> bool {
    cookie
        .strip_prefix(SESSION.as_bytes())
        .is_some_and(|rest| rest.first() == Some(&b'.'))
}

/// Opens a visitor's cookie at `host`.
pub(super) fn open(
    keys: &OwnKeys,
    cookie: &[u8],
    host: &str,
    now: i64,
    limits: session::Limits,
) -> Result<(Principal, Life), TokenError> {
    let payload: Payload = sealed::open(SESSION, cookie, keys).map_err(session::unopened)?;
    if payload.host != host {
        return Err(TokenError::Session("is another host's"));
    }
    let life = payload.life.within(limits);
    life.check(now)?;
    let Invitation {
        share,
        gitspace,
        port,
    } = payload.to;
    let principal = Principal {
        name: format!("{PREFIX}{share}:{}", payload.id).into(),
        issuer: "".into(),
        org: None,
        groups: Box::default(),
        gitspaces: Some([gitspace].into()),
        ports: Some([port].into()),
        grants: false,
        share: Some(share),
        sid: None,
        jti: Some(payload.id.into()),
        issued_at: Some(life.begin),
        session_end: Some(life.end),
    };
    Ok((principal, life))
}

/// The same session for longer.
pub(super) fn renew(
    keys: &OwnKeys,
    cookie: &[u8],
    now: i64,
    limits: session::Limits,
) -> Option<HeaderValue> {
    let payload: Payload = sealed::open(SESSION, cookie, keys).ok()?;
    let life = payload.life.within(limits).used(now, limits);
    let payload = Payload { life, ..payload };
    let cookie = sealed::seal(SESSION, &payload, keys);
    Some(session::set_cookie(&cookie, life.left(now)))
}
