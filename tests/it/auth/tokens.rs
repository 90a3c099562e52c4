//! Which tokens are accepted, and why others are not.

use cde_gateway::{
    api::{access::Port, feed::FeedKeys},
    gateway::auth::{Authenticator, Error, TokenError},
};
use serde_json::json;

use super::support::{Fixture, ISSUER, Key, gateway, issuer, seconds, write};

#[test]
fn a_good_token_says_who_and_for_what() {
    let fixture = Fixture::new();
    let principal = fixture
        .try_token(&fixture.token(json!({
            "gitspace": ["api-k3x9q2", "web-000000"], "ports": ["ide", 3000, "ssh"], "org": "acme",
            "groups": ["dev", "ops"], "sid": "s1", "jti": "j1", "nbf": seconds(fixture.now) + 29,
        })))
        .unwrap();
    assert_eq!((&*principal.name, &*principal.issuer), ("alice", ISSUER));
    assert_eq!(principal.gitspaces.unwrap()[1].as_str(), "web-000000");
    assert_eq!(
        *principal.ports.unwrap(),
        [Port::Ide, Port::App(3000), Port::Ssh]
    );
    assert_eq!(principal.org.as_deref(), Some("acme"));
    assert_eq!(&*principal.groups[1], "ops");
    assert_eq!(
        (principal.sid.as_deref(), principal.jti.as_deref()),
        (Some("s1"), Some("j1"))
    );
    assert!(!principal.grants);
}

#[test]
fn every_algorithm_verifies_with_its_own_key_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let secret = "0123456789abcdef0123456789abcdef";
    let keys = [
        Key::es256(),
        Key::eddsa(),
        Key::rs256(),
        Key::hs256(secret.as_bytes()),
    ];
    let secret = write(dir.path(), "secret", &format!("{secret}\n"));
    let mut tables = String::new();
    for (number, key) in keys.iter().enumerate() {
        let file = write(dir.path(), &format!("{number}.pem"), &key.public_pem);
        let name = format!("{:?}", key.algorithm);
        tables += &issuer(
            &format!("https://{name}.test"),
            &format!("{name}:"),
            &name,
            &file,
        );
    }
    let tables = tables.replace(
        &format!("public_key_file = {:?}", dir.path().join("3.pem")),
        &format!("secret_file = {secret:?}"),
    );
    let fixture = Fixture {
        auth: Authenticator::new(&gateway(&tables), dir.path()).unwrap(),
        ..Fixture::new()
    };
    for key in &keys {
        let name = format!("{:?}", key.algorithm);
        let claims = fixture.claims(json!({ "iss": format!("https://{name}.test") }));
        assert_eq!(
            &*fixture.try_token(&key.token(&claims)).unwrap().name,
            format!("{name}:alice")
        );
        for other in keys.iter().filter(|other| other.algorithm != key.algorithm) {
            let found = fixture.try_token(&other.token(&claims)).unwrap_err();
            assert!(matches!(found, TokenError::Algorithm { .. }), "{found}");
        }
    }
}

#[test]
fn the_public_key_is_no_shared_secret() {
    let fixture = Fixture::new();
    let forger = Key::hs256(fixture.key.public_pem.as_bytes());
    let claims = fixture.claims(json!({})).to_string();
    let found = fixture
        .try_token(&forger.sign(r#"{"alg":"HS256"}"#, &claims))
        .unwrap_err();
    assert_eq!(
        found,
        TokenError::Algorithm {
            found: "HS256".into(),
            expected: "ES256"
        }
    );
    // Not even if the header lies about it.
    assert_eq!(
        fixture.try_token(&forger.sign(r#"{"alg":"ES256"}"#, &claims)),
        Err(TokenError::Signature)
    );
}

#[test]
fn no_algorithm_is_no_signature() {
    let fixture = Fixture::new();
    let signed = fixture
        .key
        .sign(r#"{"alg":"none"}"#, &fixture.claims(json!({})).to_string());
    let unsigned = format!("{}.", signed.rsplit_once('.').unwrap().0);
    for token in [signed, unsigned] {
        assert!(matches!(
            fixture.try_token(&token),
            Err(TokenError::Algorithm { .. })
        ));
    }
    let bare = format!("{}.", fixture.token(json!({})).rsplit_once('.').unwrap().0);
    assert_eq!(fixture.try_token(&bare), Err(TokenError::Signature));
}

#[test]
fn a_changed_token_is_refused_at_every_byte() {
    let fixture = Fixture::new();
    let token = fixture.token(json!({}));
    for at in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(fixture.try_token(&changed).is_err(), "byte {at}");
    }
}

#[test]
fn the_header_may_not_ask_for_more() {
    let fixture = Fixture::new();
    let claims = fixture.claims(json!({})).to_string();
    let refusal = |header: &str| {
        fixture
            .try_token(&fixture.key.sign(header, &claims))
            .unwrap_err()
    };
    assert_eq!(
        refusal(r#"{"alg":"ES256","crit":["b64"],"b64":false}"#),
        TokenError::Critical
    );
    assert_eq!(
        refusal(r#"{"alg":"ES256","crit":[]}"#),
        TokenError::Critical
    );
    assert_eq!(
        refusal(r#"{"alg":"ES256","typ":"logout+jwt"}"#),
        TokenError::Purpose("logout+jwt".into())
    );
    assert_eq!(
        refusal(r#"{"alg":"ES256","alg":"ES256"}"#),
        TokenError::Doubled("alg".into())
    );
    assert!(matches!(
        refusal(r#"{"alg":"ES256","kid":7}"#),
        TokenError::Type { .. }
    ));
    assert!(matches!(refusal(r#"["ES256"]"#), TokenError::Malformed(_)));
    let at_jwt = fixture
        .key
        .sign(r#"{"alg":"ES256","typ":"AT+JWT"}"#, &claims);
    assert!(fixture.try_token(&at_jwt).is_ok());
}

#[test]
fn a_doubled_claim_is_refused_wherever_it_stands() {
    let fixture = Fixture::new();
    let claims = fixture.claims(json!({})).to_string();
    for (more, name) in [
        (r#","sub":"bob""#, "sub"),
        (r#","x":1,"x":1"#, "x"),
        (r#","s\u0075b":"bob""#, "sub"),
    ] {
        let doubled = format!("{}{more}}}", claims.trim_end_matches('}'));
        let found = fixture.try_token(&fixture.key.sign(r#"{"alg":"ES256"}"#, &doubled));
        assert_eq!(found, Err(TokenError::Doubled(name.into())));
    }
}

#[test]
fn required_claims_are_required() {
    let fixture = Fixture::new();
    for claim in ["iss", "sub", "exp", "aud"] {
        assert_eq!(
            fixture.refusal(json!({ claim: null })),
            TokenError::Missing(claim)
        );
    }
}

#[test]
fn a_claim_of_the_wrong_type_is_refused() {
    let fixture = Fixture::new();
    let cases = json!({
        "iss": [ISSUER], "sub": 7, "exp": "tomorrow", "nbf": "0", "iat": -1, "aud": [7], "jti": 7, "sid": [], "org": {},
        "groups": "dev", "gitspace": "NOT AN ID", "ports": 3000, "use": "anything",
    });
    for (claim, value) in cases.as_object().unwrap() {
        let found = fixture.refusal(json!({ claim: value }));
        assert!(
            matches!(&found, TokenError::Type { claim: named, .. } if named == claim),
            "{claim}: {found}"
        );
    }
    for (claim, value) in [
        ("exp", json!(1e300)),
        ("sub", json!("")),
        ("sub", json!("a\nb")),
        ("ports", json!([0])),
        ("ports", json!([65536])),
    ] {
        assert!(
            matches!(
                fixture.refusal(json!({ claim: value })),
                TokenError::Type { .. }
            ),
            "{claim}"
        );
    }
}

#[test]
fn times_hold_with_thirty_seconds_of_leeway() {
    let fixture = Fixture::new();
    let now = seconds(fixture.now);
    let token = fixture.token(json!({ "exp": now + 100, "nbf": now + 10 }));
    assert_eq!(
        fixture.try_after(&token, -21),
        Err(TokenError::NotYet { until: 31 })
    );
    assert!(fixture.try_after(&token, -20).is_ok());
    assert!(fixture.try_after(&token, 129).is_ok());
    // The first one comes from the cache, which knows the end too.
    assert!(matches!(
        fixture.try_after(&token, 130),
        Err(TokenError::Expired { .. })
    ));
    let fresh = fixture.token(json!({ "exp": now + 100, "jti": "another" }));
    assert_eq!(
        fixture.try_after(&fresh, 130),
        Err(TokenError::Expired { since: 30 })
    );
}

#[test]
fn the_audience_may_be_one_of_a_list() {
    let fixture = Fixture::new();
    assert!(
        fixture
            .try_token(&fixture.token(json!({ "aud": ["other", "cde-gateway"] })))
            .is_ok()
    );
    for aud in [json!("other"), json!(["other"])] {
        assert!(matches!(
            fixture.refusal(json!({ "aud": aud })),
            TokenError::Audience { .. }
        ));
    }
    assert_eq!(
        fixture.refusal(json!({ "aud": [] })),
        TokenError::Missing("aud")
    );
    let file = fixture.dir.path().join("issuer.pem");
    let any = issuer(ISSUER, "", "ES256", file.to_str().unwrap())
        .replace("prefix", "audience = \"\"\nprefix");
    fixture.auth.reload(&gateway(&any)).unwrap();
    assert!(
        fixture
            .try_token(&fixture.token(json!({ "aud": null })))
            .is_ok()
    );
}

#[test]
fn an_unknown_issuer_is_named() {
    let found = Fixture::new().refusal(json!({ "iss": "https://evil.test" }));
    assert_eq!(found, TokenError::Issuer("https://evil.test".into()));
}

#[test]
fn a_token_that_is_too_long_is_not_read() {
    let fixture = Fixture::new();
    assert!(matches!(
        fixture.refusal(json!({ "x": "x".repeat(8192) })),
        TokenError::TooLong(_)
    ));
}

#[test]
fn two_issuers_names_never_meet() {
    let fixture = Fixture::new();
    let other = Key::es256();
    let mine = fixture.dir.path().join("issuer.pem");
    let theirs = write(fixture.dir.path(), "other.pem", &other.public_pem);
    let both = |prefix: &str| {
        let mine = issuer(ISSUER, "", "ES256", mine.to_str().unwrap());
        gateway(&(mine + &issuer("https://other.test", prefix, "ES256", &theirs)))
    };
    assert!(matches!(
        fixture.auth.reload(&both("")),
        Err(Error::DoubledPrefix { .. })
    ));
    fixture.auth.reload(&both("other:")).unwrap();
    let theirs = other.token(&fixture.claims(json!({ "iss": "https://other.test" })));
    assert_eq!(&*fixture.try_token(&theirs).unwrap().name, "other:alice");
    assert_eq!(
        &*fixture.try_token(&fixture.token(json!({}))).unwrap().name,
        "alice"
    );
    // The issuer without a prefix cannot make names of the one with it, nor sign for it.
    assert!(matches!(
        fixture.refusal(json!({ "sub": "other:alice" })),
        TokenError::Subject(_)
    ));
    assert_eq!(
        fixture.refusal(json!({ "iss": "https://other.test" })),
        TokenError::Signature
    );
}

#[test]
fn a_key_set_is_searched_by_key_id() {
    let fixture = Fixture::new();
    let (old, new) = (Key::es256(), Key::rs256());
    let mut set = old.jwks("old");
    let keys = set["keys"].as_array_mut().unwrap();
    keys.extend(new.jwks("new")["keys"].as_array().unwrap().iter().cloned());
    keys.push(json!({ "kty": "quantum", "kid": "later" }));
    keys.push(json!({ "kty": "oct", "kid": "secret", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA" }));
    let path = write(fixture.dir.path(), "jwks.json", &set.to_string());
    let config = gateway(&format!(
        "[[issuer]]\nissuer = {ISSUER:?}\njwks_file = {path:?}\n"
    ));
    fixture.auth.reload(&config).unwrap();
    let claims = fixture.claims(json!({})).to_string();
    let with = |key: &Key, header: serde_json::Value| {
        fixture.try_token(&key.sign(&header.to_string(), &claims))
    };
    assert!(with(&old, json!({ "alg": "ES256", "kid": "old" })).is_ok());
    assert!(with(&new, json!({ "alg": "RS256", "kid": "new" })).is_ok());
    let unknown = |kid: &str| {
        Err(TokenError::UnknownKey {
            issuer: ISSUER.into(),
            kid: kid.into(),
        })
    };
    assert_eq!(
        with(&old, json!({ "alg": "ES256", "kid": "gone" })),
        unknown("gone")
    );
    assert_eq!(
        with(&old, json!({ "alg": "HS256", "kid": "secret" })),
        unknown("secret")
    );
    assert_eq!(
        with(&old, json!({ "alg": "ES256" })),
        Err(TokenError::NoKeyId(ISSUER.into()))
    );
    assert!(matches!(
        with(&old, json!({ "alg": "ES256", "kid": "new" })),
        Err(TokenError::Algorithm { .. })
    ));
}

#[test]
fn other_keys_empty_the_cache() {
    let fixture = Fixture::new();
    let token = fixture.token(json!({}));
    assert!(fixture.try_token(&token).is_ok());
    let path = write(fixture.dir.path(), "new.pem", &Key::es256().public_pem);
    fixture
        .auth
        .reload(&gateway(&issuer(ISSUER, "", "ES256", &path)))
        .unwrap();
    assert_eq!(fixture.try_token(&token), Err(TokenError::Signature));
}

#[test]
fn a_reload_that_fails_changes_nothing() {
    let fixture = Fixture::new();
    let broken = gateway(&issuer(ISSUER, "", "ES256", "/nowhere/key.pem"));
    assert!(matches!(
        fixture.auth.reload(&broken),
        Err(Error::Read { .. })
    ));
    assert!(fixture.try_token(&fixture.token(json!({}))).is_ok());
}

#[test]
fn the_control_planes_keys_come_by_the_feed() {
    let dir = tempfile::tempdir().unwrap();
    let auth = Authenticator::new(&gateway(""), dir.path()).unwrap();
    let fixture = Fixture {
        auth,
        ..Fixture::new()
    };
    let token = fixture.key.sign(
        r#"{"alg":"ES256","kid":"1"}"#,
        &fixture.claims(json!({})).to_string(),
    );
    assert!(matches!(
        fixture.try_token(&token),
        Err(TokenError::Issuer(_))
    ));
    let feed = |key: &Key| FeedKeys {
        issuer: ISSUER.into(),
        audience: "cde-gateway".into(),
        jwks: key.jwks("1"),
    };
    fixture.auth.feed_keys(&feed(&fixture.key)).unwrap();
    assert!(fixture.try_token(&token).is_ok());
    // A reload of the configuration keeps them; another set replaces them.
    fixture.auth.reload(&gateway("")).unwrap();
    assert!(fixture.try_token(&token).is_ok());
    fixture.auth.feed_keys(&feed(&Key::es256())).unwrap();
    assert_eq!(fixture.try_token(&token), Err(TokenError::Signature));
    let nothing = FeedKeys {
        jwks: json!({ "keys": [] }),
        ..feed(&fixture.key)
    };
    assert!(matches!(
        fixture.auth.feed_keys(&nothing),
        Err(Error::NoUsableKey(_))
    ));
}

#[test]
fn keys_that_cannot_serve_are_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let refusal = |tables: String| {
        Authenticator::new(&gateway(&tables), dir.path())
            .unwrap_err()
            .to_string()
    };
    let ed = write(dir.path(), "ed.pem", &Key::eddsa().public_pem);
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let private = write(dir.path(), "private.pem", &p384.serialize_pem());
    let p384 = write(dir.path(), "p384.pem", &p384.public_key_pem());
    let short = write(dir.path(), "short", "hunter2\n");
    assert!(refusal(issuer(ISSUER, "", "ES256", &ed)).contains("ed.pem holds no ES256 public key"));
    assert!(refusal(issuer(ISSUER, "", "ES256", &p384)).contains("not on the curve P-256"));
    assert!(refusal(issuer(ISSUER, "", "ES256", &private)).contains("openssl pkey"));
    let hmac = issuer(ISSUER, "", "HS256", &short);
    assert!(refusal(hmac.clone()).contains("HS256 needs `secret_file`"));
    assert!(
        refusal(hmac.replace("public_key_file", "secret_file"))
            .contains("7 bytes, HS256 needs at least 32")
    );
    assert!(refusal(format!("[[issuer]]\nissuer = {ISSUER:?}\n")).contains("has no key"));
    let twice = issuer(ISSUER, "", "EdDSA", &ed);
    assert!(refusal(twice.clone() + &twice).contains("configured twice"));
}
