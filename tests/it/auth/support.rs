//! An authenticator in a folder of its own, keys for issuers, and tokens of any shape.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use cde_gateway::{
    config,
    gateway::auth::{Authentication, Authenticator, LastToken, Principal, TokenError},
};
use http::{Request, request::Parts};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::support::secret;

pub(crate) const HOST: &str = "api-k3x9q2.gitspaces.localhost";
pub(crate) const ISSUER: &str = "https://issuer.test";

/// An issuer's key pair.
pub(crate) struct Key {
    pub(crate) algorithm: Algorithm,
    pub(crate) private: EncodingKey,
    pub(crate) public_pem: String,
}

impl Key {
    pub(crate) fn es256() -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let private = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        Self {
            algorithm: Algorithm::ES256,
            private,
            public_pem: pair.public_key_pem(),
        }
    }

    pub(crate) fn eddsa() -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let private = EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap();
        Self {
            algorithm: Algorithm::EdDSA,
            private,
            public_pem: pair.public_key_pem(),
        }
    }

    pub(crate) fn rs256() -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let private = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
        Self {
            algorithm: Algorithm::RS256,
            private,
            public_pem: pair.public_key_pem(),
        }
    }

    pub(crate) fn hs256(secret: &[u8]) -> Self {
        Self {
            algorithm: Algorithm::HS256,
            private: EncodingKey::from_secret(secret),
            public_pem: String::new(),
        }
    }

    /// A token with these claims.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.sign(
            &json!({ "alg": self.algorithm, "typ": "JWT" }).to_string(),
            &claims.to_string(),
        )
    }

    /// A token with exactly this header and these claims.
    pub(crate) fn sign(&self, header: &str, claims: &str) -> String {
        let message = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &self.private, self.algorithm).unwrap();
        secret(format!("{message}.{signature}"))
    }

    /// The public key in a set.
    pub(crate) fn jwks(&self, kid: &str) -> Value {
        let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&self.private, self.algorithm).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = kid.into();
        json!({ "keys": [jwk] })
    }
}

/// One issuer with an ES256 key, and the authenticator that trusts it.
pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) key: Key,
    pub(crate) auth: Authenticator,
    pub(crate) now: SystemTime,
    /// Of the one connection that all its requests come on.
    pub(crate) last: LastToken,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// With more configuration below `[gateway]`.
    pub(crate) fn with(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = Key::es256();
        let path = write(dir.path(), "issuer.pem", &key.public_pem);
        let config = gateway(&format!("{}{more}", issuer(ISSUER, "", "ES256", &path)));
        let auth = Authenticator::new(&config, dir.path()).unwrap();
        Self {
            dir,
            key,
            auth,
            now: SystemTime::now(),
            last: LastToken::default(),
        }
    }

    /// Claims that are accepted, with these on top; null takes one away.
    pub(crate) fn claims(&self, more: Value) -> Value {
        let now = seconds(self.now);
        let mut claims = json!({ "iss": ISSUER, "sub": "alice", "aud": "cde-gateway", "iat": now, "exp": now + 3600 });
        let Value::Object(more) = more else {
            panic!("claims are an object");
        };
        for (name, value) in more {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(&name)),
                value => claims[name] = value,
            }
        }
        claims
    }

    pub(crate) fn token(&self, more: Value) -> String {
        self.key.token(&self.claims(more))
    }

    pub(crate) fn ticket(&self, jti: &str) -> String {
        let exp = seconds(self.now) + 60;
        self.token(json!({ "use": "ticket", "jti": jti, "exp": exp, "gitspace": "api-k3x9q2", "ports": ["ide"] }))
    }

    /// What a token in our own header gives, `after` so many seconds.
    pub(crate) fn try_after(&self, token: &str, after: i64) -> Result<Principal, TokenError> {
        let mut request = request("/", &[("x-gitspace-token", token)]);
        result(
            self.auth
                .authenticate(
                    &mut request,
                    HOST,
                    false,
                    later(self.now, after),
                    &self.last,
                )
                .at_once(),
        )
    }

    pub(crate) fn try_token(&self, token: &str) -> Result<Principal, TokenError> {
        self.try_after(token, 0)
    }

    pub(crate) fn refusal(&self, more: Value) -> TokenError {
        self.try_token(&self.token(more)).unwrap_err()
    }
}

/// For what has nothing to wait for.
pub(crate) trait AtOnce: Future + Sized {
    fn at_once(self) -> Self::Output {
        futures_util::FutureExt::now_or_never(self).expect("it waits")
    }
}

impl<F: Future> AtOnce for F {}

pub(crate) fn result(authentication: Authentication) -> Result<Principal, TokenError> {
    match authentication {
        Authentication::Principal { principal, .. } => Ok((*principal).clone()),
        Authentication::Refused(error) => Err(error),
        other => panic!("neither a principal nor refused: {other:?}"),
    }
}

pub(crate) fn later(time: SystemTime, by: i64) -> SystemTime {
    match u64::try_from(by) {
        Ok(by) => time + Duration::from_secs(by),
        Err(_) => time - Duration::from_secs(by.unsigned_abs()),
    }
}

pub(crate) fn seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
        .try_into()
        .unwrap()
}

pub(crate) fn write(dir: &Path, name: &str, content: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().into()
}

/// `[gateway]` with these tables; they are written as they stand below it.
pub(crate) fn gateway(tables: &str) -> config::Gateway {
    toml::from_str(tables).unwrap()
}

pub(crate) fn issuer(name: &str, prefix: &str, algorithm: &str, public_key: &str) -> String {
    format!(
        "[[issuer]]\nissuer = {name:?}\nprefix = {prefix:?}\n\
         [[issuer.key]]\nalgorithm = {algorithm:?}\npublic_key_file = {public_key:?}\n"
    )
}

pub(crate) fn request(target: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}
