//! The way to the login and back: which page a browser wanted, and that it is the same browser that comes back.
//!
//! A navigation that needs a token goes to `login_url` with `return_to` and a random `state`; a cookie holds the state and the page,
//! sealed and bound to the host. Back at `/_gitspace/login?ticket=…&state=…` both must be there: a link that somebody else made
//! logs nobody in.
//!
//! Not here: what the ticket is worth (`token`, `ticket`).

use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderValue;
use serde::{Deserialize, Serialize};

use super::{error::TokenError, own_keys::OwnKeys, sealed};

/// The cookie's name.
pub(crate) const COOKIE: &str = "__Host-gitspace-login";
const KIND: &str = "login1";
/// How long somebody may take to log in.
const WITHIN: Duration = Duration::from_secs(15 * 60);
/// A longer page is forgotten: its browser comes back to the first one. The cookie must stay below 4 KiB.
const TARGET_MAX: usize = 2048;

#[derive(Serialize, Deserialize)]
struct Payload {
    state: String,
    target: String,
    host: String,
    end: i64,
}

/// A login that begins.
pub(crate) struct Begun {
    /// Goes to the login and comes back.
    pub(crate) state: String,
    /// Stays in the browser.
    pub(crate) cookie: HeaderValue,
}

/// Begins a login for a page: a path and query of `host`. None: the system has no randomness.
pub(super) fn begin(keys: &OwnKeys, host: &str, target: &str, now: i64) -> Option<Begun> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).ok()?;
    let state = URL_SAFE_NO_PAD.encode(random);
    let target = if target.len() <= TARGET_MAX {
        target
    } else {
        "/"
    };
    let payload = Payload {
        state: state.clone(),
        target: target.into(),
        host: host.into(),
        end: now.saturating_add(WITHIN.as_secs() as i64),
    };
    let cookie = set_cookie(&sealed::seal(KIND, &payload, keys), WITHIN.as_secs());
    Some(Begun { state, cookie })
}

/// The `Set-Cookie` value that ends it.
pub(super) fn end() -> HeaderValue {
    set_cookie("", 0)
}

/// The page that was wanted, if this browser began the login.
pub(super) fn finish(
    keys: &OwnKeys,
    host: &str,
    cookie: Option<&[u8]>,
    state: &[u8],
    now: i64,
) -> Result<String, TokenError> {
    let cookie = cookie.ok_or(TokenError::Login("was not begun in this browser"))?;
    let payload: Payload =
        sealed::open(KIND, cookie, keys).map_err(|_| TokenError::Login("was changed"))?;
    if payload.host != host || verify_slices_are_equal(payload.state.as_bytes(), state).is_err() {
        return Err(TokenError::Login(
            "is another one than this browser began last",
        ));
    }
    if now >= payload.end {
        return Err(TokenError::Login("took too long"));
    }
    Ok(payload.target)
}

fn set_cookie(value: &str, max_age: u64) -> HeaderValue {
    sealed::set_cookie(COOKIE, value, i64::try_from(max_age).unwrap_or(i64::MAX))
}
