//! `token mint`: signs an access token or ticket with a key of one's own. The token alone goes to standard output.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use clap::ValueEnum;
use jsonwebtoken::{EncodingKey, Header};

use super::{Code, Failure, seconds};
use crate::{
    api::{
        GitspaceId,
        access::{Claims, OneOrMany, Port, PortClaim, Use},
    },
    config::Timeout,
};

const TICKET_MAX: Duration = Duration::from_secs(60);

/// Arguments of `token mint`.
#[derive(Debug, clap::Args)]
pub(super) struct Mint {
    /// File with the private key (PEM, PKCS#8), or with the shared secret for HS256
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Algorithm of the key
    #[arg(long, value_enum, default_value = "ES256")]
    algorithm: Algorithm,
    /// The key's `kid`, if the gateway knows it under one
    #[arg(long)]
    kid: Option<String>,
    /// `iss`, as in [[gateway.issuer]]
    #[arg(long)]
    issuer: String,
    /// `sub`: who acts
    #[arg(long)]
    subject: String,
    /// `aud`; "" leaves it out
    #[arg(long, default_value = "cde-gateway")]
    audience: String,
    /// How long it holds, such as 15m [default: 1h, of a ticket 1m]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<Duration>,
    /// Only for this gitspace; may be repeated
    #[arg(long, value_name = "ID")]
    gitspace: Vec<GitspaceId>,
    /// Only for this port: ide, ssh or a number; may be repeated
    #[arg(long, value_parser = port)]
    port: Vec<Port>,
    /// The organization
    #[arg(long)]
    org: Option<String>,
    /// A group; may be repeated
    #[arg(long)]
    group: Vec<String>,
    /// A ticket: for one URL, exchanged once for a session
    #[arg(long)]
    ticket: bool,
}

/// Signature algorithms, as `--algorithm` names them.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "verbatim")]
enum Algorithm {
    ES256,
    EdDSA,
    RS256,
    HS256,
}

impl Mint {
    pub(super) fn token(self, now: SystemTime) -> Result<String, Failure> {
        let ttl = self
            .ttl
            .unwrap_or(Duration::from_secs(if self.ticket { 60 } else { 3600 }));
        if self.ticket && (self.gitspace.len() != 1 || self.port.len() != 1) {
            return Err(
                Failure::new(Code::Usage, "a ticket is for one port of one gitspace")
                    .with("give --gitspace and --port, once each"),
            );
        }
        if self.ticket && ttl > TICKET_MAX {
            return Err(Failure::new(
                Code::Usage,
                "a ticket stands in a URL and holds for at most a minute",
            )
            .with("give a shorter --ttl"));
        }
        let key = private_key(&self.key, self.algorithm)?;
        let header = Header {
            kid: self.kid.clone(),
            ..Header::new(self.algorithm.jwt())
        };
        let (path, algorithm) = (self.key.clone(), self.algorithm);
        let claims = self.claims(
            seconds(now),
            i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX),
        )?;
        jsonwebtoken::encode(&header, &claims, &key).map_err(|_| unusable(&path, algorithm))
    }

    fn claims(self, now: i64, ttl: i64) -> Result<Claims, Failure> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)
            .map_err(|error| Failure::system(std::io::Error::other(error)))?;
        Ok(Claims {
            iss: self.issuer,
            sub: self.subject,
            aud: (!self.audience.is_empty()).then_some(OneOrMany::One(self.audience)),
            exp: now.saturating_add(ttl),
            nbf: None,
            iat: Some(now),
            jti: Some(format!("{:032x}", u128::from_ne_bytes(random))),
            sid: None,
            gitspace: (!self.gitspace.is_empty()).then_some(OneOrMany::Many(self.gitspace)),
            ports: (!self.port.is_empty()).then_some(self.port),
            org: self.org,
            groups: self.group,
            usage: if self.ticket {
                Use::Ticket
            } else {
                Use::Access
            },
        })
    }
}

impl Algorithm {
    fn jwt(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::ES256 => jsonwebtoken::Algorithm::ES256,
            Self::EdDSA => jsonwebtoken::Algorithm::EdDSA,
            Self::RS256 => jsonwebtoken::Algorithm::RS256,
            Self::HS256 => jsonwebtoken::Algorithm::HS256,
        }
    }
}

fn private_key(path: &Path, algorithm: Algorithm) -> Result<EncodingKey, Failure> {
    const SECRET_MIN: usize = 32;
    let content = fs::read(path).map_err(|error| {
        Failure::new(
            Code::Usage,
            format!("cannot read {}: {error}", path.display()),
        )
    })?;
    let key = match algorithm {
        Algorithm::ES256 => EncodingKey::from_ec_pem(&content),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(&content),
        Algorithm::RS256 => EncodingKey::from_rsa_pem(&content),
        Algorithm::HS256 => {
            let secret = content.trim_ascii_end();
            if secret.len() < SECRET_MIN {
                let found = secret.len();
                let what = format!(
                    "the secret in {} has {found} bytes, HS256 needs at least {SECRET_MIN}",
                    path.display()
                );
                return Err(
                    Failure::new(Code::Usage, what).with("`openssl rand -base64 48` makes one")
                );
            }
            return Ok(EncodingKey::from_secret(secret));
        }
    };
    key.map_err(|_| unusable(path, algorithm))
}

fn unusable(path: &Path, algorithm: Algorithm) -> Failure {
    let what = format!(
        "{} holds no private key for {algorithm:?} (PEM, PKCS#8)",
        path.display()
    );
    Failure::new(Code::Usage, what)
        .with("give the algorithm of the key with --algorithm; `openssl pkcs8 -topk8 -nocrypt -in KEY` converts other forms")
}

fn duration(text: &str) -> Result<Duration, String> {
    use serde::{
        Deserialize,
        de::{IntoDeserializer, value::Error},
    };
    let parsed = Timeout::deserialize(IntoDeserializer::<Error>::into_deserializer(text))
        .map_err(|error| error.to_string())?;
    parsed
        .duration()
        .ok_or_else(|| "a token needs an end".into())
}

fn port(text: &str) -> Result<Port, String> {
    let claim = text
        .parse()
        .map_or_else(|_| PortClaim::Word(text.into()), PortClaim::Number);
    Port::try_from(claim)
}
