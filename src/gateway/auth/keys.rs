//! The issuers whose tokens are accepted, each with its keys.
//!
//! A key has one algorithm, from its file or entry; what a token's header says is only compared with it. Keys come from
//! PEM files, secret files and JWK sets: files that the configuration names, the feed, or an issuer's URL (`published`).

mod ed25519;

use std::{collections::HashMap, fs, path::Path, sync::Arc};

use jsonwebtoken::{
    AlgorithmFamily, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse},
};

use super::{
    error::{Error, TokenError, shortened},
    visitor,
};
use crate::{
    api::feed::FeedKeys,
    config::{self, Algorithm},
};

const SECRET_MIN: usize = 32;
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Keys without `kid` are all tried for a token without one: so many verifications one request may cost.
const NAMELESS_MAX: usize = 4;

/// All issuers. Never changed: another set takes its place.
#[derive(Debug, Default)]
pub(crate) struct Issuers {
    by_name: HashMap<Arc<str>, Arc<Issuer>>,
}

/// An issuer.
#[derive(Debug, Clone)]
pub(crate) struct Issuer {
    pub(crate) name: Arc<str>,
    /// "" = not checked.
    pub(crate) audience: Box<str>,
    pub(crate) prefix: Box<str>,
    pub(crate) gitspace_claim: Box<str>,
    pub(crate) grants: bool,
    keys: Vec<Key>,
}

/// A key with the one algorithm that it is used with.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    id: Box<str>,
    pub(crate) algorithm: Algorithm,
    pub(crate) key: DecodingKey,
}

impl Issuers {
    /// Puts issuers together, if their names and their principals' names cannot meet.
    pub(crate) fn new(issuers: impl IntoIterator<Item = Arc<Issuer>>) -> Result<Self, Error> {
        let mut by_name = HashMap::<Arc<str>, Arc<Issuer>>::new();
        for issuer in issuers {
            if let Some(other) = by_name
                .values()
                .find(|other| other.prefix == issuer.prefix && other.name != issuer.name)
            {
                return Err(Error::DoubledPrefix {
                    one: other.name.to_string(),
                    other: issuer.name.to_string(),
                    prefix: issuer.prefix.to_string(),
                });
            }
            if let Some(double) = by_name.insert(Arc::clone(&issuer.name), issuer) {
                return Err(Error::DoubledIssuer(double.name.to_string()));
            }
        }
        Ok(Self { by_name })
    }

    /// The issuer of this name.
    pub(crate) fn find(&self, name: &str) -> Option<&Arc<Issuer>> {
        self.by_name.get(name)
    }

    /// The name of `subject` at `issuer`, unless it reads like a name that another issuer gives: one prefix may be the
    /// beginning of another, so the longest that fits must be this issuer's own.
    pub(crate) fn name(&self, issuer: &Issuer, subject: &str) -> Result<Arc<str>, TokenError> {
        let name = format!("{}{subject}", issuer.prefix);
        let longer = |other: &&Arc<Issuer>| {
            other.prefix.len() > issuer.prefix.len() && name.starts_with(&*other.prefix)
        };
        // Visitors of shares have names of ours.
        if name.starts_with(visitor::PREFIX) || self.by_name.values().any(|other| longer(&other)) {
            return Err(TokenError::Subject(shortened(&name)));
        }
        Ok(name.into())
    }
}

impl Issuer {
    /// Reads the keys of a configured issuer. Those at its URL are not among them.
    pub(crate) fn load(config: &config::Issuer) -> Result<Self, Error> {
        let mut keys = match &config.jwks_file {
            Some(path) => key_set(&path.display().to_string(), &read(path)?)?,
            None => Vec::new(),
        };
        for entry in &config.key {
            keys.push(Key::load(&config.issuer, entry)?);
        }
        if keys.is_empty() && config.jwks_url.is_none() {
            return Err(Error::NoKey(config.issuer.clone()));
        }
        Self {
            name: config.issuer.as_str().into(),
            audience: config.audience.as_str().into(),
            prefix: config.prefix.as_str().into(),
            gitspace_claim: config.gitspace_claim.as_str().into(),
            grants: config.grants,
            keys,
        }
        .checked()
    }

    /// The control plane, whose keys came by the feed. Its principals have no prefix.
    pub(crate) fn feed(feed: &FeedKeys) -> Result<Self, Error> {
        Self {
            name: feed.issuer.as_str().into(),
            audience: feed.audience.as_str().into(),
            prefix: "".into(),
            gitspace_claim: "gitspace".into(),
            grants: false,
            keys: key_set("the key set of the feed", feed.jwks.to_string().as_bytes())?,
        }
        .checked()
    }

    /// The same issuer with the keys that it publishes. A key of the configuration stands before one of the same name.
    pub(super) fn with(&self, published: &[Key]) -> Self {
        let mut issuer = self.clone();
        for key in published {
            if issuer.takes(key) {
                issuer.keys.push(key.clone());
            } else {
                tracing::warn!(issuer = %self.name, kid = %key.id, "a published key has the id of another one and is left alone");
            }
        }
        issuer
    }

    /// Whether a key can be told from those before it.
    fn takes(&self, key: &Key) -> bool {
        let same = self.keys.iter().filter(|other| other.id == key.id).count();
        same == 0 || (key.id.is_empty() && same < NAMELESS_MAX)
    }

    fn checked(mut self) -> Result<Self, Error> {
        for key in std::mem::take(&mut self.keys) {
            if !self.takes(&key) {
                return Err(Error::DoubledKey {
                    issuer: self.name.to_string(),
                    id: key.id.to_string(),
                });
            }
            self.keys.push(key);
        }
        Ok(self)
    }

    /// The keys that may have signed a token with this `kid`.
    pub(crate) fn candidates<'a>(
        &'a self,
        kid: Option<&'a str>,
    ) -> Result<impl Iterator<Item = &'a Key>, TokenError> {
        let wanted = kid.unwrap_or_default();
        // A token need not name the only key there is.
        let sole = kid.is_none() && self.keys.len() == 1;
        let mut found = self
            .keys
            .iter()
            .filter(move |key| sole || *key.id == *wanted)
            .peekable();
        if found.peek().is_none() {
            let issuer = self.name.to_string();
            return Err(match kid {
                Some(kid) => TokenError::UnknownKey {
                    issuer,
                    kid: shortened(kid),
                },
                None => TokenError::NoKeyId(issuer),
            });
        }
        Ok(found)
    }
}

impl Key {
    /// Whether a token that names this key ("": none) means it.
    pub(super) fn is_named(&self, kid: &str) -> bool {
        *self.id == *kid
    }

    fn load(issuer: &str, entry: &config::IssuerKey) -> Result<Self, Error> {
        let algorithm = entry.algorithm;
        let key = match (algorithm, &entry.public_key_file, &entry.secret_file) {
            (Algorithm::HS256, None, Some(path)) => secret(path)?,
            (Algorithm::ES256 | Algorithm::EdDSA | Algorithm::RS256, Some(path), None) => {
                public(path, algorithm)?
            }
            _ => {
                return Err(Error::KeyFile {
                    issuer: issuer.into(),
                    id: entry.id.clone(),
                    algorithm: name(algorithm),
                    needed: if algorithm == Algorithm::HS256 {
                        "secret_file"
                    } else {
                        "public_key_file"
                    },
                });
            }
        };
        Ok(Self {
            id: entry.id.as_str().into(),
            algorithm,
            key,
        })
    }
}

/// How an algorithm is written in a token's header.
pub(crate) fn name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::ES256 => "ES256",
        Algorithm::EdDSA => "EdDSA",
        Algorithm::RS256 => "RS256",
        Algorithm::HS256 => "HS256",
    }
}

/// The library's word for it.
pub(crate) fn jwt(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    match algorithm {
        Algorithm::ES256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::EdDSA => jsonwebtoken::Algorithm::EdDSA,
        Algorithm::RS256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::HS256 => jsonwebtoken::Algorithm::HS256,
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read {
        path: path.into(),
        source,
    })
}

fn secret(path: &Path) -> Result<DecodingKey, Error> {
    let bytes = read(path)?;
    let secret = bytes.trim_ascii_end();
    if secret.len() < SECRET_MIN {
        return Err(Error::ShortSecret {
            path: path.into(),
            found: secret.len(),
            min: SECRET_MIN,
        });
    }
    Ok(DecodingKey::from_secret(secret))
}

fn public(path: &Path, algorithm: Algorithm) -> Result<DecodingKey, Error> {
    let pem = read(path)?;
    let parsed = match algorithm {
        Algorithm::RS256 => DecodingKey::from_rsa_pem(&pem),
        Algorithm::EdDSA => DecodingKey::from_ed_pem(&pem),
        Algorithm::ES256 | Algorithm::HS256 => DecodingKey::from_ec_pem(&pem),
    };
    let problem = match parsed {
        Ok(key) => match problem(&key) {
            None => return Ok(key),
            Some(problem) => problem,
        },
        Err(error) => error.to_string(),
    };
    Err(Error::PublicKey {
        path: path.into(),
        algorithm: name(algorithm),
        problem,
    })
}

/// What keeps a public key from ever verifying anything; the library would say so only at the first token.
fn problem(key: &DecodingKey) -> Option<String> {
    let bytes = key.try_get_as_bytes().unwrap_or_default();
    let length = bytes.len();
    match key.family() {
        AlgorithmFamily::Ec if length != 65 => Some("not on the curve P-256".into()),
        AlgorithmFamily::Ed if length != 32 => Some("not on the curve Ed25519".into()),
        AlgorithmFamily::Ed if ed25519::has_small_order(bytes) => {
            Some("a point of small order, for which anybody can sign".into())
        }
        AlgorithmFamily::Rsa => match rsa_bits(key) {
            None => Some("not an RSA key".into()),
            Some(bits) if RSA_BITS.contains(&bits) => None,
            Some(bits) => Some(format!(
                "RSA with {bits} bits, {} to {} can be used",
                RSA_BITS.start(),
                RSA_BITS.end()
            )),
        },
        _ => None,
    }
}

fn rsa_bits(key: &DecodingKey) -> Option<usize> {
    use base64::Engine;
    let jwk = Jwk::from_decoding_key(key, None).ok()?;
    let AlgorithmParameters::RSA(parameters) = jwk.algorithm else {
        return None;
    };
    let modulus = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(parameters.n)
        .ok()?;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    Some((modulus.len() - zeros) * 8)
}

/// The keys of a set that can be used; others are left alone, since sets hold keys for other purposes too.
pub(super) fn key_set(from: &str, json: &[u8]) -> Result<Vec<Key>, Error> {
    let set: JwkSet = serde_json::from_slice(json).map_err(|source| Error::KeySet {
        from: from.into(),
        source,
    })?;
    let keys: Vec<Key> = set.keys.iter().filter_map(usable).collect();
    if keys.is_empty() {
        return Err(Error::NoUsableKey(from.into()));
    }
    if keys.len() < set.keys.len() {
        tracing::debug!(
            from,
            used = keys.len(),
            of = set.keys.len(),
            "some keys of a set are for other purposes"
        );
    }
    Ok(keys)
}

fn usable(jwk: &Jwk) -> Option<Key> {
    if jwk
        .common
        .public_key_use
        .as_ref()
        .is_some_and(|purpose| *purpose != PublicKeyUse::Signature)
    {
        return None;
    }
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        // A secret has no place in a set that is handed around; others we do not know.
        _ => return None,
    };
    if jwk
        .common
        .key_algorithm
        .is_some_and(|said| said != jwt(algorithm).into())
    {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    match problem(&key) {
        None => Some(Key {
            id: jwk.common.key_id.as_deref().unwrap_or_default().into(),
            algorithm,
            key,
        }),
        Some(problem) => {
            tracing::warn!(
                kid = jwk.common.key_id,
                problem,
                "a key of a set cannot be used"
            );
            None
        }
    }
}
