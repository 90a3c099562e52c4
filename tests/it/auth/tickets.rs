//! Tickets: where they count, that they count once, and where the browser goes then.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    thread,
};

use cde_gateway::{
    api::Secret,
    gateway::auth::{Authentication, Authenticator, Link, Ticket, TokenError},
};
use http::Method;
use serde_json::{Value, json};

use super::support::{AtOnce, Fixture, HOST, ISSUER, gateway, issuer, request, result, seconds};

fn ticket(fixture: &Fixture, jti: &str) -> Ticket {
    let mut navigation = request(&format!("/?gitspace_token={}", fixture.ticket(jti)), &[]);
    match fixture
        .auth
        .authenticate(&mut navigation, HOST, true, fixture.now, &fixture.last)
        .at_once()
    {
        Authentication::Ticket(ticket) => ticket,
        other => panic!("no ticket: {other:?}"),
    }
}

#[test]
fn a_ticket_counts_only_in_the_url_of_a_navigation() {
    let fixture = Fixture::new();
    let token = fixture.ticket("t");
    let target = format!("/?token={token}");
    let attempt = |target: &str, method, navigation, header: &str| {
        let mut request = request(target, &[("x-gitspace-token", header)]);
        request.method = method;
        fixture
            .auth
            .authenticate(&mut request, HOST, navigation, fixture.now, &fixture.last)
            .at_once()
    };
    assert!(matches!(
        attempt(&target, Method::GET, true, ""),
        Authentication::Ticket(_)
    ));
    for found in [
        attempt(&target, Method::GET, false, ""),
        attempt(&target, Method::POST, true, ""),
        attempt("/", Method::GET, true, &token),
    ] {
        assert_eq!(result(found), Err(TokenError::TicketMisplaced));
    }
}

#[test]
fn a_ticket_beats_a_session_and_remembers_it() {
    let fixture = Fixture::new();
    let bob = fixture.token(json!({ "sub": "bob" }));
    let target = format!("/?gitspace_token={}", fixture.ticket("t"));
    let mut navigation = request(&target, &[("x-gitspace-token", &bob)]);
    let Authentication::Ticket(ticket) = fixture
        .auth
        .authenticate(&mut navigation, HOST, true, fixture.now, &fixture.last)
        .at_once()
    else {
        panic!("no ticket");
    };
    assert_eq!(&*ticket.principal.name, "alice");
    let (otherwise, by_cookie) = ticket.otherwise.unwrap();
    assert_eq!((&*otherwise.name, by_cookie), ("bob", false));
}

#[test]
fn an_access_token_in_a_url_stays_access_for_that_request() {
    let fixture = Fixture::new();
    let mut navigation = request(
        &format!("/?gitspace_token={}", fixture.token(json!({}))),
        &[],
    );
    let found = fixture
        .auth
        .authenticate(&mut navigation, HOST, true, fixture.now, &fixture.last)
        .at_once();
    assert!(matches!(
        found,
        Authentication::Principal {
            by_cookie: false,
            ..
        }
    ));
}

#[test]
fn a_ticket_is_for_one_port_of_one_gitspace_and_short() {
    let fixture = Fixture::new();
    let now = seconds(fixture.now);
    let good = json!({ "use": "ticket", "jti": "t", "exp": now + 60, "gitspace": "api-k3x9q2", "ports": [3000] });
    for (claim, value) in [
        ("jti", Value::Null),
        ("jti", json!("")),
        ("jti", json!("x".repeat(257))),
        ("iat", Value::Null),
        ("iat", json!(now + 31)),
        ("gitspace", Value::Null),
        ("gitspace", json!(["api-k3x9q2", "web-000000"])),
        ("ports", Value::Null),
        ("ports", json!(["ide", 3000])),
        ("exp", json!(now + 61)),
    ] {
        let mut bad = good.clone();
        bad[claim] = value;
        let mut navigation = request(&format!("/?gitspace_token={}", fixture.token(bad)), &[]);
        let found = result(
            fixture
                .auth
                .authenticate(&mut navigation, HOST, true, fixture.now, &fixture.last)
                .at_once(),
        );
        assert!(
            matches!(found, Err(TokenError::Ticket(_) | TokenError::Missing(_))),
            "{claim}: {found:?}"
        );
    }
}

#[test]
fn the_redirect_stays_on_this_host() {
    let fixture = Fixture::new();
    let token = fixture.ticket("t");
    for (target, location) in [
        (format!("/?gitspace_token={token}"), "/"),
        (
            format!("/a/b?x=1&gitspace_token={token}&y=%2F"),
            "/a/b?x=1&y=%2F",
        ),
        (
            format!("//evil.test/?gitspace_token={token}"),
            "/evil.test/",
        ),
        (
            format!("/\\evil.test/?gitspace_token={token}"),
            "/evil.test/",
        ),
        (
            format!("/\\//evil.test/?gitspace_token={token}"),
            "/evil.test/",
        ),
        (
            format!("https://{HOST}//evil.test?gitspace_token={token}"),
            "/evil.test",
        ),
    ] {
        let mut navigation = request(&target, &[]);
        match fixture
            .auth
            .authenticate(&mut navigation, HOST, true, fixture.now, &fixture.last)
            .at_once()
        {
            Authentication::Ticket(ticket) => assert_eq!(ticket.location, location),
            other => panic!("{target}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_ticket_counts_once_over_a_restart_too() {
    let fixture = Fixture::new();
    let (first, second) = (ticket(&fixture, "t1"), ticket(&fixture, "t2"));
    assert_eq!(fixture.auth.redeem(&first, None, fixture.now).await, Ok(()));
    assert_eq!(
        fixture.auth.redeem(&first, None, fixture.now).await,
        Err(TokenError::TicketUsed)
    );
    let file = fixture.dir.path().join("issuer.pem");
    let config = gateway(&issuer(ISSUER, "", "ES256", file.to_str().unwrap()));
    let again = Authenticator::new(&config, fixture.dir.path()).unwrap();
    assert_eq!(
        again.redeem(&first, None, fixture.now).await,
        Err(TokenError::TicketUsed)
    );
    assert_eq!(again.redeem(&second, None, fixture.now).await, Ok(()));
}

#[tokio::test]
async fn of_many_at_once_one_wins() {
    let fixture = Fixture::new();
    let ticket = ticket(&fixture, "t");
    let attempts = (0..20).map(|_| fixture.auth.redeem(&ticket, None, fixture.now));
    let won = futures_util::future::join_all(attempts)
        .await
        .into_iter()
        .filter(Result::is_ok)
        .count();
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_record_that_cannot_be_written_counts_as_none() {
    let fixture = Fixture::new();
    let ticket = ticket(&fixture, "t");
    std::fs::remove_dir_all(fixture.dir.path()).unwrap();
    assert_eq!(
        fixture.auth.redeem(&ticket, None, fixture.now).await,
        Err(TokenError::Unrecorded)
    );
}

/// A control plane that answers one request with this status; gives what it was asked.
fn control_plane(status: &'static str) -> (Link, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let asked = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            reader.read_line(&mut head).unwrap();
        }
        let length = head
            .to_lowercase()
            .split("content-length: ")
            .nth(1)
            .unwrap()
            .split('\r')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        reader.get_mut().write_all(answer.as_bytes()).unwrap();
        head + &String::from_utf8(body).unwrap()
    });
    (
        Link::new(
            reqwest::Client::new(),
            &url,
            Secret::new(crate::support::secret("gateway-token-of-tickets")),
        ),
        asked,
    )
}

#[tokio::test]
async fn with_a_control_plane_that_one_decides() {
    let fixture = Fixture::new();
    for (status, expected) in [
        ("200 OK", Ok(())),
        ("409 Conflict", Err(TokenError::TicketUsed)),
        ("503 Service Unavailable", Ok(())),
    ] {
        let ticket = ticket(&fixture, status);
        let (link, asked) = control_plane(status);
        assert_eq!(
            fixture.auth.redeem(&ticket, Some(&link), fixture.now).await,
            expected,
            "{status}"
        );
        let asked = asked.join().unwrap();
        assert!(
            asked.starts_with("POST /v1/feed/redeem HTTP/1.1\r\n")
                && asked.contains("Bearer gateway-token"),
            "{asked}"
        );
        // Whatever it said: nothing counts twice here, and nobody is asked about it again.
        let again = fixture.auth.redeem(&ticket, Some(&link), fixture.now).await;
        assert_eq!(again, Err(TokenError::TicketUsed));
    }
}

#[tokio::test]
async fn without_the_control_plane_a_ticket_still_counts_once() {
    let fixture = Fixture::new();
    let ticket = ticket(&fixture, "t");
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let link = Link::new(
        reqwest::Client::new(),
        &format!("http://{nobody}"),
        Secret::new("t"),
    );
    assert_eq!(
        fixture.auth.redeem(&ticket, Some(&link), fixture.now).await,
        Ok(())
    );
    assert_eq!(
        fixture.auth.redeem(&ticket, Some(&link), fixture.now).await,
        Err(TokenError::TicketUsed)
    );
}
