//! Sessions: bound to one host, sealed, never longer than the maximum. And assertions.

use std::fs;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use cde_gateway::gateway::auth::{
    Authentication, Authenticator, Error, LastToken, Principal, SESSION_COOKIE, TokenError,
};
use http::HeaderValue;
use jsonwebtoken::{DecodingKey, Validation, jwk::JwkSet};
use serde_json::{Value, json};

use super::support::{
    AtOnce, Fixture, HOST, ISSUER, Key, gateway, issuer, later, request, result, write,
};

/// A session's `Set-Cookie`, from a ticket.
fn begin(fixture: &Fixture) -> HeaderValue {
    let mut navigation = request(&format!("/?gitspace_token={}", fixture.ticket("t1")), &[]);
    match fixture
        .auth
        .authenticate(&mut navigation, HOST, true, fixture.now, &fixture.last)
        .at_once()
    {
        Authentication::Ticket(ticket) => fixture.auth.session(&ticket, HOST, fixture.now),
        other => panic!("no ticket: {other:?}"),
    }
}

fn cookie(set_cookie: &HeaderValue) -> String {
    set_cookie
        .to_str()
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .into()
}

fn open(
    auth: &Authenticator,
    cookie: &str,
    host: &str,
    now: std::time::SystemTime,
) -> Authentication {
    auth.authenticate(
        &mut request("/", &[("cookie", cookie)]),
        host,
        false,
        now,
        &LastToken::default(),
    )
    .at_once()
}

#[test]
fn a_ticket_becomes_a_session_of_its_host() {
    let fixture = Fixture::new();
    let set_cookie = begin(&fixture);
    let text = set_cookie.to_str().unwrap();
    assert!(text.starts_with("__Host-gitspace=1."));
    assert!(text.ends_with("; Path=/; Max-Age=43200; Secure; HttpOnly; SameSite=Lax"));
    assert!(set_cookie.is_sensitive());
    let cookie = cookie(&set_cookie);
    for _ in 0..2 {
        let Authentication::Principal {
            principal,
            by_cookie: true,
            ..
        } = open(&fixture.auth, &cookie, HOST, fixture.now)
        else {
            panic!("no session");
        };
        assert_eq!(
            (&*principal.name, principal.jti.as_deref()),
            ("alice", Some("t1"))
        );
        assert_eq!(
            principal.gitspaces.as_ref().unwrap()[0].as_str(),
            "api-k3x9q2"
        );
        assert!(principal.session_end.is_some());
        let elsewhere = open(
            &fixture.auth,
            &cookie,
            "other-000000.gitspaces.localhost",
            fixture.now,
        );
        assert_eq!(
            result(elsewhere),
            Err(TokenError::Session("is another host's"))
        );
    }
}

#[test]
fn a_session_ends_at_its_maximum_also_from_the_cache_and_when_it_is_lowered() {
    let fixture = Fixture::new();
    let cookie = cookie(&begin(&fixture));
    let at = |after| {
        result(open(
            &fixture.auth,
            &cookie,
            HOST,
            later(fixture.now, after),
        ))
    };
    assert!(at(43_199).is_ok());
    assert!(matches!(at(43_200), Err(TokenError::Expired { .. })));
    let file = fixture.dir.path().join("issuer.pem");
    let shorter =
        issuer(ISSUER, "", "ES256", file.to_str().unwrap()) + "[timeouts]\nsession = \"1m\"\n";
    fixture.auth.reload(&gateway(&shorter)).unwrap();
    assert!(at(59).is_ok());
    assert!(matches!(at(60), Err(TokenError::Expired { .. })));
}

#[test]
fn a_changed_session_is_refused_at_every_byte() {
    let fixture = Fixture::new();
    let cookie = cookie(&begin(&fixture));
    for at in SESSION_COOKIE.len() + 1..cookie.len() {
        let mut changed = cookie.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(
            matches!(
                open(&fixture.auth, &changed, HOST, fixture.now),
                Authentication::Refused(_)
            ),
            "byte {at}"
        );
    }
}

#[test]
fn a_session_is_no_token_and_a_token_no_session() {
    let fixture = Fixture::new();
    let cookie = cookie(&begin(&fixture));
    let (_, value) = cookie.split_once('=').unwrap();
    assert!(result(open(&fixture.auth, &cookie, HOST, fixture.now)).is_ok());
    assert!(fixture.try_token(value).is_err());
    let token = fixture.token(json!({}));
    assert!(fixture.try_token(&token).is_ok());
    let as_session = open(
        &fixture.auth,
        &format!("{SESSION_COOKIE}={token}"),
        HOST,
        fixture.now,
    );
    assert!(matches!(result(as_session), Err(TokenError::Session(_))));
}

#[test]
fn a_session_falls_with_its_issuer() {
    let fixture = Fixture::new();
    let cookie = cookie(&begin(&fixture));
    assert!(result(open(&fixture.auth, &cookie, HOST, fixture.now)).is_ok());
    let path = write(fixture.dir.path(), "other.pem", &Key::es256().public_pem);
    fixture
        .auth
        .reload(&gateway(&issuer("https://other.test", "", "ES256", &path)))
        .unwrap();
    assert!(matches!(
        result(open(&fixture.auth, &cookie, HOST, fixture.now)),
        Err(TokenError::Session(_))
    ));
}

#[test]
fn a_session_that_would_not_fit_into_a_cookie_is_refused_with_its_ticket() {
    let fixture = Fixture::new();
    let groups: Vec<_> = (0..200).map(|number| format!("a-group-{number}")).collect();
    let ticket = fixture.token(json!({ "use": "ticket", "jti": "t", "gitspace": "api-k3x9q2", "ports": [3000], "groups": groups,
        "exp": super::support::seconds(fixture.now) + 60 }));
    let mut navigation = request(&format!("/?gitspace_token={ticket}"), &[]);
    let found = fixture
        .auth
        .authenticate(&mut navigation, HOST, true, fixture.now, &fixture.last)
        .at_once();
    assert!(matches!(result(found), Err(TokenError::Ticket(_))));
}

#[test]
fn ending_a_session_clears_the_cookie() {
    let text = Fixture::new().auth.end_session();
    assert_eq!(
        text,
        "__Host-gitspace=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax"
    );
}

#[test]
fn keys_are_kept_over_a_restart_and_shared_by_replicas() {
    let fixture = Fixture::new();
    let cookie = cookie(&begin(&fixture));
    let file = fixture.dir.path().join("issuer.pem");
    let config = gateway(&issuer(ISSUER, "", "ES256", file.to_str().unwrap()));
    let again = Authenticator::new(&config, fixture.dir.path()).unwrap();
    assert!(result(open(&again, &cookie, HOST, fixture.now)).is_ok());
    assert_eq!(again.jwks(), fixture.auth.jwks());
    let stranger = Authenticator::new(&config, tempfile::tempdir().unwrap().path()).unwrap();
    assert!(matches!(
        result(open(&stranger, &cookie, HOST, fixture.now)),
        Err(TokenError::Session(_))
    ));
}

#[test]
fn the_key_before_this_one_still_opens_sessions() {
    let fixture = Fixture::new();
    let cookie = cookie(&begin(&fixture));
    let path = fixture.dir.path().join("gateway.keys");
    let mut file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let other = tempfile::tempdir().unwrap();
    Authenticator::new(&gateway(""), other.path()).unwrap();
    let new: Value =
        serde_json::from_slice(&fs::read(other.path().join("gateway.keys")).unwrap()).unwrap();
    for kind in ["session", "assertion"] {
        file[kind]["previous"] = file[kind]["current"].take();
        file[kind]["current"] = new[kind]["current"].clone();
    }
    fs::write(&path, file.to_string()).unwrap();
    let issuer_file = fixture.dir.path().join("issuer.pem");
    fixture
        .auth
        .reload(&gateway(&issuer(
            ISSUER,
            "",
            "ES256",
            issuer_file.to_str().unwrap(),
        )))
        .unwrap();
    assert!(result(open(&fixture.auth, &cookie, HOST, fixture.now)).is_ok());
    assert_ne!(self::cookie(&begin(&fixture)), cookie);
    let keys: JwkSet = serde_json::from_str(&fixture.auth.jwks()).unwrap();
    assert_eq!(keys.keys.len(), 3, "with the one that comes next");
}

#[test]
fn a_key_file_that_others_can_read_or_that_is_newer_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let start = || Authenticator::new(&gateway(""), dir.path()).map(drop);
    start().unwrap();
    let path = dir.path().join("gateway.keys");
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(start(), Err(Error::Mode { mode: 0o640, .. })));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"version\": 1", "\"version\": 2")).unwrap();
    assert!(matches!(
        start(),
        Err(Error::Version {
            found: 2,
            known: 1,
            ..
        })
    ));
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    assert!(matches!(start(), Err(Error::Damaged { .. })));
}

#[test]
fn an_app_can_verify_the_assertion_itself() {
    let fixture = Fixture::new();
    let principal = fixture
        .try_token(&fixture.token(json!({ "org": "acme" })))
        .unwrap();
    let assertion = |host: &str, after| {
        fixture
            .auth
            .assertion(&principal, host, "api-k3x9q2", later(fixture.now, after))
            .unwrap()
    };
    let first = assertion(HOST, 0);
    assert_eq!(
        first,
        assertion(HOST, 239),
        "one signature serves four minutes"
    );
    assert_ne!(first, assertion(HOST, 240));
    assert_ne!(first, assertion("other.test", 0));
    let keys: JwkSet = serde_json::from_str(&fixture.auth.jwks()).unwrap();
    let text = first.to_str().unwrap();
    let kid = jsonwebtoken::decode_header(text).unwrap().kid.unwrap();
    let mut validation = Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.set_audience(&[HOST]);
    let key = DecodingKey::from_jwk(keys.find(&kid).unwrap()).unwrap();
    let claims = jsonwebtoken::decode::<Value>(text, &key, &validation)
        .unwrap()
        .claims;
    assert_eq!(
        (&claims["sub"], &claims["gitspace"], &claims["org"]),
        (&json!("alice"), &json!("api-k3x9q2"), &json!("acme"))
    );
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        300
    );
}

#[test]
fn an_assertion_is_about_one_principal_host_and_gitspace() {
    let fixture = Fixture::new();
    let claims = |principal: &Principal, host: &str, gitspace: &str| {
        let value = fixture
            .auth
            .assertion(principal, host, gitspace, fixture.now);
        let text = value.unwrap().to_str().unwrap().to_owned();
        let payload = text.split('.').nth(1).unwrap().to_owned();
        let claims: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
        let said = |name: &str| claims[name].as_str().unwrap_or_default().to_owned();
        [said("sub"), said("org"), said("aud"), said("gitspace")]
    };
    // Kept ones are asked for in between.
    for _ in 0..2 {
        for (sub, org) in [
            ("alice", "acme"),
            ("alice", "other"),
            ("alice", ""),
            ("bob", "acme"),
        ] {
            let more = match org {
                "" => json!({ "sub": sub }),
                org => json!({ "sub": sub, "org": org }),
            };
            let principal = fixture.try_token(&fixture.token(more)).unwrap();
            for (host, gitspace) in [
                (HOST, "api-k3x9q2"),
                (HOST, "web-k3x9q2"),
                ("other.test", "api-k3x9q2"),
            ] {
                assert_eq!(
                    claims(&principal, host, gitspace),
                    [sub, org, host, gitspace]
                );
            }
        }
    }
}
