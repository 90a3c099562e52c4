//! Claims of a wrong type, at their edges, and twice.

use cde_gateway::gateway::auth::TokenError;
use serde_json::json;

use crate::auth::support::{AtOnce, Fixture, HOST, ISSUER, Key, request, result, seconds};

const HEADER: &str = r#"{"alg":"ES256"}"#;

/// Good claims as they are written, with this one in another way.
fn with(fixture: &Fixture, name: &str, value: &str) -> String {
    let mut claims = fixture.claims(json!({}));
    claims.as_object_mut().unwrap().remove(name);
    let text = claims.to_string();
    format!("{},{name:?}:{value}}}", text.trim_end_matches('}'))
}

#[test]
fn a_claim_of_a_wrong_type_refuses_the_token_whatever_it_could_be_taken_for() {
    let fixture = Fixture::new();
    let number = [
        "\"1900000000\"",
        "\"\"",
        "null",
        "true",
        "false",
        "[]",
        "{}",
        "[1900000000]",
        "-1",
        "-0.5",
        "-1e9",
        "1e300",
        "253402300800",
        "99999999999999999999",
    ];
    let text = ["null", "true", "7", "[]", "{}", "[\"a\"]", "{\"a\":\"b\"}"];
    let texts = [
        "null",
        "true",
        "7",
        "{}",
        "{\"0\":\"cde-gateway\"}",
        "[7]",
        "[null]",
        "[[\"cde-gateway\"]]",
        "[\"cde-gateway\",7]",
    ];
    let gitspaces = [
        "null",
        "true",
        "7",
        "{}",
        "\"\"",
        "\"*\"",
        "\"API-k3x9q2\"",
        "\"api-k3x9q2 \"",
        "\"../api-k3x9q2\"",
        "[\"api-k3x9q2\",null]",
        "[\"\"]",
    ];
    let ports = [
        "null",
        "true",
        "3000",
        "\"ide\"",
        "{}",
        "[null]",
        "[\"IDE\"]",
        "[\"3000\"]",
        "[3000.5]",
        "[-1]",
        "[0]",
        "[65536]",
        "[[3000]]",
        "[\"*\"]",
    ];
    let usage = [
        "null",
        "true",
        "\"\"",
        "\"Access\"",
        "\"Ticket\"",
        "\"ticket \"",
        "[\"access\"]",
        "{}",
    ];
    let tables: [(&[&str], &[&str]); 8] = [
        (&["exp", "nbf", "iat"], &number),
        (&["iss", "sub", "jti", "sid", "org"], &text),
        (&["aud"], &texts),
        (&["groups"], &texts),
        (&["groups"], &["\"dev\"", "\"\""]),
        (&["gitspace"], &gitspaces),
        (&["ports"], &ports),
        (&["use"], &usage),
    ];
    for (names, values) in tables {
        for (name, value) in names
            .iter()
            .flat_map(|name| values.iter().map(move |value| (name, value)))
        {
            let token = fixture.key.sign(HEADER, &with(&fixture, name, value));
            let found = fixture.try_token(&token);
            assert!(
                matches!(&found, Err(TokenError::Type { claim, .. }) if claim == name),
                "{name} {value}: {found:?}"
            );
        }
    }
    // What is no JSON at all.
    for value in [
        "1e400",
        "NaN",
        "Infinity",
        "0x70000000",
        "01900000000",
        "+1900000000",
        "1900000000.",
        "'a'",
        "undefined",
        "\"\\ud800\"",
        "1,}",
    ] {
        let token = fixture.key.sign(HEADER, &with(&fixture, "exp", value));
        let found = fixture.try_token(&token);
        assert!(
            matches!(found, Err(TokenError::Malformed(_))),
            "{value}: {found:?}"
        );
    }
}

#[test]
fn numbers_are_seconds_at_every_edge() {
    let fixture = Fixture::new();
    let now = seconds(fixture.now);
    for (name, value, good) in [
        ("exp", format!("{now}.9"), true),
        ("exp", format!("{}.0", now - 29), true),
        ("exp", format!("{}.999", now - 30), false),
        ("exp", "253402300799".into(), true),
        ("exp", "1.9e9".into(), true),
        ("exp", "0".into(), false),
        ("exp", "-0.0".into(), false),
        ("nbf", "0".into(), true),
        ("nbf", format!("{}.5", now + 30), true),
        ("nbf", format!("{}", now + 31), false),
        ("iat", "0".into(), true),
        ("iat", "253402300799".into(), true),
    ] {
        let token = fixture.key.sign(HEADER, &with(&fixture, name, &value));
        let found = fixture.try_token(&token);
        assert_eq!(found.is_ok(), good, "{name} {value}: {found:?}");
    }
}

#[test]
fn a_name_that_would_be_shown_as_another_is_refused() {
    let fixture = Fixture::new();
    for subject in [
        "",
        "a\u{0}",
        "a\r\nb",
        "a\u{202e}b",
        "\u{200b}alice",
        "alice\u{feff}",
        "a\u{2028}b",
        "a\u{85}b",
        &"x".repeat(256),
    ] {
        let found = fixture.refusal(json!({ "sub": subject }));
        assert!(
            matches!(found, TokenError::Type { .. }),
            "{subject:?}: {found}"
        );
    }
    assert!(
        fixture
            .try_token(&fixture.token(json!({ "sub": "ä".repeat(255) })))
            .is_ok()
    );
}

#[test]
fn a_member_that_is_there_twice_refuses_the_token_however_it_is_spelled() {
    let fixture = Fixture::new();
    let good = fixture.claims(json!({})).to_string();
    for (name, spelled) in [
        ("iss", r#""iss":"https://evil.test""#),
        ("iss", r#""is\u0073":"https://evil.test""#),
        ("iss", r#""\u0069\u0073\u0073":"https://issuer.test""#),
        ("sub", r#""\u0073ub":"root""#),
        ("aud", r#""aud":"cde-gateway""#),
        ("exp", r#""ex\u0070":1"#),
        ("iat", r#""iat":null"#),
    ] {
        for claims in [
            good.replacen('{', &format!("{{{spelled},"), 1),
            format!("{},{spelled}}}", good.trim_end_matches('}')),
        ] {
            let found = fixture.try_token(&fixture.key.sign(HEADER, &claims));
            let foreign = matches!(&found, Err(TokenError::Doubled(found)) if found == name);
            assert!(foreign, "{claims}: {found:?}");
        }
    }
    for (name, header) in [
        ("alg", r#"{"alg":"none","alg":"ES256"}"#),
        ("alg", r#"{"alg":"ES256","\u0061lg":"none"}"#),
        ("kid", r#"{"alg":"ES256","kid":"1","k\u0069d":"2"}"#),
        ("typ", r#"{"alg":"ES256","typ":"JWT","typ":"at+jwt"}"#),
        ("crit", r#"{"alg":"ES256","crit":["b64"],"cr\u0069t":[]}"#),
        ("x", r#"{"alg":"ES256","x":1,"x":1}"#),
    ] {
        let found = fixture.try_token(&fixture.key.sign(header, &good));
        assert_eq!(found, Err(TokenError::Doubled(name.into())), "{header}");
    }
}

#[test]
fn names_differ_by_case_and_by_what_is_not_seen() {
    let fixture = Fixture::new();
    for claims in [
        json!({ "Sub": "root" }),
        json!({ "SUB": "root" }),
        json!({ "sub ": "root" }),
        json!({ "sub\0": "root" }),
        json!({ "\u{200b}sub": "root" }),
    ] {
        let found = fixture.try_token(&fixture.token(claims)).unwrap();
        assert_eq!(&*found.name, "alice");
    }
    for (claim, other) in [
        ("exp", "Exp"),
        ("aud", "AUD"),
        ("sub", "user"),
        ("iss", "issuer"),
    ] {
        let found =
            fixture.refusal(json!({ claim: null, other: fixture.claims(json!({}))[claim] }));
        assert_eq!(found, TokenError::Missing(claim));
    }
}

#[test]
fn a_doubled_issuer_hides_no_token_from_us() {
    let fixture = Fixture::new();
    let rest = r#""sub":"alice","aud":"cde-gateway","exp":9999999999"#;
    let stranger = Key::es256();
    for claims in [
        format!(r#"{{"iss":{ISSUER:?},{rest},"iss":"https://app.test"}}"#),
        format!(r#"{{"iss":"https://app.test",{rest},"iss":{ISSUER:?}}}"#),
        format!(r#"{{"iss":"https://app.test",{rest},"is\u0073":{ISSUER:?}}}"#),
    ] {
        for key in [&fixture.key, &stranger] {
            let bearer = format!("Bearer {}", key.sign(HEADER, &claims));
            let mut request = request("/", &[("authorization", &bearer)]);
            let found = fixture
                .auth
                .authenticate(&mut request, HOST, false, fixture.now, &fixture.last)
                .at_once();
            assert_eq!(result(found), Err(TokenError::Doubled("iss".into())));
            assert!(request.headers.is_empty(), "it went on to the app");
        }
    }
}

#[test]
fn depth_and_number_of_members_cost_nothing() {
    let fixture = Fixture::new();
    let good = fixture.claims(json!({})).to_string();
    let deep = |by: usize| {
        format!(
            "{},\"x\":{}{}}}",
            good.trim_end_matches('}'),
            "[".repeat(by),
            "]".repeat(by)
        )
    };
    assert!(
        fixture
            .try_token(&fixture.key.sign(HEADER, &deep(100)))
            .is_ok()
    );
    let found = fixture.try_token(&fixture.key.sign(HEADER, &deep(2000)));
    assert!(matches!(found, Err(TokenError::Malformed(_))), "{found:?}");
    let many: String = (0..700).map(|n| format!(",\"{n}\":0")).collect();
    let many = format!("{}{many}}}", good.trim_end_matches('}'));
    assert!(fixture.try_token(&fixture.key.sign(HEADER, &many)).is_ok());
}
