//! Where tokens are found, which one counts, and that everything else of a request stays as it was.

use cde_gateway::gateway::auth::{Authentication, TokenError};
use http::{Method, header::COOKIE, request::Parts};
use proptest::prelude::*;
use serde_json::json;

use super::support::{AtOnce, Fixture, HOST, Key, request, result, seconds};

fn authenticate(fixture: &Fixture, request: &mut Parts) -> Authentication {
    fixture
        .auth
        .authenticate(request, HOST, false, fixture.now, &fixture.last)
        .at_once()
}

fn header<'a>(request: &'a Parts, name: &str) -> Option<&'a str> {
    request
        .headers
        .get(name)
        .map(|value| value.to_str().unwrap())
}

#[test]
fn a_request_without_a_carrier_is_anonymous() {
    let fixture = Fixture::new();
    let mut plain = request(
        "/?a=1",
        &[("cookie", "a=1"), ("authorization", "Basic YTpi")],
    );
    assert!(matches!(
        authenticate(&fixture, &mut plain),
        Authentication::Anonymous
    ));
    assert_eq!(header(&plain, "authorization"), Some("Basic YTpi"));
}

#[test]
fn every_carrier_carries_and_leaves_the_request() {
    let fixture = Fixture::with("[auth]\ntoken_cookies = [\"theirs\"]\n");
    let token = fixture.token(json!({}));
    let bearer = format!("bEaReR {token}");
    let cookie = format!("a=1; theirs={token}; b=2");
    let (ours, theirs) = (
        format!("/p?x=1&gitspace_token={token}&y"),
        format!("/p?token={token}&x=1&y"),
    );
    let encoded = format!("/p?x=1&gitspace%5Ftoken={}&y", token.replace('.', "%2e"));
    for (target, name, value) in [
        ("/p?x=1&y", "x-gitspace-token", &*token),
        ("/p?x=1&y", "authorization", &bearer),
        (&ours, "x-other", "1"),
        (&theirs, "x-other", "1"),
        (&encoded, "x-other", "1"),
        ("/p?x=1&y", "cookie", &cookie),
    ] {
        let mut request = request(target, &[(name, value)]);
        let found = authenticate(&fixture, &mut request);
        let by_cookie = name == "cookie";
        assert!(
            matches!(&found, Authentication::Principal { by_cookie: found, .. } if *found == by_cookie),
            "{name} {target} {found:?}"
        );
        assert_eq!(request.uri, "/p?x=1&y");
        assert_eq!(
            header(&request, name),
            match name {
                "cookie" => Some("a=1; b=2"),
                "x-other" => Some("1"),
                _ => None,
            }
        );
    }
}

#[test]
fn the_first_valid_carrier_counts() {
    let fixture = Fixture::new();
    let (alice, bob) = (
        fixture.token(json!({})),
        fixture.token(json!({ "sub": "bob" })),
    );
    let bearer = format!("Bearer {bob}");
    let mut both = request(
        "/",
        &[("x-gitspace-token", &alice), ("authorization", &bearer)],
    );
    assert_eq!(
        &*result(authenticate(&fixture, &mut both)).unwrap().name,
        "alice"
    );
    // The loser is taken out as well.
    assert!(both.headers.is_empty());
    let mut first_bad = request(
        "/",
        &[("x-gitspace-token", "nonsense"), ("authorization", &bearer)],
    );
    assert_eq!(
        &*result(authenticate(&fixture, &mut first_bad)).unwrap().name,
        "bob"
    );
}

#[test]
fn of_several_bad_ones_the_first_says_why() {
    let fixture = Fixture::new();
    let expired = format!("Bearer {}", fixture.token(json!({ "exp": 1000 })));
    let mut bad = request(
        "/?gitspace_token=x",
        &[
            ("x-gitspace-token", "nonsense"),
            ("authorization", &expired),
        ],
    );
    assert!(matches!(
        result(authenticate(&fixture, &mut bad)),
        Err(TokenError::Malformed(_))
    ));
    assert!(bad.headers.is_empty());
    assert_eq!(bad.uri, "/");
    let mut expired = request("/?gitspace_token=x", &[("authorization", &expired)]);
    assert!(matches!(
        result(authenticate(&fixture, &mut expired)),
        Err(TokenError::Expired { .. })
    ));
}

#[test]
fn tokens_of_the_app_pass_untouched() {
    let fixture = Fixture::with("[auth]\ntoken_cookies = [\"theirs\"]\n");
    let foreign = Key::es256()
        .token(&json!({ "iss": "https://app.test", "sub": "x", "exp": seconds(fixture.now) }));
    let (bearer, cookie) = (
        format!("Bearer {foreign}"),
        format!("theirs={foreign}; theirs=a.b.c"),
    );
    let target = format!("/lab?token={foreign}&token=0123abcd&token");
    let mut app = request(&target, &[("authorization", &bearer), ("cookie", &cookie)]);
    assert!(matches!(
        authenticate(&fixture, &mut app),
        Authentication::Anonymous
    ));
    assert_eq!(app.uri, target.as_str());
    assert_eq!(
        (header(&app, "authorization"), header(&app, "cookie")),
        (Some(&*bearer), Some(&*cookie))
    );
}

#[test]
fn only_our_authorization_leaves_when_there_are_two() {
    let fixture = Fixture::new();
    let bearer = format!("Bearer {}", fixture.token(json!({})));
    let mut two = request(
        "/",
        &[("authorization", "Basic YTpi"), ("authorization", &bearer)],
    );
    assert!(result(authenticate(&fixture, &mut two)).is_ok());
    assert_eq!(
        two.headers
            .get_all("authorization")
            .iter()
            .collect::<Vec<_>>(),
        ["Basic YTpi"]
    );
}

#[test]
fn spellings_of_our_header_leave_too() {
    let fixture = Fixture::new();
    let mut spelled = request(
        "/",
        &[
            ("x_gitspace_token", "a"),
            ("x-gitspace_token", "b"),
            ("x-gitspace-tokens", "c"),
        ],
    );
    assert!(matches!(
        authenticate(&fixture, &mut spelled),
        Authentication::Anonymous
    ));
    assert_eq!(spelled.headers.len(), 1);
}

#[test]
fn cookies_are_taken_out_by_pair_and_crumbs_are_joined() {
    let fixture = Fixture::new();
    for (crumbs, rest) in [
        (&["__Host-gitspace=x"][..], None),
        (&["__Host-gitspace=x; "], None),
        (&["a=1;  b=\"2 3\" ;c"], Some("a=1;  b=\"2 3\" ;c")),
        (&["__Host-gitspace=x; a=1"], Some("a=1")),
        (&["a=1; __Host-gitspace=x; b=2;c=3"], Some("a=1; b=2;c=3")),
        (&["a=1; __Host-gitspace=x"], Some("a=1")),
        (
            &["a=1", "b=2", "__Host-gitspace=x", "c=3; d=4"],
            Some("a=1; b=2; c=3; d=4"),
        ),
        (&["a=1", "b=2"], Some("a=1; b=2")),
        (
            &["x__Host-gitspace=1; __host-gitspace=2"],
            Some("x__Host-gitspace=1; __host-gitspace=2"),
        ),
    ] {
        let headers: Vec<_> = crumbs.iter().map(|crumb| ("cookie", *crumb)).collect();
        let mut request = request("/", &headers);
        authenticate(&fixture, &mut request);
        assert!(request.headers.get_all(COOKIE).iter().count() <= 1);
        assert_eq!(header(&request, "cookie"), rest, "{crumbs:?}");
    }
}

#[test]
fn only_so_many_carriers_are_looked_at() {
    let fixture = Fixture::new();
    let token = fixture.token(json!({}));
    let mut headers = vec![("x-gitspace-token", "nonsense"); 8];
    headers.push(("x-gitspace-token", &token));
    let mut many = request("/", &headers);
    assert!(matches!(
        authenticate(&fixture, &mut many),
        Authentication::Refused(_)
    ));
    assert!(many.headers.is_empty());
}

#[test]
fn the_authority_of_a_target_stays() {
    let fixture = Fixture::new();
    let mut absolute = request("https://api.test:8443/a//b%2f?gitspace_token=x&q=%26", &[]);
    absolute.method = Method::POST;
    authenticate(&fixture, &mut absolute);
    assert_eq!(absolute.uri, "https://api.test:8443/a//b%2f?q=%26");
}

proptest! {
    #[test]
    fn a_request_without_our_names_stays_as_it_is(
        path in "/[!-\"$->@-~]{0,40}",
        query in proptest::option::of("[!$-;=?-Z^-_a-z~&=]{0,60}"),
        cookie in "[!-~][ -~]{0,60}",
        authorization in "[!-~]{1,10} [!-~]{0,60}",
    ) {
        let target = match &query { Some(query) => format!("{path}?{query}"), None => path };
        prop_assume!(!cookie.contains("__Host-gitspace") && !target.contains("gitspace"));
        prop_assume!(target.parse::<http::Uri>().is_ok());
        thread_local!(static FIXTURE: Fixture = Fixture::with("[auth]\ntoken_cookies = [\"a\"]\n"));
        let mut sent = request(&target, &[("cookie", &cookie), ("authorization", &authorization), ("x-a", "1")]);
        let before = sent.clone();
        let found = FIXTURE.with(|fixture| authenticate(fixture, &mut sent));
        prop_assert!(matches!(found, Authentication::Anonymous));
        prop_assert_eq!(sent.uri, before.uri);
        prop_assert_eq!(sent.headers, before.headers);
    }

    #[test]
    fn any_bytes_as_a_token_are_refused_without_a_panic(token in "[!-~]{1,200}") {
        thread_local!(static FIXTURE: Fixture = Fixture::new());
        let mut sent = request("/", &[("x-gitspace-token", &token)]);
        let found = FIXTURE.with(|fixture| authenticate(fixture, &mut sent));
        prop_assert!(matches!(found, Authentication::Refused(_)));
    }
}
