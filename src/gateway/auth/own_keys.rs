//! The gateway's own keys: one that seals sessions, one that signs assertions, each with the one before it. What seals TLS
//! tickets is derived from the first.
//!
//! They live in `gateway.keys` (JSON, mode 0600, with a format version), which is made if it is absent and which replicas
//! share. New things are made with the current key; what the previous one made still counts.

use std::{fmt, path::Path};

use aws_lc_rs::{
    hmac, rand,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jsonwebtoken::{
    Algorithm, EncodingKey,
    jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash},
};
use serde::{Deserialize, Serialize};

use super::{error::Error, private_file};
use crate::api::Secret;

const VERSION: u64 = 1;
const SESSION_KEY: usize = 32;
/// No session is sealed over such a text: those begin with their version.
const TICKETS: &[u8] = b"tls tickets";

/// The keys, ready for use.
pub(super) struct OwnKeys {
    session: Vec<(String, hmac::Key)>,
    tickets: Vec<hmac::Key>,
    assertion: (String, EncodingKey),
    jwks: String,
}

impl fmt::Debug for OwnKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnKeys(***)")
    }
}

/// The file.
#[derive(Serialize, Deserialize)]
struct File {
    version: u64,
    session: Pair,
    assertion: Pair,
}

/// A key and the one before it.
#[derive(Serialize, Deserialize)]
struct Pair {
    current: Stored,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<Stored>,
}

/// A key in base64: 32 bytes of a session key, PKCS#8 of an assertion key.
#[derive(Serialize, Deserialize)]
struct Stored {
    id: String,
    key: Secret,
}

impl OwnKeys {
    /// Reads the file, or makes it.
    pub(super) fn load(path: &Path) -> Result<Self, Error> {
        if let Some(content) = private_file::read(path)? {
            return Self::parse(path, &content);
        }
        let content = serde_json::to_vec_pretty(&File::new()?)
            .map_err(|error| Error::MakeKey(error.to_string()))?;
        if private_file::create(path, &content)? {
            tracing::info!(path = %path.display(), "made the gateway's own keys");
            return Self::parse(path, &content);
        }
        let damaged = || Error::Damaged {
            path: path.into(),
            problem: "it came and went".into(),
        };
        Self::parse(path, &private_file::read(path)?.ok_or_else(damaged)?)
    }

    fn parse(path: &Path, content: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Version {
            version: u64,
        }
        // serde_json quotes no values of a syntax error, so no key gets into the message.
        let damaged = |problem: String| Error::Damaged {
            path: path.into(),
            problem,
        };
        let json_problem = |error: serde_json::Error| {
            damaged(format!("line {}, column {}", error.line(), error.column()))
        };
        let Version { version } = serde_json::from_slice(content).map_err(json_problem)?;
        if version != VERSION {
            return Err(Error::Version {
                path: path.into(),
                found: version,
                known: VERSION,
            });
        }
        let file: File = serde_json::from_slice(content).map_err(json_problem)?;
        Self::ready(&file).map_err(damaged)
    }

    fn ready(file: &File) -> Result<Self, String> {
        let session: Vec<_> = file
            .session
            .all()
            .map(session_key)
            .collect::<Result<_, _>>()?;
        let mut assertion = Vec::new();
        let mut public = Vec::new();
        for stored in file.assertion.all() {
            let (key, jwk) = assertion_key(stored)?;
            assertion.push((stored.id.clone(), key));
            public.push(jwk);
        }
        let jwks =
            serde_json::to_string(&JwkSet { keys: public }).map_err(|error| error.to_string())?;
        let ticket = |key| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(key, TICKETS).as_ref());
        Ok(Self {
            tickets: session.iter().map(|(_, key)| ticket(key)).collect(),
            session,
            assertion: assertion.swap_remove(0),
            jwks,
        })
    }

    /// The key that seals new sessions.
    pub(super) fn session(&self) -> (&str, &hmac::Key) {
        let (id, key) = &self.session[0]; // `Pair::all` always gives the current one first
        (id, key)
    }

    /// The key of this identifier.
    pub(super) fn session_key(&self, id: &str) -> Option<&hmac::Key> {
        self.session
            .iter()
            .find(|(own, _)| own == id)
            .map(|(_, key)| key)
    }

    /// What keys of TLS tickets are made of: the current one, then the previous one.
    pub(super) fn tickets(&self) -> &[hmac::Key] {
        &self.tickets
    }

    /// The key that signs assertions.
    pub(super) fn assertion(&self) -> (&str, &EncodingKey) {
        (&self.assertion.0, &self.assertion.1)
    }

    /// The public keys of assertions (RFC 7517 §5).
    pub(super) fn jwks(&self) -> &str {
        &self.jwks
    }
}

impl File {
    fn new() -> Result<Self, Error> {
        let mut session = [0; SESSION_KEY];
        let mut id = [0; 4];
        for bytes in [&mut session[..], &mut id[..]] {
            getrandom::fill(bytes).map_err(|error| Error::MakeKey(error.to_string()))?;
        }
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            &rand::SystemRandom::new(),
        )
        .map_err(|error| Error::MakeKey(error.to_string()))?;
        let thumbprint = public_key(pkcs8.as_ref())
            .and_then(|jwk| {
                jwk.thumbprint(ThumbprintHash::SHA256)
                    .map_err(|error| error.to_string())
            })
            .map_err(Error::MakeKey)?;
        let pair = |id: String, key: &[u8]| Pair {
            current: Stored {
                id,
                key: Secret::new(STANDARD.encode(key)),
            },
            previous: None,
        };
        Ok(Self {
            version: VERSION,
            session: pair(format!("{:08x}", u32::from_be_bytes(id)), &session),
            assertion: pair(thumbprint, pkcs8.as_ref()),
        })
    }
}

impl Pair {
    fn all(&self) -> impl Iterator<Item = &Stored> {
        std::iter::once(&self.current).chain(&self.previous)
    }
}

impl Stored {
    fn bytes(&self) -> Result<Vec<u8>, String> {
        STANDARD
            .decode(self.key.reveal())
            .map_err(|_| format!("key {:?} is not base64", self.id))
    }
}

fn session_key(stored: &Stored) -> Result<(String, hmac::Key), String> {
    let bytes = stored.bytes()?;
    if bytes.len() != SESSION_KEY {
        return Err(format!(
            "session key {:?} has not {SESSION_KEY} bytes",
            stored.id
        ));
    }
    if !stored
        .id
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    {
        return Err(format!(
            "session key id {:?} is not made of letters, digits and dashes",
            stored.id
        ));
    }
    Ok((stored.id.clone(), hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
}

fn assertion_key(stored: &Stored) -> Result<(EncodingKey, Jwk), String> {
    let pkcs8 = stored.bytes()?;
    let mut jwk = public_key(&pkcs8)
        .map_err(|_| format!("assertion key {:?} is no PKCS#8 key on P-256", stored.id))?;
    jwk.common.key_id = Some(stored.id.clone());
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    Ok((EncodingKey::from_ec_der(&pkcs8), jwk))
}

fn public_key(pkcs8: &[u8]) -> Result<Jwk, String> {
    Jwk::from_encoding_key(&EncodingKey::from_ec_der(pkcs8), Algorithm::ES256)
        .map_err(|error| error.to_string())
}
