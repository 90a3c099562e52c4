//! The control plane's signing key, and the tickets that are signed with it.
//!
//! ES256 (RFC 7518 §3.4), PEM (PKCS#8), made if absent, mode 0600. Its identifier is its thumbprint (RFC 7638).

use std::{
    io::Write as _,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash},
};

use super::{refusal::Refusal, store::random_name};
use crate::api::{
    GitspaceId,
    access::{Claims, OneOrMany, Port, Use},
    feed::FeedKeys,
};

/// For whom tickets are meant.
const AUDIENCE: &str = "cde-gateway";

/// Why there is no signing key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be made or read.
    #[error(
        "cannot use the signing key {path}; it must be a file that this user may read, or a place to make one"
    )]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Others may read it.
    #[error("the signing key {path} has mode {mode:o}; make it 0600")]
    Open {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Not such a key.
    #[error("{path} holds no ECDSA P-256 key in PEM (PKCS#8); remove it and a new one is made")]
    Format {
        /// Which.
        path: PathBuf,
        /// What was found.
        #[source]
        source: jsonwebtoken::errors::Error,
    },
    /// No key could be made.
    #[error("cannot make a signing key")]
    Make(#[source] rcgen::Error),
}

/// The signing key, and who signs with it.
pub(super) struct Keys {
    issuer: String,
    key: EncodingKey,
    header: Header,
    jwks: serde_json::Value,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("kid", &self.header.kid)
            .finish_non_exhaustive()
    }
}

impl Keys {
    /// Reads the key at `path`, or makes it there.
    pub(super) fn open(path: &Path, issuer: &str) -> Result<Self, KeyError> {
        let format = |source| KeyError::Format {
            path: path.into(),
            source,
        };
        let pem = read_or_make(path)?;
        let key = EncodingKey::from_ec_pem(pem.as_bytes()).map_err(format)?;
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).map_err(format)?;
        let kid = jwk.thumbprint(ThumbprintHash::SHA256).map_err(format)?;
        jwk.common.key_id = Some(kid.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(kid);
        let jwks = serde_json::to_value(JwkSet { keys: vec![jwk] })
            .map_err(|error| format(error.into()))?;
        Ok(Self {
            issuer: issuer.into(),
            key,
            header,
            jwks,
        })
    }

    /// The public keys, as gateways get them.
    pub(super) fn feed(&self) -> FeedKeys {
        FeedKeys {
            issuer: self.issuer.clone(),
            audience: AUDIENCE.into(),
            jwks: self.jwks.clone(),
        }
    }

    /// A ticket for one port of one gitspace, from `now` until `exp` (seconds since 1970).
    pub(super) fn ticket(
        &self,
        sub: &str,
        gitspace: GitspaceId,
        port: Port,
        now: i64,
        exp: i64,
    ) -> Result<String, Refusal> {
        let claims = Claims {
            iss: self.issuer.clone(),
            sub: sub.into(),
            aud: Some(OneOrMany::One(AUDIENCE.into())),
            exp,
            nbf: None,
            iat: Some(now),
            jti: Some(random_name()?),
            sid: None,
            gitspace: Some(OneOrMany::One(gitspace)),
            ports: Some(vec![port]),
            org: None,
            groups: Vec::new(),
            usage: Use::Ticket,
        };
        Ok(jsonwebtoken::encode(&self.header, &claims, &self.key)?)
    }
}

fn read_or_make(path: &Path) -> Result<String, KeyError> {
    let file = |source| KeyError::File {
        path: path.into(),
        source,
    };
    match std::fs::read_to_string(path) {
        Ok(pem) => {
            let mode = std::fs::metadata(path).map_err(file)?.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                let path = path.into();
                return Err(KeyError::Open { path, mode });
            }
            Ok(pem)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => make(path),
        Err(error) => Err(file(error)),
    }
}

/// Makes a key beside `path` and moves it there whole, so that a crash leaves no half of one.
fn make(path: &Path) -> Result<String, KeyError> {
    let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
        .map_err(KeyError::Make)?
        .serialize_pem();
    let beside = path.with_extension("new");
    let write = || {
        // Left by a crash.
        let _ = std::fs::remove_file(&beside);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(pem.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().map_err(|source| KeyError::File {
        path: path.into(),
        source,
    })?;
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing.pem");
        let made = Keys::open(&path, "https://cp.test").unwrap();
        let read = Keys::open(&path, "https://cp.test").unwrap();
        assert_eq!(made.feed(), read.feed());
        assert_eq!(made.feed().jwks["keys"][0]["kid"], read.header.kid.unwrap());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_may_read_or_that_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing.pem");
        std::fs::write(&path, "no key").unwrap();
        let set =
            |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        set(0o644);
        let error = Keys::open(&path, "i").unwrap_err().to_string();
        assert!(error.ends_with("has mode 644; make it 0600"), "{error}");
        set(0o600);
        assert!(matches!(
            Keys::open(&path, "i"),
            Err(KeyError::Format { .. })
        ));
    }
}
