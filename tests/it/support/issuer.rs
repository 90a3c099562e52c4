//! An issuer of tokens with a key of its own.

use std::{
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use cde_gateway::config;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::{GITSPACE, secret};

/// See the module.
#[derive(Clone)]
pub(crate) struct Issuer {
    pub(crate) name: String,
    pub(crate) public_pem: String,
    private: EncodingKey,
}

impl Issuer {
    /// With a fresh ES256 key.
    pub(crate) fn new(name: &str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        secret(pair.serialize_pem().lines().nth(1).unwrap());
        Self {
            name: name.into(),
            public_pem: pair.public_key_pem(),
            private: EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap(),
        }
    }

    /// How a gateway is told to trust it.
    pub(crate) fn configured(&self, dir: &Path) -> config::Issuer {
        let path = dir.join(format!("{}.pem", self.name.replace(['/', ':'], "_")));
        fs::write(&path, &self.public_pem).unwrap();
        toml::from_str(&format!(
            "issuer = {:?}\n[[key]]\nalgorithm = \"ES256\"\npublic_key_file = {:?}\n",
            self.name,
            path.to_str().unwrap()
        ))
        .unwrap()
    }

    /// Its public key as a key set has it.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let jwk =
            jsonwebtoken::jwk::Jwk::from_encoding_key(&self.private, Algorithm::ES256).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = kid.into();
        jwk
    }

    /// Its public key as the feed carries it.
    pub(crate) fn feed_keys(&self) -> Value {
        let keys = [self.jwk("1")];
        json!({ "issuer": self.name, "audience": "cde-gateway", "jwks": { "keys": keys } })
    }

    /// An access token with these members more in its header.
    pub(crate) fn token_headed(&self, subject: &str, more: impl FnOnce(&mut Header)) -> String {
        let mut header = Header::new(Algorithm::ES256);
        more(&mut header);
        let claims = self.claims(subject, &json!({}));
        secret(jsonwebtoken::encode(&header, &claims, &self.private).unwrap())
    }

    /// An access token for an hour.
    pub(crate) fn token(&self, subject: &str) -> String {
        self.token_with(subject, json!({}))
    }

    /// With other or further claims.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers write json!(…) in place"
    )]
    pub(crate) fn token_with(&self, subject: &str, more: Value) -> String {
        let claims = self.claims(subject, &more);
        let mut header = Header::new(Algorithm::ES256);
        header.kid = None;
        secret(jsonwebtoken::encode(&header, &claims, &self.private).unwrap())
    }

    /// The same claims, but signed with HS256, the public key taken for the secret.
    pub(crate) fn confused(&self, subject: &str) -> String {
        let claims = self.claims(subject, &json!({}));
        let key = EncodingKey::from_secret(self.public_pem.as_bytes());
        secret(jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap())
    }

    /// A ticket for a port (`"ide"` or a number) of the gitspace.
    pub(crate) fn ticket(&self, subject: &str, jti: &str, port: impl Into<Value>) -> String {
        let exp = now() + 60;
        self.token_with(
            subject,
            json!({ "use": "ticket", "jti": jti, "exp": exp, "gitspace": GITSPACE, "ports": [port.into()] }),
        )
    }

    fn claims(&self, subject: &str, more: &Value) -> Value {
        let now = now();
        let mut claims = json!({
            "iss": self.name, "sub": subject, "aud": "cde-gateway", "iat": now, "exp": now + 3600,
        });
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}
