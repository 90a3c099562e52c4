//! What the step "authenticate" costs a request: anonymous, with a cached token or session, with a token seen first.

use std::{
    hint::black_box,
    time::{Duration, SystemTime},
};

use cde_gateway::gateway::auth::{Authentication, Authenticator, LastToken};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use futures_util::FutureExt;
use http::request::Parts;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

const HOST: &str = "api-k3x9q2.gitspaces.localhost";

struct Issuer {
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Issuer {
    fn all() -> Vec<(Self, String)> {
        let pair =
            |algorithm,
             parameters,
             private: fn(&[u8]) -> jsonwebtoken::errors::Result<EncodingKey>| {
                let pair = rcgen::KeyPair::generate_for(parameters).expect("a key can be made");
                let key =
                    private(pair.serialize_pem().as_bytes()).expect("it is one of this algorithm");
                (Self { algorithm, key }, pair.public_key_pem())
            };
        let secret = "0123456789abcdef0123456789abcdef";
        vec![
            pair(
                Algorithm::ES256,
                &rcgen::PKCS_ECDSA_P256_SHA256,
                EncodingKey::from_ec_pem,
            ),
            pair(
                Algorithm::EdDSA,
                &rcgen::PKCS_ED25519,
                EncodingKey::from_ed_pem,
            ),
            pair(
                Algorithm::RS256,
                &rcgen::PKCS_RSA_SHA256,
                EncodingKey::from_rsa_pem,
            ),
            (
                Self {
                    algorithm: Algorithm::HS256,
                    key: EncodingKey::from_secret(secret.as_bytes()),
                },
                secret.into(),
            ),
        ]
    }

    fn token(&self, jti: &str, usage: &str) -> String {
        let now = seconds();
        let claims = json!({
            "iss": format!("https://{:?}.test", self.algorithm), "sub": "alice", "aud": "cde-gateway", "iat": now, "exp": now + 120,
            "jti": jti, "use": usage, "gitspace": "api-k3x9q2", "ports": ["ide"],
        });
        jsonwebtoken::encode(&Header::new(self.algorithm), &claims, &self.key)
            .expect("claims can be signed")
    }
}

fn seconds() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn authenticator(dir: &std::path::Path, issuers: &[(Issuer, String)]) -> Authenticator {
    let mut tables = String::new();
    for (issuer, public) in issuers {
        let name = format!("{:?}", issuer.algorithm);
        let file = dir.join(&name);
        std::fs::write(&file, public).expect("the folder is ours");
        let kind = if issuer.algorithm == Algorithm::HS256 {
            "secret_file"
        } else {
            "public_key_file"
        };
        tables += &format!(
            "[[issuer]]\nissuer = \"https://{name}.test\"\nprefix = \"{name}:\"\n[[issuer.key]]\nalgorithm = \"{name}\"\n{kind} = {file:?}\n"
        );
    }
    let config = toml::from_str(&tables).expect("these are tables of [gateway]");
    Authenticator::new(&config, dir).expect("the keys can be used")
}

fn request(target: &str, name: &str, value: &str) -> Parts {
    let request = http::Request::builder()
        .uri(target)
        .header("accept", "*/*")
        .header("user-agent", "bench")
        .header(name, value);
    request.body(()).expect("it is a request").into_parts().0
}

fn session(auth: &Authenticator, issuer: &Issuer) -> String {
    let mut navigation = request(
        &format!("/?gitspace_token={}", issuer.token("t", "ticket")),
        "a",
        "1",
    );
    match auth
        .authenticate(
            &mut navigation,
            HOST,
            true,
            SystemTime::now(),
            &LastToken::default(),
        )
        .now_or_never()
        .expect("no key is fetched")
    {
        Authentication::Ticket(ticket) => {
            let cookie = auth.session(&ticket, HOST, SystemTime::now());
            let cookie = cookie.to_str().unwrap_or_default();
            cookie.split(';').next().unwrap_or_default().into()
        }
        other => panic!("no ticket: {other:?}"),
    }
}

fn benches(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let issuers = Issuer::all();
    let auth = authenticator(dir.path(), &issuers);
    let now = SystemTime::now();
    let last = LastToken::default();
    let authenticate = |mut request: Parts| {
        let found = auth
            .authenticate(&mut request, HOST, false, now, &last)
            .now_or_never()
            .expect("no key is fetched");
        black_box((request, found))
    };
    let cookie = session(&auth, &issuers[0].0);
    let bearer = format!("Bearer {}", issuers[0].0.token("cached", "access"));
    for (name, request) in [
        ("auth/anonymous", request("/a?b=c", "cookie", "a=1; b=2")),
        ("auth/cached/session", request("/a?b=c", "cookie", &cookie)),
        (
            "auth/cached/session-among-cookies",
            request("/a?b=c", "cookie", &format!("a=1; {cookie}; b=2")),
        ),
        (
            "auth/cached/bearer",
            request("/a?b=c", "authorization", &bearer),
        ),
    ] {
        let (_, first) = authenticate(request.clone());
        assert!(!matches!(first, Authentication::Refused(_)), "{first:?}");
        criterion.bench_function(name, |bencher| {
            bencher.iter_batched(|| request.clone(), authenticate, BatchSize::SmallInput)
        });
    }
    for (issuer, _) in &issuers {
        let mut number = 0;
        let fresh = || {
            number += 1;
            request(
                "/a?b=c",
                "x-gitspace-token",
                &issuer.token(&number.to_string(), "access"),
            )
        };
        let name = format!("auth/uncached/{:?}", issuer.algorithm);
        let mut fresh = fresh;
        criterion.bench_function(&name, |bencher| {
            bencher.iter_batched(&mut fresh, authenticate, BatchSize::SmallInput)
        });
    }
}

criterion_group! {
    name = auth;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = benches
}
criterion_main!(auth);
