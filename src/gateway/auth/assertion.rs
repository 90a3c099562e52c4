//! `X-Gitspace-Assertion`: who is asking, in a form that an app can verify itself.
//!
//! A JWT (ES256, five minutes) whose audience is the host that was asked for; the public keys are at
//! `/_gitspace/jwks.json` of every host. A signature costs more than all the rest of a request, so that one is used again
//! for four minutes.

use std::sync::Arc;

use http::HeaderValue;
use jsonwebtoken::{Algorithm, Header};
use serde::Serialize;

use super::{cache::Digest, own_keys::OwnKeys, principal::Principal};

const ISSUER: &str = "cde-gateway";
const LIFETIME: i64 = 300;
const USED_FOR: i64 = 240;
/// Assertions kept; about 700 bytes each.
const ENTRIES: usize = 10_000;

/// Assertions that are still fresh.
#[derive(Debug)]
pub(super) struct Assertions(quick_cache::sync::Cache<Digest, Signed>);

#[derive(Debug, Clone)]
struct Signed {
    value: HeaderValue,
    at: i64,
    generation: u64,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'static str,
    aud: &'a str,
    sub: &'a str,
    gitspace: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    org: Option<&'a str>,
    iat: i64,
    exp: i64,
}

impl Assertions {
    pub(super) fn new() -> Self {
        Self(quick_cache::sync::Cache::new(ENTRIES))
    }

    /// The header's value. None only if signing fails, which is logged.
    pub(super) fn value(
        &self,
        keys: &OwnKeys,
        generation: u64,
        principal: &Principal,
        (host, gitspace): (&str, &str),
        now: i64,
    ) -> Option<HeaderValue> {
        let digest = key(principal, host, gitspace);
        let fresh = |signed: &Signed| {
            signed.generation == generation && (0..USED_FOR).contains(&(now - signed.at))
        };
        if let Some(signed) = self.0.get(&digest).filter(fresh) {
            return Some(signed.value);
        }
        let claims = Claims {
            iss: ISSUER,
            aud: host,
            sub: &principal.name,
            gitspace,
            org: principal.org.as_deref(),
            iat: now,
            exp: now + LIFETIME,
        };
        let value = sign(keys, &claims)?;
        self.0.insert(
            digest,
            Signed {
                value: value.clone(),
                at: now,
                generation,
            },
        );
        Some(value)
    }
}

fn key(principal: &Principal, host: &str, gitspace: &str) -> Digest {
    // The parts cannot run into each other: neither a host nor an identifier nor a name holds a control character.
    let org = principal.org.as_ref().map(Arc::as_ref).unwrap_or_default();
    Digest::of(
        b"assertion",
        host.as_bytes(),
        format!("{gitspace}\n{}\n{org}", principal.name).as_bytes(),
    )
}

fn sign(keys: &OwnKeys, claims: &Claims<'_>) -> Option<HeaderValue> {
    let (id, key) = keys.assertion();
    let header = Header {
        kid: Some(id.into()),
        ..Header::new(Algorithm::ES256)
    };
    let signed = jsonwebtoken::encode(&header, claims, key).map_err(|error| error.to_string());
    match signed.and_then(|text| HeaderValue::try_from(text).map_err(|error| error.to_string())) {
        Ok(mut value) => {
            value.set_sensitive(true);
            Some(value)
        }
        Err(error) => {
            tracing::error!(error, "an assertion could not be signed");
            None
        }
    }
}
