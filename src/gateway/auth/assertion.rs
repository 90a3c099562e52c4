//! `X-Gitspace-Assertion`: who is asking, in a form that an app can verify itself.
//!
//! A JWT (ES256, five minutes) whose audience is the host that was asked for; the public keys are at
//! `/_gitspace/jwks.json` of every host. A signature costs more than all the rest of a request, so that one is used again
//! for four minutes.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use http::HeaderValue;
use jsonwebtoken::{Algorithm, Header};
use serde::Serialize;

use super::{own_keys::OwnKeys, principal::Principal};

const ISSUER: &str = "cde-gateway";
const LIFETIME: i64 = 300;
const USED_FOR: i64 = 240;
/// Assertions kept; about 700 bytes each.
const ENTRIES: usize = 10_000;

/// Assertions that are still fresh, by the hash of whom they are about. Two of one hash take each other's place and nothing else:
/// what is found is compared.
#[derive(Debug)]
pub(super) struct Assertions {
    signed: quick_cache::sync::Cache<u64, Arc<Signed>>,
    hash: RandomState,
}

#[derive(Debug)]
struct Signed {
    value: HeaderValue,
    at: i64,
    generation: u64,
    name: Arc<str>,
    org: Option<Arc<str>>,
    host: Box<str>,
    gitspace: Box<str>,
}

impl Signed {
    fn is_about(&self, principal: &Principal, host: &str, gitspace: &str) -> bool {
        *self.name == *principal.name
            && self.org == principal.org
            && *self.host == *host
            && *self.gitspace == *gitspace
    }
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
        Self {
            signed: quick_cache::sync::Cache::new(ENTRIES),
            hash: RandomState::new(),
        }
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
        let key = self.hash.hash_one((&principal.name, host, gitspace));
        let fresh = |signed: &Arc<Signed>| {
            signed.generation == generation
                && (0..USED_FOR).contains(&(now - signed.at))
                && signed.is_about(principal, host, gitspace)
        };
        if let Some(signed) = self.signed.get(&key).filter(fresh) {
            return Some(signed.value.clone());
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
        let signed = Signed {
            value: value.clone(),
            at: now,
            generation,
            name: Arc::clone(&principal.name),
            org: principal.org.clone(),
            host: host.into(),
            gitspace: gitspace.into(),
        };
        self.signed.insert(key, Arc::new(signed));
        Some(value)
    }
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
