//! What a browser keeps for us: `<kind>.<key>.<payload>.<mac>`, readable, sealed by an HMAC of our own.
//!
//! The kind is sealed too, so that nothing of one kind is taken for another; none is a JWT, so that it can never be taken for an
//! access token nor one for it. Replicas that share `gateway.keys` open each other's.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderValue;
use serde::{Serialize, de::DeserializeOwned};

use super::own_keys::OwnKeys;

/// Why something does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unopened {
    /// Not one of ours, of another kind, or changed.
    Broken,
    /// Sealed with a key that is gone.
    NoKey,
}

/// Seals a payload. `kind` has no dot.
pub(super) fn seal(kind: &str, payload: &impl Serialize, keys: &OwnKeys) -> String {
    let (id, key) = keys.session();
    // Texts, numbers and lists of them always have a JSON form.
    let json = serde_json::to_vec(payload).unwrap_or_default();
    let sealed = format!("{kind}.{id}.{}", URL_SAFE_NO_PAD.encode(json));
    let mac = aws_lc_rs::hmac::sign(key, sealed.as_bytes());
    format!("{sealed}.{}", URL_SAFE_NO_PAD.encode(mac.as_ref()))
}

/// Opens what was sealed as this kind.
pub(super) fn open<T: DeserializeOwned>(
    kind: &str,
    text: &[u8],
    keys: &OwnKeys,
) -> Result<T, Unopened> {
    let text = std::str::from_utf8(text).map_err(|_| Unopened::Broken)?;
    let (sealed, mac) = text.rsplit_once('.').ok_or(Unopened::Broken)?;
    let mut parts = sealed.split('.');
    let (Some(found), Some(id), Some(payload), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Unopened::Broken);
    };
    if found != kind {
        return Err(Unopened::Broken);
    }
    let key = keys.session_key(id).ok_or(Unopened::NoKey)?;
    let decoded = |part| URL_SAFE_NO_PAD.decode(part).map_err(|_| Unopened::Broken);
    aws_lc_rs::hmac::verify(key, sealed.as_bytes(), &decoded(mac)?)
        .map_err(|_| Unopened::Broken)?;
    serde_json::from_slice(&decoded(payload)?).map_err(|_| Unopened::Broken)
}

/// The `Set-Cookie` value for a cookie of ours: for one host, never read by scripts, not sent with what other sites post. `value` is
/// something sealed, or "" with `max_age` 0 to end it.
pub(crate) fn set_cookie(name: &str, value: &str, max_age: i64) -> HeaderValue {
    let cookie =
        format!("{name}={value}; Path=/; Max-Age={max_age}; Secure; HttpOnly; SameSite=Lax");
    // Only base64url, dots, digits and the words above.
    let mut header = HeaderValue::try_from(cookie).unwrap_or_else(|_| HeaderValue::from_static(""));
    header.set_sensitive(true);
    header
}
