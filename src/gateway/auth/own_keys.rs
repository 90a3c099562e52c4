//! The gateway's own keys: one that seals sessions, one that signs assertions, each with the one before it and the one that comes
//! next. What seals TLS tickets is derived from the first.
//!
//! They live in `gateway.keys` (JSON, mode 0600, with a format version), which is made if it is absent and which replicas
//! share. New things are made with the current key; what the previous and the next one made counts too. So a rotation may reach
//! replicas one after the other: those who still have the old file know the key that the others begin to use.

use std::{fmt, io, path::Path};

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
    session: Keys,
    assertion: Keys,
}

/// A key, the one before it, and the one that comes next.
#[derive(Serialize, Deserialize)]
struct Keys {
    current: Stored,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<Stored>,
    /// Files of before have none until they are rotated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<Stored>,
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
        let content = File::new()?.json()?;
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

    /// Makes the next keys of a file the current ones. Gives whether others knew them before.
    pub(super) fn rotate(path: &Path) -> Result<bool, Error> {
        let absent = || Error::Read {
            path: path.into(),
            source: io::ErrorKind::NotFound.into(),
        };
        let content = private_file::read(path)?.ok_or_else(absent)?;
        let old = File::parse(path, &content)?;
        let new = File::new()?;
        let known = old.session.next.is_some() && old.assertion.next.is_some();
        let rotated = File {
            version: VERSION,
            session: old.session.rotated(new.session),
            assertion: old.assertion.rotated(new.assertion),
        };
        let damaged = |problem| Error::Damaged {
            path: path.into(),
            problem,
        };
        Self::ready(&rotated).map_err(damaged)?;
        let write = |source| Error::Write {
            path: path.into(),
            source,
        };
        private_file::replace(path, &rotated.json()?).map_err(write)?;
        Ok(known)
    }

    fn parse(path: &Path, content: &[u8]) -> Result<Self, Error> {
        let damaged = |problem| Error::Damaged {
            path: path.into(),
            problem,
        };
        Self::ready(&File::parse(path, content)?).map_err(damaged)
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
        let (id, key) = &self.session[0]; // `Keys::all` always gives the current one first
        (id, key)
    }

    /// The key of this identifier.
    pub(super) fn session_key(&self, id: &str) -> Option<&hmac::Key> {
        self.session
            .iter()
            .find(|(own, _)| own == id)
            .map(|(_, key)| key)
    }

    /// What keys of TLS tickets are made of: the current one, then those that count too.
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
        serde_json::from_slice(content).map_err(json_problem)
    }

    fn json(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec_pretty(self).map_err(|error| Error::MakeKey(error.to_string()))
    }

    fn new() -> Result<Self, Error> {
        let ((session, assertion), next) = (Self::pair()?, Self::pair()?);
        Ok(Self {
            version: VERSION,
            session: Keys::new(session, next.0),
            assertion: Keys::new(assertion, next.1),
        })
    }

    /// A key that seals sessions and one that signs assertions.
    fn pair() -> Result<(Stored, Stored), Error> {
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
        let stored = |id: String, key: &[u8]| Stored {
            id,
            key: Secret::new(STANDARD.encode(key)),
        };
        Ok((
            stored(format!("{:08x}", u32::from_be_bytes(id)), &session),
            stored(thumbprint, pkcs8.as_ref()),
        ))
    }
}

impl Keys {
    fn new(current: Stored, next: Stored) -> Self {
        Self {
            current,
            previous: None,
            next: Some(next),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Stored> {
        std::iter::once(&self.current)
            .chain(&self.previous)
            .chain(&self.next)
    }

    /// The next one takes the current one's place; `new` gives what was not known yet.
    fn rotated(self, new: Self) -> Self {
        Self {
            current: self.next.unwrap_or(new.current),
            previous: Some(self.current),
            next: new.next,
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::auth::sealed;

    fn open(keys: &OwnKeys, text: &str) -> bool {
        sealed::open::<String>("kind", text.as_bytes(), keys).is_ok()
    }

    #[test]
    fn a_rotation_may_reach_replicas_one_after_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.keys");
        let before = OwnKeys::load(&path).unwrap();
        let old = sealed::seal("kind", &"old", &before);
        assert!(OwnKeys::rotate(&path).unwrap());
        let after = OwnKeys::load(&path).unwrap();
        let new = sealed::seal("kind", &"new", &after);
        assert_ne!(before.session().0, after.session().0);
        for (keys, what) in [(&before, "the old file"), (&after, "the new file")] {
            assert!(open(keys, &old) && open(keys, &new), "{what}");
        }
        assert!(before.jwks().contains(after.assertion().0));

        assert!(OwnKeys::rotate(&path).unwrap());
        let later = OwnKeys::load(&path).unwrap();
        assert!(open(&later, &new) && !open(&later, &old));
    }

    #[test]
    fn a_file_of_before_says_that_the_new_keys_are_unknown_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.keys");
        OwnKeys::load(&path).unwrap();
        let content = private_file::read(&path).unwrap().unwrap();
        let mut file: serde_json::Value = serde_json::from_slice(&content).unwrap();
        for kind in ["session", "assertion"] {
            file[kind].as_object_mut().unwrap().remove("next");
        }
        private_file::replace(&path, file.to_string().as_bytes()).unwrap();
        assert!(!OwnKeys::rotate(&path).unwrap());
        assert!(OwnKeys::rotate(&path).unwrap());
        assert!(matches!(
            OwnKeys::rotate(&dir.path().join("none")),
            Err(Error::Read { .. })
        ));
    }
}
