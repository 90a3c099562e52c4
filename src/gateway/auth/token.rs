//! An access token or ticket: read, its signature checked, its claims checked.
//!
//! The JSON is read strictly: a member that is there twice or has the wrong type refuses the token, since two readers
//! could otherwise see two different tokens. The clock is a parameter. What the claims mean is in `claims`.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::{
    claims::Claims,
    error::{TokenError, shortened},
    keys::{self, Issuer, Issuers},
    principal::Principal,
};

/// The longest token that is verified.
pub(crate) const TOKEN_MAX: usize = 8 * 1024;

/// A token that holds.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) principal: Principal,
    /// Until when it holds, the leeway included.
    pub(crate) until: i64,
    /// What makes it a ticket.
    pub(crate) ticket: Option<TicketClaims>,
}

/// What a ticket has beside an access token.
#[derive(Debug, Clone)]
pub(crate) struct TicketClaims {
    pub(crate) jti: String,
    pub(crate) subject: String,
    pub(crate) expires: i64,
}

/// A token taken apart; nothing in it is proven.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) header: Map<String, Value>,
    pub(crate) claims: Map<String, Value>,
    signed: &'a [u8],
    signature: &'a str,
}

/// Verifies a token at the time `now` (seconds since 1970).
pub(crate) fn verify(token: &[u8], issuers: &Issuers, now: i64) -> Result<Verified, TokenError> {
    let parts = Parts::read(token)?;
    check_header(&parts.header)?;
    let issuer = issuer(&parts.claims, issuers)?;
    check_signature(&parts, issuer)?;
    Claims::read(&parts.claims, issuer)?.check(issuer, issuers, now)
}

impl<'a> Parts<'a> {
    /// Takes a token apart.
    pub(crate) fn read(token: &'a [u8]) -> Result<Self, TokenError> {
        if token.len() > TOKEN_MAX {
            return Err(TokenError::TooLong(token.len()));
        }
        let text =
            std::str::from_utf8(token).map_err(|_| TokenError::Malformed("it is not ASCII"))?;
        let three = TokenError::Malformed("it has not three parts with dots between");
        let (signed, signature) = text.rsplit_once('.').ok_or_else(|| three.clone())?;
        let (header, claims) = signed.split_once('.').ok_or_else(|| three.clone())?;
        if claims.contains('.') {
            return Err(three);
        }
        Ok(Self {
            header: object(header)?,
            claims: object(claims)?,
            signed: signed.as_bytes(),
            signature,
        })
    }
}

/// Whether the bytes look like a JWT whose unproven `iss` satisfies `known`: whether it concerns us at all.
pub(crate) fn claims_issuer(token: &[u8], known: impl Fn(&str) -> bool) -> bool {
    let mut parts = token.split(|byte| *byte == b'.');
    let (Some(_), Some(claims), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let Ok(json) = URL_SAFE_NO_PAD.decode(claims) else {
        return false;
    };
    let Ok(entries) = entries(&json) else {
        return false;
    };
    // A doubled `iss` does not hide the token from us: any of them counts, and `verify` refuses it later.
    entries
        .iter()
        .any(|(name, value)| name == "iss" && value.as_str().is_some_and(&known))
}

fn check_header(header: &Map<String, Value>) -> Result<(), TokenError> {
    if header.contains_key("crit") {
        return Err(TokenError::Critical);
    }
    let Some(purpose) = text(header, "typ")? else {
        return Ok(());
    };
    let plain = purpose.to_ascii_lowercase();
    match plain.strip_prefix("application/").unwrap_or(&plain) {
        "jwt" | "at+jwt" => Ok(()),
        // RFC 8725 §3.11: a logout token or a proof of the same issuer is no access token.
        _ => Err(TokenError::Purpose(shortened(purpose))),
    }
}

fn issuer<'a>(claims: &Map<String, Value>, issuers: &'a Issuers) -> Result<&'a Issuer, TokenError> {
    let name = text(claims, "iss")?.ok_or(TokenError::Missing("iss"))?;
    issuers
        .find(name)
        .map(AsRef::as_ref)
        .ok_or_else(|| TokenError::Issuer(shortened(name)))
}

fn check_signature(parts: &Parts<'_>, issuer: &Issuer) -> Result<(), TokenError> {
    let found =
        text(&parts.header, "alg")?.ok_or(TokenError::Malformed("its header has no `alg`"))?;
    let mut refusal = TokenError::Signature;
    for key in issuer.candidates(text(&parts.header, "kid")?)? {
        let expected = keys::name(key.algorithm);
        if found != expected {
            refusal = TokenError::Algorithm {
                found: shortened(found),
                expected,
            };
            continue;
        }
        match jsonwebtoken::crypto::verify(
            parts.signature,
            parts.signed,
            &key.key,
            keys::jwt(key.algorithm),
        ) {
            Ok(true) => return Ok(()),
            Ok(false) => refusal = TokenError::Signature,
            Err(_) => return Err(TokenError::Malformed("its signature is not base64url")),
        }
    }
    Err(refusal)
}

/// A text member; another type refuses the token.
pub(super) fn text<'a>(
    members: &'a Map<String, Value>,
    name: &str,
) -> Result<Option<&'a str>, TokenError> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(TokenError::Type {
            claim: name.into(),
            expected: "a text",
        }),
    }
}

/// An object in base64url, none of its members twice.
fn object(part: &str) -> Result<Map<String, Value>, TokenError> {
    let json = URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| TokenError::Malformed("a part is not base64url"))?;
    let entries =
        entries(&json).map_err(|_| TokenError::Malformed("a part is not a JSON object"))?;
    let mut object = Map::new();
    for (name, value) in entries {
        if object.contains_key(&name) {
            return Err(TokenError::Doubled(shortened(&name)));
        }
        object.insert(name, value);
    }
    Ok(object)
}

/// The members of a JSON object as they stand there.
fn entries(json: &[u8]) -> Result<Vec<(String, Value)>, serde_json::Error> {
    struct Entries;
    impl<'de> Visitor<'de> for Entries {
        type Value = Vec<(String, Value)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(entries)
        }
    }
    let mut reader = serde_json::Deserializer::from_slice(json);
    let entries = reader.deserialize_map(Entries)?;
    reader.end()?;
    Ok(entries)
}
