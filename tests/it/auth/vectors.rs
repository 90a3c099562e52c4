//! Vectors of each signature algorithm, whole tokens through the step itself. They are our own: `vectors/make.py` makes them from the
//! standards, and says for each which reason is expected.

use std::{collections::HashMap, fmt::Write, process::Command, time::Duration};

use cde_gateway::gateway::auth::{Authenticator, Error, LastToken, TokenError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::support::{AtOnce, HOST, gateway, request, result, write};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/auth/vectors");

#[derive(Deserialize)]
struct Vectors {
    algorithm: String,
    now: u64,
    issuer: String,
    keys: HashMap<String, Value>,
    tests: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    id: usize,
    comment: String,
    key: String,
    token: String,
    result: String,
    reason: Option<String>,
}

impl Vectors {
    /// An authenticator that trusts this key and no other. None: the key is refused.
    fn trusting(&self, key: &Value, dir: &std::path::Path) -> Option<Authenticator> {
        let issuer = format!("[[issuer]]\nissuer = {:?}\n", self.issuer);
        let tables = if key["kty"] == "oct" {
            use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
            let secret = URL_SAFE_NO_PAD.decode(key["k"].as_str().unwrap()).unwrap();
            let path = dir.join("secret");
            std::fs::write(&path, secret).unwrap();
            format!("{issuer}[[issuer.key]]\nalgorithm = \"HS256\"\nsecret_file = {path:?}\n")
        } else {
            let set = json!({ "keys": [key] }).to_string();
            format!("{issuer}jwks_file = {:?}\n", write(dir, "jwks.json", &set))
        };
        match Authenticator::new(&gateway(&tables), dir) {
            Ok(auth) => Some(auth),
            Err(Error::NoUsableKey(_)) => None,
            Err(other) => panic!("{other}"),
        }
    }

    /// What becomes of a token, under the names that the vectors have for it.
    fn outcome(&self, auth: &Authenticator, token: &str) -> &'static str {
        let now = std::time::UNIX_EPOCH + Duration::from_secs(self.now);
        // In the query, since a field holds less.
        let mut target = "/?gitspace_token=".to_owned();
        for byte in token.bytes() {
            write!(target, "%{byte:02x}").unwrap();
        }
        let last = LastToken::default();
        let mut request = request(&target, &[]);
        let found = auth.authenticate(&mut request, HOST, false, now, &last);
        match result(found.at_once()) {
            Ok(principal) => {
                assert_eq!(&*principal.name, "alice");
                "valid"
            }
            Err(TokenError::Signature) => "signature",
            Err(TokenError::Algorithm { .. }) => "algorithm",
            Err(TokenError::Malformed(_)) => "malformed",
            Err(TokenError::Critical) => "critical",
            Err(TokenError::Doubled(_)) => "doubled",
            Err(TokenError::Type { .. }) => "type",
            Err(TokenError::Purpose(_)) => "purpose",
            Err(other) => panic!("{other}"),
        }
    }
}

fn run(name: &str) {
    let text = std::fs::read_to_string(format!("{FOLDER}/{name}.json")).unwrap();
    let vectors: Vectors = serde_json::from_str(&text).unwrap();
    assert!(vectors.tests.len() >= 25 && vectors.algorithm.to_lowercase() == name);
    let dir = tempfile::tempdir().unwrap();
    let trusting: HashMap<&String, Option<Authenticator>> = vectors
        .keys
        .iter()
        .map(|(name, key)| (name, vectors.trusting(key, dir.path())))
        .collect();
    let mut wrong = Vec::new();
    for vector in &vectors.tests {
        let found = match &trusting[&vector.key] {
            Some(auth) => vectors.outcome(auth, &vector.token),
            None => "key",
        };
        let expected = match &*vector.result {
            "valid" => "valid",
            _ => vector.reason.as_deref().unwrap(),
        };
        if found != expected && (expected != "any" || found == "valid") {
            wrong.push(format!(
                "{} {}: {found}, not {expected}",
                vector.id, vector.comment
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn es256_is_verified_as_the_vectors_say() {
    run("es256");
}

#[test]
fn eddsa_is_verified_as_the_vectors_say() {
    run("eddsa");
}

#[test]
fn rs256_is_verified_as_the_vectors_say() {
    run("rs256");
}

#[test]
fn hs256_is_verified_as_the_vectors_say() {
    run("hs256");
}

#[test]
fn the_vectors_are_what_their_program_makes() {
    let made = Command::new("python3")
        .args([&format!("{FOLDER}/make.py"), "--check"])
        .output()
        .expect("python3");
    assert!(made.status.success(), "{made:?}");
}
