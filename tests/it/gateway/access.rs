//! Who may use which port, and from which pages.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Answer, Client, GITSPACE, HOST, OWNER, Setup, TestGateway, Upstream, port_host,
};

fn host(port: u16) -> String {
    match port {
        0 => HOST.into(),
        port => port_host(port),
    }
}

async fn ask(gateway: &TestGateway, port: u16, token: Option<&str>) -> (u16, String) {
    let headers: Vec<_> = token
        .iter()
        .map(|token| ("x-gitspace-token", *token))
        .collect();
    let answer = gateway
        .plain()
        .await
        .to(&host(port))
        .get("/", &headers)
        .await;
    match answer.status {
        200 => (200, String::new()),
        _ => answer.refusal(),
    }
}

#[tokio::test]
async fn every_port_is_for_those_whom_its_visibility_names() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let issuer = &gateway.setup.issuer;
    let owner = issuer.token(OWNER);
    let stranger = issuer.token("bob");
    let colleague = issuer.token_with("carol", json!({ "org": "acme" }));
    let refused = (403, "not-allowed");
    let closed = (404, "port-closed");
    let unknown = (401, "no-token");
    let ok = (200, "");
    // The IDE (0), private, public, organization, not forwarded.
    for (token, expected) in [
        (Some(&owner), [ok, ok, ok, ok, closed]),
        (Some(&stranger), [refused, refused, ok, refused, closed]),
        (Some(&colleague), [refused, refused, ok, ok, closed]),
        (None, [unknown, unknown, ok, unknown, unknown]),
    ] {
        for (port, (status, reason)) in [0, 3000, 4000, 5000, 6000].into_iter().zip(expected) {
            let found = ask(&gateway, port, token.map(String::as_str)).await;
            assert_eq!(found, (status, reason.to_owned()), "port {port}");
        }
    }
}

#[tokio::test]
async fn who_may_use_no_port_does_not_learn_that_the_gitspace_exists() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::new()
        .route(&format!(
            "gitspace = \"{GITSPACE}\"\nupstream = \"http://{}\"\nowner = \"alice\"\nallow = [\"dave\"]",
            upstream.address
        ))
        .start();
    let issuer = &gateway.setup.issuer;
    let stranger = issuer.token("bob");
    for port in [0, 3000] {
        let found = ask(&gateway, port, Some(&stranger)).await;
        assert_eq!(found, (404, "no-such-gitspace".into()));
    }
    assert_eq!(ask(&gateway, 0, Some(&issuer.token("dave"))).await.0, 200);
}

#[tokio::test]
async fn a_token_for_some_ports_opens_only_those() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway
        .setup
        .issuer
        .token_with(OWNER, json!({ "gitspace": GITSPACE, "ports": [3000] }));
    assert_eq!(ask(&gateway, 3000, Some(&token)).await.0, 200);
    let found = ask(&gateway, 0, Some(&token)).await;
    assert_eq!(found, (403, "not-allowed".into()));
}

#[tokio::test]
async fn whom_its_token_restricts_to_ports_knows_a_gitspace_by_those_alone() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let issuer = &gateway.setup.issuer;
    let with = |claims: Value| issuer.token_with("bob", claims);
    for (claims, expected) in [
        // It has a public port, but not for this token.
        (json!({ "ports": [3000] }), (404, "no-such-gitspace")),
        (
            json!({ "ports": ["ide", 3000, 6000] }),
            (404, "no-such-gitspace"),
        ),
        (json!({ "ports": [5000] }), (404, "no-such-gitspace")),
        (json!({ "ports": [3000, 4000] }), (403, "not-allowed")),
        (
            json!({ "ports": [5000], "org": "acme" }),
            (403, "not-allowed"),
        ),
        (
            json!({ "gitspace": "other-a1b2c3" }),
            (404, "no-such-gitspace"),
        ),
        (json!({ "ports": [] }), (404, "no-such-gitspace")),
    ] {
        let found = ask(&gateway, 0, Some(&with(claims.clone()))).await;
        assert_eq!(found, (expected.0, expected.1.to_owned()), "{claims}");
    }
}

#[tokio::test]
async fn a_claim_grants_access_only_from_an_issuer_that_may_grant() {
    let upstream = Upstream::echo().await;
    for grants in [false, true] {
        let gateway = Setup::to(&upstream)
            .with(|config| config.issuer[0].grants = grants)
            .start();
        let token = gateway
            .setup
            .issuer
            .token_with("guest", json!({ "gitspace": GITSPACE }));
        let expected = if grants { 200 } else { 403 };
        assert_eq!(ask(&gateway, 0, Some(&token)).await.0, expected);
    }
}

#[tokio::test]
async fn a_bad_token_on_a_public_port_is_anonymous() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let expired = gateway
        .setup
        .issuer
        .token_with(OWNER, json!({ "exp": 1_000_000_000 }));
    assert_eq!(ask(&gateway, 4000, Some(&expired)).await.0, 200);
    let seen = upstream.last();
    assert_eq!(seen.header("x-gitspace-user"), None);
    assert_eq!(seen.header("x-gitspace-assertion"), None);
    assert_eq!(seen.header("x-gitspace-id"), Some(GITSPACE));
}

#[tokio::test]
async fn the_state_of_a_gitspace_is_told_to_those_who_may_know() {
    let gateway = Setup::new().start();
    let token = gateway.owner();
    let stranger = gateway.setup.issuer.token("bob");
    for (state, reason) in [
        ("starting", "gitspace-starting"),
        ("stopping", "gitspace-stopped"),
        ("stopped", "gitspace-stopped"),
        ("error", "gitspace-stopped"),
    ] {
        let route =
            json!({ "gitspace": GITSPACE, "owner": OWNER, "state": state, "ide": { "port": 1 } });
        let path = format!("/v1/routes/{GITSPACE}");
        let put = gateway.admin(Method::PUT, &path, Some(route)).await;
        assert_eq!(put.status(), 204);
        assert_eq!(ask(&gateway, 0, Some(&token)).await, (503, reason.into()));
        let found = ask(&gateway, 0, Some(&stranger)).await;
        assert_eq!(found, (404, "no-such-gitspace".into()));
        let mut client = gateway.plain().await;
        let status = client
            .get("/_gitspace/status", &[("x-gitspace-token", &token)])
            .await;
        let told: Value = serde_json::from_slice(&status.body).unwrap();
        assert_eq!(told, json!({ "gitspace": GITSPACE, "state": state }));
    }
}

/// A session for a port, by its ticket.
pub(super) async fn session(gateway: &TestGateway, port: u16) -> String {
    let claim = match port {
        0 => json!("ide"),
        port => json!(port),
    };
    let ticket = gateway
        .setup
        .issuer
        .ticket(OWNER, &format!("for {port}"), claim);
    let target = format!("/?gitspace_token={ticket}");
    let answer = gateway
        .plain()
        .await
        .to(&host(port))
        .get(&target, &[("sec-fetch-mode", "navigate")])
        .await;
    assert_eq!(answer.status, 303, "{answer:?}");
    answer.session().unwrap()
}

async fn with_origin(
    client: &mut Client,
    method: &str,
    cookie: &str,
    origin: Option<&str>,
) -> Answer {
    let mut headers = vec![("cookie", cookie)];
    headers.extend(origin.map(|origin| ("origin", origin)));
    if method == "WEBSOCKET" {
        headers.extend([("connection", "Upgrade"), ("upgrade", "websocket")]);
        return client.request("GET", "/", &headers, b"").await;
    }
    client.request(method, "/", &headers, b"").await
}

#[tokio::test]
async fn only_pages_of_the_gitspace_may_act_with_its_cookie() {
    let upstream = Upstream::echo().await;
    let address = upstream.address;
    let gateway = Setup::new()
        .route(&format!(
            "gitspace = \"{GITSPACE}\"\nupstream = \"http://{address}\"\nowner = \"{OWNER}\"\n\
             [ports.3000]\nupstream = \"http://{address}\"\ncors = [\"https://partner.test\"]"
        ))
        .start();
    let of_ide = session(&gateway, 0).await;
    let of_port = session(&gateway, 3000).await;
    let own = format!("https://{HOST}");
    let own_port = format!("https://{HOST}:8443");
    let other_port = format!("https://{}", port_host(8080));
    let sibling = "https://evil-x9y8z7.gitspaces.localhost";
    let suffix = format!("https://{HOST}.evil.test");
    let user = format!("https://{HOST}:x@evil.test");
    for (port, origin, allowed) in [
        (0, None, false),
        (0, Some("null"), false),
        (0, Some(sibling), false),
        (0, Some("https://gitspaces.localhost"), false),
        (0, Some(&*suffix), false),
        (0, Some(&*user), false),
        (0, Some("https://partner.test"), false),
        (0, Some(&*own), true),
        (0, Some(&*own_port), true),
        (0, Some(&*other_port), true),
        (3000, Some(&*own), true),
        (3000, Some("https://partner.test"), true),
        (3000, Some("https://partner.test.evil"), false),
        (3000, Some(sibling), false),
    ] {
        let cookie = if port == 0 { &of_ide } else { &of_port };
        for method in ["POST", "PUT", "DELETE", "WEBSOCKET"] {
            let mut client = gateway.plain().await.to(&host(port));
            let answer = with_origin(&mut client, method, cookie, origin).await;
            // The upstream declines WebSockets with an answer.
            let found = if answer.status == 200 {
                (200, String::new())
            } else {
                answer.refusal()
            };
            let expected = if allowed {
                (200, String::new())
            } else {
                (403, "origin-refused".into())
            };
            assert_eq!(found, expected, "{method} {origin:?} to port {port}");
        }
        let mut client = gateway.plain().await.to(&host(port));
        let answer = with_origin(&mut client, "GET", cookie, origin).await;
        assert_eq!(answer.status, 200, "reading is the browser's to guard");
    }
}

#[tokio::test]
async fn a_token_in_a_header_needs_no_origin() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    let headers = [
        ("x-gitspace-token", &*token),
        ("origin", "https://evil.test"),
    ];
    let answer = gateway
        .plain()
        .await
        .request("POST", "/", &headers, b"x")
        .await;
    assert_eq!(answer.status, 200);
}
