//! One line per request, whatever happened, and metrics that agree; no secret in any of it.

use reqwest::Method;
use serde_json::Value;

use crate::support::{H2, HOST, OWNER, Setup, Upstream, eventually, port_host};

#[tokio::test]
async fn every_request_has_exactly_one_line_and_the_metrics_agree() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    let ours = [("x-gitspace-token", &*token)];
    let mut client = gateway.plain().await;
    client.get("/a?secret=1", &ours).await;
    client.request("POST", "/b", &ours, b"abc").await;
    client.request("HEAD", "/c", &ours, b"").await;
    client.get("/d", &[]).await;
    client.get("/_gitspace/whoami", &ours).await;
    client.get("/_gitspace/nothing", &ours).await;
    client.get("/e", &[("host", "elsewhere.test")]).await;
    let ticket = gateway.setup.issuer.ticket(OWNER, "1", "ide");
    let target = format!("/f?gitspace_token={ticket}");
    let navigation = [("sec-fetch-mode", "navigate")];
    client.get(&target, &navigation).await;
    client.get(&target, &navigation).await;
    client.get("/g", &[("host", "a"), ("host", "b")]).await;
    let mut h2 = H2::connect(&gateway, HOST).await;
    for n in 0..5 {
        h2.request("GET", &format!("https://{HOST}/h{n}"), &ours, b"")
            .await;
    }
    let lines = gateway.accounted(15).await;
    let of = |path: &str| {
        let mut found = lines.iter().filter(|line| line["path"] == path);
        let line = found.next().unwrap();
        (
            line["status"].as_u64().unwrap(),
            line["reason"].as_str().unwrap(),
        )
    };
    for (path, expected) in [
        ("/a", (200, "done")),
        ("/b", (200, "done")),
        ("/c", (200, "done")),
        ("/d", (401, "no-token")),
        ("/_gitspace/whoami", (200, "done")),
        ("/_gitspace/nothing", (404, "no-such-page")),
        ("/e", (401, "no-token")),
        ("/f", (303, "done")),
        ("/g", (400, "bad-request")),
        ("/h4", (200, "done")),
    ] {
        assert_eq!(of(path), expected, "{path}");
    }
    let b = lines.iter().find(|line| line["path"] == "/b").unwrap();
    assert_eq!((&b["received"], &b["sent"]), (&3.into(), &3.into()));
    assert_eq!(b["principal"], OWNER);
    assert_eq!(
        (&b["gitspace"], &b["port"]),
        (&"app-a1b2c3".into(), &"ide".into())
    );
    assert_eq!(
        (&b["client"], &b["protocol"]),
        (&"127.0.0.1".into(), &"http/1.1".into())
    );
    assert_eq!((&b["method"], &b["host"]), (&"POST".into(), &HOST.into()));
    assert!(b["first_byte_ms"].as_f64() <= b["total_ms"].as_f64());
    let ids: std::collections::HashSet<_> = lines.iter().map(|line| line["id"].as_str()).collect();
    assert_eq!(ids.len(), lines.len(), "identifiers are unlike each other");

    for (reason, count) in count(&lines) {
        let label = format!("reason=\"{reason}\"");
        let counted = gateway
            .metric("cde_gateway_requests_total", &[&label])
            .await;
        assert_eq!(counted, count, "{reason}");
    }
    assert_eq!(
        gateway.metric("cde_gateway_requests_total", &[]).await,
        15.0
    );
    assert_eq!(gateway.metric("cde_gateway_connections", &[]).await, 2.0);
    drop((client, h2));
    eventually("the connections end", || async {
        let left = gateway.metric("cde_gateway_connections", &[]).await;
        (left == 0.0).then_some(())
    })
    .await;
}

fn count(lines: &[Value]) -> std::collections::BTreeMap<&str, f64> {
    let mut counts = std::collections::BTreeMap::new();
    for line in lines {
        *counts.entry(line["reason"].as_str().unwrap()).or_default() += 1.0;
    }
    counts
}

#[tokio::test]
async fn a_client_that_goes_before_the_answer_has_its_line_too() {
    let (arrived, mut arrivals) = tokio::sync::mpsc::channel(1);
    let upstream = Upstream::scripted(move |mut stream, _| {
        let arrived = arrived.clone();
        async move {
            use tokio::io::AsyncReadExt;
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            arrived.send(()).await.unwrap();
            // The gateway closes when nobody waits any more.
            while stream.read(&mut head).await.is_ok_and(|read| read > 0) {}
            arrived.send(()).await.unwrap();
        }
    })
    .await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    let mut client = gateway.plain().await;
    client
        .begin("GET", "/", &[("x-gitspace-token", &token)], b"")
        .await;
    crate::support::soon("the request", arrivals.recv()).await;
    drop(client);
    let line = gateway.account().await;
    assert_eq!(
        (&line["reason"], &line["status"]),
        (&"client-gone".into(), &0.into())
    );
    assert_eq!(line["step"], "forward");
    crate::support::soon("the end of the work", arrivals.recv()).await;
}

#[tokio::test]
async fn no_token_ticket_session_or_query_is_in_any_line() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    let bad = crate::support::Issuer::new("https://stranger.test").token(OWNER);
    let ticket = gateway.setup.issuer.ticket(OWNER, "1", "ide");
    let mut client = gateway.plain().await;
    let exchanged = client
        .get(
            &format!("/t?gitspace_token={ticket}"),
            &[("sec-fetch-mode", "navigate")],
        )
        .await;
    let session = exchanged.session().unwrap();
    for secret in [&token, &bad] {
        client
            .get(&format!("/q?token={secret}&app=hidden-value"), &[])
            .await;
        client.get("/h", &[("x-gitspace-token", secret)]).await;
        client
            .get("/b", &[("authorization", &format!("Bearer {secret}"))])
            .await;
    }
    let jar = format!("app=hidden-cookie; {session}");
    client.get("/s", &[("cookie", &jar)]).await;
    client
        .get("/s", &[("cookie", &jar), ("host", &port_host(3000))])
        .await;
    client
        .request("GET", "/s", &[("cookie", &format!("{session}x"))], b"")
        .await;
    gateway.accounted(10).await;
    let log = gateway.log();
    let (_, session) = session.split_once('=').unwrap();
    for secret in [&*token, &bad, &ticket, session] {
        // Neither the whole nor its signature.
        let signature = secret.rsplit('.').next().unwrap();
        assert!(!log.contains(secret) && !log.contains(signature));
    }
    assert!(!log.contains("hidden"), "{log}");
}

#[tokio::test]
async fn a_gateway_without_an_access_log_still_counts() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.access_log.path = String::new())
        .start();
    gateway.plain().await.get("/", &[]).await;
    assert_eq!(
        gateway.metric("cde_gateway_requests_total", &["4xx"]).await,
        1.0
    );
    let scrape = gateway.admin(Method::GET, "/metrics", None).await;
    let media_type = scrape.headers()["content-type"].to_str().unwrap();
    assert!(media_type.starts_with("application/openmetrics-text"));
}

#[tokio::test]
async fn answers_of_our_own_count_as_sent() {
    let gateway = crate::support::Setup::new().start();
    let mut client = gateway.plain().await;
    let refusal = client.get("/", &[]).await;
    let head = client.request("HEAD", "/", &[], b"").await;
    let keys = client.get("/_gitspace/jwks.json", &[]).await;
    assert_eq!((refusal.status, head.status, keys.status), (401, 401, 200));
    let lines = gateway.accounted(3).await;
    let sent: Vec<_> = lines.iter().map(|line| line["sent"].as_u64()).collect();
    let expected = [refusal.body.len(), 0, keys.body.len()].map(|length| Some(length as u64));
    assert!(sent == expected && !refusal.body.is_empty(), "{sent:?}");
}
