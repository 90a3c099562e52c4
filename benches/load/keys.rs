//! Certificates, an issuer key and one ES256 token for a run, in each peer's form. They live for a day, in a scratch folder.

use std::{
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::json;

const KEY_ID: &str = "load";
const DAY: u64 = 24 * 3600;

pub(crate) fn make(folder: &Path, host: &str) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    certificates(folder, host)?;
    issuer(folder, host.split('.').next().unwrap_or(host))
}

fn certificates(folder: &Path, host: &str) -> anyhow::Result<()> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let ca = params.self_signed(&ca_key)?;
    let signer = Issuer::new(params, ca_key);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let leaf = CertificateParams::new(vec![host.to_owned()])?.signed_by(&key, &signer)?;
    fs::write(folder.join("ca.pem"), ca.pem())?;
    fs::write(folder.join("cert.pem"), leaf.pem())?;
    fs::write(folder.join("key.pem"), key.serialize_pem())?;
    // HAProxy wants both in one file.
    fs::write(folder.join("both.pem"), leaf.pem() + &key.serialize_pem())?;
    Ok(())
}

fn issuer(folder: &Path, gitspace: &str) -> anyhow::Result<()> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let claims = json!({
        "iss": "https://issuer.test", "aud": "cde-gateway", "sub": "alice", "jti": "load-1",
        "iat": now, "exp": now + DAY, "gitspace": gitspace,
    });
    let header = Header {
        kid: Some(KEY_ID.into()),
        ..Header::new(Algorithm::ES256)
    };
    let token = encode(
        &header,
        &claims,
        &EncodingKey::from_ec_pem(key.serialize_pem().as_bytes())?,
    )?;
    // An uncompressed point: 0x04, then both coordinates.
    let (x, y) = key.public_key_raw()[1..].split_at(32);
    let encoded = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let set = json!({"keys": [{
        "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": KEY_ID, "x": encoded(x), "y": encoded(y),
    }]});
    fs::write(folder.join("token"), token)?;
    fs::write(folder.join("issuer.pem"), key.public_key_pem())?;
    fs::write(folder.join("jwks.json"), set.to_string())?;
    Ok(())
}
