//! The fuzz target of our redirects: whatever a client writes into target and Host, a browser that follows one stays on that host, or
//! goes to the configured login and is sent back from there to that host.

use http::{HeaderValue, Method, Request, Uri, header::COOKIE};
use reqwest::Url;

use super::{Destination, Head, at_login, comes_back, over_https, redirect, wanted};
use crate::gateway::{
    auth::{
        Authentication, LastToken,
        fuzzing::{DOMAIN, FIXTURE},
    },
    fuzzing::lines,
    http::{Transport, parse},
};

const LOGINS: [&str; 2] = ["https://login.test/start", "https://login.test/?x=1#"];

/// `Host`, then a request target.
pub fn return_to(data: &[u8]) {
    let mut lines = lines(data);
    let (host, target) = (lines.next().unwrap_or_default(), lines.next());
    let Ok(uri) = Uri::try_from(target.unwrap_or(b"/")) else {
        return;
    };
    let request = Request::builder().uri(uri.clone()).header("host", host);
    let Ok(request) = request.body(()) else {
        return;
    };
    let (parts, ()) = request.into_parts();
    let Ok(head) = parse(&parts, &[DOMAIN.into()], Transport::Tls) else {
        return;
    };
    // No other host is redirected anywhere.
    if matches!(head.destination, Destination::Host) && *head.host != *DOMAIN {
        return;
    }
    for port in [443, 8443] {
        let location = over_https(&head, port, &uri);
        let location = followed(&head, &location);
        assert!(location.port_or_known_default() == Some(port) && location.scheme() == "https");
    }
    for login in LOGINS {
        to_the_login(login, &head, &uri);
    }
    there_and_back(&head, &uri);
    with_a_ticket(&head, target.unwrap_or(b"/"));
}

/// Where a browser goes that asked this host and is sent to `location`.
fn followed(head: &Head, location: &str) -> Url {
    let value = redirect(http::StatusCode::SEE_OTHER, location).expect("a field");
    let value = value.headers()["location"]
        .to_str()
        .expect("ASCII")
        .to_owned();
    let asked = Url::parse(&format!("https://{}/a/b?c", head.host)).expect("a host");
    let url = asked.join(&value).expect("a URL");
    assert_eq!(
        url.host_str(),
        asked.host_str(),
        "{location:?} leads elsewhere"
    );
    assert!(url.username().is_empty() && url.password().is_none());
    url
}

/// The login is the configured one, and is told one way back, to this host, and one state.
fn to_the_login(login: &str, head: &Head, uri: &Uri) {
    let login = login.trim_end_matches('#');
    let location = at_login(login, head, &wanted(uri), "the-state");
    let url = Url::parse(&location).expect("a URL");
    let configured = Url::parse(login).expect("a URL");
    assert_eq!(
        (url.origin(), url.path()),
        (configured.origin(), configured.path())
    );
    assert!(url.fragment().is_none() && url.username().is_empty());
    let all = |name: &str| -> Vec<String> {
        let pairs = url.query_pairs().filter(|(found, _)| found == name);
        pairs.map(|(_, value)| value.into_owned()).collect()
    };
    assert_eq!(all("state"), ["the-state"]);
    let [back] = &all("return_to")[..] else {
        panic!("one way back: {location}");
    };
    assert!(back.starts_with("https://"));
    let back = followed(head, back);
    assert_eq!(back.port(), head.authority_port.filter(|port| *port != 443));
}

/// Back from the login the browser goes to a page of this host, and nobody else's login leads anywhere.
fn there_and_back(head: &Head, uri: &Uri) {
    let begin = FIXTURE
        .auth
        .begin_login(&head.host, &wanted(uri), FIXTURE.now);
    let begun = begin.expect("randomness");
    let cookie = begun.cookie.as_bytes().split(|byte| *byte == b';').next();
    let cookie = HeaderValue::from_bytes(cookie.unwrap_or_default()).expect("a field");
    let target = format!("/_gitspace/login?state={}", begun.state);
    let back = |host: &str, target: &str| {
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = Method::GET;
        parts.uri = FIXTURE.with_ticket(target, "ticket").expect("a target");
        parts.headers.insert(COOKIE, cookie.clone());
        assert!(comes_back(&parts));
        FIXTURE.auth.back_from_login(&parts, host, FIXTURE.now)
    };
    let ticket = back(&head.host, &target).expect("its own login");
    followed(head, &ticket.location);
    assert!(back("elsewhere.gitspaces.localhost", &target).is_err());
    assert!(back(&head.host, &target.replace("state=", "state=x")).is_err());
}

/// The exchange of a ticket leads to a page of this host, without the ticket.
fn with_a_ticket(head: &Head, target: &[u8]) {
    let Some(uri) = std::str::from_utf8(target)
        .ok()
        .filter(|target| !target.contains('#'))
        .and_then(|target| FIXTURE.with_ticket(target, "gitspace_token"))
    else {
        return;
    };
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.uri = uri;
    let last = LastToken::default();
    let step = FIXTURE
        .auth
        .authenticate(&mut parts, &head.host, true, FIXTURE.now, &last);
    let found = futures_util::FutureExt::now_or_never(step);
    // A target may hold so many others that the ticket is not looked at.
    let Some(Authentication::Ticket(ticket)) = found else {
        return;
    };
    let location = followed(head, &ticket.location);
    let goes_on = FIXTURE.holds_ticket(location.as_str());
    assert!(!goes_on, "the ticket goes on");
}
