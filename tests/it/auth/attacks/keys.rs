//! Keys of others, and names of keys that are more than names.

use cde_gateway::gateway::auth::{Authenticator, Error, TokenError};
use serde_json::{Value, json};

use crate::auth::support::{Fixture, ISSUER, Key, gateway, issuer, write};

const OTHER: &str = "https://other.test";

/// Two issuers with a key set each, in which the key has the same name.
fn both(fixture: &Fixture, mine: &Key, theirs: &Key) -> String {
    let set = |name: &str, prefix: &str, file: &str, key: &Key| {
        let path = write(fixture.dir.path(), file, &key.jwks("1").to_string());
        format!("[[issuer]]\nissuer = {name:?}\nprefix = {prefix:?}\njwks_file = {path:?}\n")
    };
    set(ISSUER, "", "mine.json", mine) + &set(OTHER, "other:", "theirs.json", theirs)
}

#[test]
fn a_key_signs_for_its_own_issuer_though_another_has_one_of_the_same_name() {
    let fixture = Fixture::new();
    let (mine, theirs) = (Key::es256(), Key::es256());
    fixture
        .auth
        .reload(&gateway(&both(&fixture, &mine, &theirs)))
        .unwrap();
    let attempt = |key: &Key, issuer: &str, header: Value| {
        let claims = fixture.claims(json!({ "iss": issuer }));
        fixture.try_token(&key.sign(&header.to_string(), &claims.to_string()))
    };
    let header = json!({ "alg": "ES256", "kid": "1" });
    assert_eq!(
        &*attempt(&mine, ISSUER, header.clone()).unwrap().name,
        "alice"
    );
    assert_eq!(
        &*attempt(&theirs, OTHER, header.clone()).unwrap().name,
        "other:alice"
    );
    for (key, issuer) in [(&mine, OTHER), (&theirs, ISSUER)] {
        assert_eq!(
            attempt(key, issuer, header.clone()),
            Err(TokenError::Signature)
        );
        // Nor does it help to bring the key along, or to say where it is (RFC 7515 §4.1.2 to §4.1.8).
        for (name, value) in [
            ("jwk", key.jwks("1")["keys"][0].clone()),
            ("jku", json!("https://other.test/jwks.json")),
            ("x5u", json!("https://other.test/cert.pem")),
            ("x5c", json!(["MIIB"])),
            ("x5t", json!("AAAA")),
            ("x5t#S256", json!("AAAA")),
            ("iss", json!(OTHER)),
        ] {
            let mut with = header.clone();
            with[name] = value;
            assert_eq!(
                attempt(key, issuer, with),
                Err(TokenError::Signature),
                "{name}"
            );
        }
    }
}

#[test]
fn an_issuer_is_named_to_the_letter() {
    let fixture = Fixture::new();
    for name in [
        "https://issuer.test/",
        "https://ISSUER.test",
        "HTTPS://issuer.test",
        "https://issuer.test:443",
        "https://issuer.test#",
        " https://issuer.test",
        "https://issuer.test\0",
        "https://issuer.test\u{200b}",
        "https://\u{456}ssuer.test",
        "issuer.test",
        "",
    ] {
        let found = fixture.refusal(json!({ "iss": name }));
        assert!(matches!(found, TokenError::Issuer(_)), "{name:?}: {found}");
    }
}

#[test]
fn the_name_of_a_key_is_looked_up_and_nothing_else() {
    let fixture = Fixture::new();
    let (mine, theirs) = (Key::es256(), Key::es256());
    fixture
        .auth
        .reload(&gateway(&both(&fixture, &mine, &theirs)))
        .unwrap();
    let claims = fixture.claims(json!({})).to_string();
    let long = "1".repeat(5000);
    let names = [
        "",
        " ",
        "2",
        "01",
        "1 ",
        " 1",
        "1\0",
        "1\n",
        "\u{ff11}",
        "../../../../../../dev/null",
        "/dev/null",
        "/proc/self/environ",
        "mine.json",
        "file:///dev/null",
        "https://evil.test/key.pem",
        "' OR '1'='1",
        "1' UNION SELECT 'AAAA' --",
        "1; DROP TABLE keys",
        "| sleep 10",
        "$(sleep 10)",
        "%2e%2e%2f",
        "*",
        "1*",
        "__proto__",
        "constructor",
        "\u{202e}1",
        &*long,
    ];
    // Whoever hopes that such a name leads to nothing, or to a file that is empty, signs with an empty secret, or a guess.
    let forgers = [Key::hs256(b""), Key::hs256(b"AAAA"), Key::es256()];
    for name in names {
        for key in forgers.iter().chain([&mine, &theirs]) {
            let header = json!({ "alg": key.algorithm, "kid": name }).to_string();
            let found = fixture.try_token(&key.sign(&header, &claims)).unwrap_err();
            assert!(
                matches!(found, TokenError::UnknownKey { .. }),
                "{name:?}: {found}"
            );
            assert!(found.to_string().len() < 600, "it goes to the log");
        }
    }
    for name in [
        json!(null),
        json!(1),
        json!(["1"]),
        json!({ "1": 1 }),
        json!(true),
    ] {
        let header = json!({ "alg": "ES256", "kid": name }).to_string();
        let found = fixture.try_token(&mine.sign(&header, &claims));
        assert!(matches!(found, Err(TokenError::Type { .. })), "{name}");
    }
}

#[test]
fn two_keys_of_one_name_are_refused_and_nameless_ones_are_few() {
    let fixture = Fixture::new();
    let load = |keys: Vec<Value>| {
        let set = json!({ "keys": keys }).to_string();
        let path = write(fixture.dir.path(), "set.json", &set);
        let tables = format!("[[issuer]]\nissuer = {ISSUER:?}\njwks_file = {path:?}\n");
        Authenticator::new(&gateway(&tables), fixture.dir.path())
    };
    let named = |name: &str| Key::es256().jwks(name)["keys"][0].clone();
    let nameless = || {
        let mut key = named("");
        key.as_object_mut().unwrap().remove("kid");
        key
    };
    assert!(load(vec![named("1"), named("2")]).is_ok());
    for keys in [
        vec![named("1"), named("1")],
        vec![
            named("1"),
            named("2"),
            Key::rs256().jwks("1")["keys"][0].clone(),
        ],
        (0..5).map(|_| nameless()).collect(),
        // "" is no name.
        vec![nameless(), nameless(), nameless(), named(""), named("")],
    ] {
        let found = load(keys);
        assert!(matches!(found, Err(Error::DoubledKey { .. })), "{found:?}");
    }
    assert!(load((0..4).map(|_| nameless()).collect()).is_ok());
    // A member that is there twice in the file's own text.
    let key = named("1").to_string();
    let doubled = key.replacen('{', r#"{"kid":"2","#, 1);
    let path = write(
        fixture.dir.path(),
        "doubled.json",
        &format!("{{\"keys\":[{doubled}]}}"),
    );
    let tables = format!("[[issuer]]\nissuer = {ISSUER:?}\njwks_file = {path:?}\n");
    let found = Authenticator::new(&gateway(&tables), fixture.dir.path());
    assert!(matches!(found, Err(Error::KeySet { .. })), "{found:?}");
}

#[test]
fn of_a_key_file_and_a_key_set_neither_takes_the_others_name() {
    let fixture = Fixture::new();
    let (set, file) = (Key::es256(), Key::es256());
    let set = write(fixture.dir.path(), "set.json", &set.jwks("1").to_string());
    let file = write(fixture.dir.path(), "file.pem", &file.public_pem);
    let tables = issuer(ISSUER, "", "ES256", &file)
        .replace("prefix", &format!("jwks_file = {set:?}\nprefix"))
        .replace("algorithm", "id = \"1\"\nalgorithm");
    let found = fixture.auth.reload(&gateway(&tables));
    assert!(matches!(found, Err(Error::DoubledKey { .. })), "{found:?}");
}
