//! Cookies that somebody else put into the browser: sessions of other hosts, look-alikes, several at once.

use cde_gateway::gateway::auth::{Authentication, LastToken};
use serde_json::json;

use crate::auth::support::{AtOnce, Fixture, HOST, request, seconds};

const ELSEWHERE: &str = "web-x1y2z3.gitspaces.localhost";

fn session(fixture: &Fixture, user: &str, host: &str) -> String {
    let exp = seconds(fixture.now) + 60;
    let ticket = fixture.token(json!({ "sub": user, "use": "ticket", "jti": user, "exp": exp, "gitspace": "api-k3x9q2", "ports": ["ide"] }));
    let mut navigation = request(&format!("/?gitspace_token={ticket}"), &[]);
    let found = fixture
        .auth
        .authenticate(&mut navigation, host, true, fixture.now, &fixture.last);
    let Authentication::Ticket(ticket) = found.at_once() else {
        panic!("no ticket")
    };
    let cookie = fixture.auth.session(&ticket, host, fixture.now);
    let pair = cookie
        .to_str()
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    pair.split_once('=').unwrap().1.into()
}

/// Whose session counts, and which cookies are left to the app.
fn open(fixture: &Fixture, cookies: &[&str]) -> (Option<String>, Option<String>) {
    let fields: Vec<(&str, &str)> = cookies.iter().map(|field| ("cookie", *field)).collect();
    let mut request = request("/", &fields);
    let found = fixture
        .auth
        .authenticate(
            &mut request,
            HOST,
            false,
            fixture.now,
            &LastToken::default(),
        )
        .at_once();
    let name = match found {
        Authentication::Principal {
            principal,
            by_cookie: true,
            ..
        } => Some(principal.name.to_string()),
        Authentication::Anonymous | Authentication::Refused(_) => None,
        other => panic!("{other:?}"),
    };
    (
        name,
        request
            .headers
            .get("cookie")
            .map(|left| left.to_str().unwrap().to_owned()),
    )
}

#[test]
fn a_cookie_that_was_tossed_does_not_displace_the_session() {
    let fixture = Fixture::new();
    let (alice, mallory) = (
        session(&fixture, "alice", HOST),
        session(&fixture, "mallory", ELSEWHERE),
    );
    let own = format!("__Host-gitspace={alice}");
    for tossed in [
        format!("__Host-gitspace={mallory}"),
        "__Host-gitspace=".into(),
        "__Host-gitspace".into(),
        "__Host-gitspace=1.x.y.z".into(),
        format!("__Host-gitspace={alice}x"),
        format!("__Host-gitspace=\"{alice}\""),
        format!(
            "__Host-gitspace={}",
            fixture.token(json!({ "sub": "mallory" }))
        ),
    ] {
        for order in [
            vec![format!("{tossed}; {own}; a=1")],
            vec![format!("a=1; {own}; {tossed}")],
            vec![tossed.clone(), own.clone(), "a=1".into()],
        ] {
            let fields: Vec<&str> = order.iter().map(String::as_str).collect();
            assert_eq!(
                open(&fixture, &fields),
                (Some("alice".into()), Some("a=1".into())),
                "{order:?}"
            );
        }
        // Alone it opens nothing, and no app sees it.
        assert_eq!(
            open(&fixture, &[&format!("{tossed}; a=1")]),
            (None, Some("a=1".into())),
            "{tossed}"
        );
    }
    // Two that are good for this host: a browser keeps only one of a name. The first counts.
    let second = format!("__Host-gitspace={}", session(&fixture, "bob", HOST));
    assert_eq!(
        open(&fixture, &[&format!("{own}; {second}")]).0.as_deref(),
        Some("alice")
    );
    assert_eq!(
        open(&fixture, &[&format!("{second}; {own}")]).0.as_deref(),
        Some("bob")
    );
}

#[test]
fn what_only_looks_like_our_cookie_is_the_apps() {
    let fixture = Fixture::new();
    let good = session(&fixture, "alice", HOST);
    for name in [
        "__host-gitspace",
        "__HOST-gitspace",
        "__Host-Gitspace",
        "__Host-gitspace%00",
        "__Host-gitspace%20",
        "%5F%5FHost-gitspace",
        "__Host_gitspace",
        "__Host-gitspace_",
        "__Host-gitspace.",
        "__Host-gitspace[]",
        "__Host-gitspace-",
        "__Secure-gitspace",
        "__Http-gitspace",
        "__Host-Http-gitspace",
        "gitspace",
        "Host-gitspace",
        "\"__Host-gitspace\"",
        "$__Host-gitspace",
        "x__Host-gitspace",
        "x=__Host-gitspace",
        "=__Host-gitspace",
        ",__Host-gitspace",
    ] {
        let field = format!("{name}={good}");
        assert_eq!(
            open(&fixture, &[&field]),
            (None, Some(field.clone())),
            "{name}"
        );
        let beside = format!("a=1, __Host-gitspace={good}");
        assert_eq!(open(&fixture, &[&beside]), (None, Some(beside.clone())));
    }
    // White space around a name is no part of it, to browsers and to apps (RFC 6265 §5.2).
    for name in [
        "__Host-gitspace ",
        " __Host-gitspace",
        "\t__Host-gitspace\t",
    ] {
        assert_eq!(
            open(&fixture, &[&format!("a=1;{name}={good}")]),
            (Some("alice".into()), Some("a=1".into())),
            "{name:?}"
        );
    }
}

#[test]
fn so_many_cookies_that_the_session_is_not_looked_at_log_nobody_in_as_another() {
    let fixture = Fixture::new();
    let own = format!("__Host-gitspace={}", session(&fixture, "alice", HOST));
    let junk = "__Host-gitspace=x; ".repeat(8);
    assert_eq!(
        open(&fixture, &[&format!("{junk}{own}; a=1")]),
        (None, Some("a=1".into()))
    );
    assert_eq!(
        open(&fixture, &[&format!("{own}; {junk}a=1")]),
        (Some("alice".into()), Some("a=1".into()))
    );
}
