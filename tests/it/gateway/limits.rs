//! Limits per network and principal, and on heads.

use std::num::NonZeroU32;

use crate::support::{Answer, HOST, Setup, TestGateway, Upstream, eventually};

fn rate(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

async fn get(gateway: &TestGateway, token: &str) -> Answer {
    gateway
        .plain()
        .await
        .get("/", &[("x-gitspace-token", token)])
        .await
}

/// The first answer that a limit gives; on a slow machine some requests pass in between.
async fn limited(gateway: &TestGateway, token: &str) -> Answer {
    for _ in 0..100 {
        let answer = get(gateway, token).await;
        if answer.status == 429 {
            return answer;
        }
    }
    panic!("no limit");
}

#[tokio::test]
async fn a_principal_that_asks_too_often_is_told_when_to_come_again() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| {
            config.limits.requests_per_principal = rate(1);
            config.limits.burst_per_principal = Some(rate(2));
        })
        .start();
    let token = gateway.owner();
    assert_eq!(get(&gateway, &token).await.status, 200);
    assert_eq!(get(&gateway, &token).await.status, 200);
    let answer = limited(&gateway, &token).await;
    assert_eq!(answer.refusal(), (429, "rate-limited".into()));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(answer.header("ratelimit"), Some("\"requests\";r=0;t=1"));
    assert_eq!(
        answer.header("ratelimit-policy"),
        Some("\"requests\";q=1;w=1")
    );
    // Others are not concerned, and another token of the same principal is.
    let colleague = gateway
        .setup
        .issuer
        .token_with("carol", serde_json::json!({ "org": "acme" }));
    let answer = gateway
        .plain()
        .await
        .to(&crate::support::port_host(5000))
        .get("/", &[("x-gitspace-token", &colleague)])
        .await;
    assert_eq!(answer.status, 200);
    let again = gateway
        .setup
        .issuer
        .token_with("alice", serde_json::json!({ "jti": "2" }));
    limited(&gateway, &again).await;
    let is_limited =
        |line: &serde_json::Value| line["reason"] == "rate-limited" && line["step"] == "limit";
    eventually("the account", || async {
        gateway.lines().iter().any(is_limited).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_network_that_tries_bad_tokens_is_stopped_and_good_ones_still_pass() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.limits.failed_logins_per_network = rate(3))
        .start();
    let mut refused = 0;
    let answer = loop {
        let answer = get(&gateway, "a.b.c").await;
        if answer.status == 429 {
            break answer;
        }
        assert_eq!(answer.status, 401);
        refused += 1;
        assert!(refused < 10);
    };
    assert_eq!(answer.reason(), "rate-limited");
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert!((3..=4).contains(&refused), "{refused}");
    let ticket = gateway.setup.issuer.ticket("alice", "1", "ide");
    let answer = gateway
        .plain()
        .await
        .get(
            &format!("/?gitspace_token={ticket}"),
            &[("sec-fetch-mode", "navigate")],
        )
        .await;
    assert_eq!(answer.status, 429, "tickets wait as well");
    assert_eq!(get(&gateway, &gateway.owner()).await.status, 200);
}

#[tokio::test]
async fn connections_of_a_network_are_counted_until_they_close() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.limits.connections_per_network = 2)
        .start();
    let token = gateway.owner();
    let headers = [("x-gitspace-token", &*token)];
    let mut first = gateway.plain().await;
    let mut second = gateway.plain().await;
    assert_eq!(first.get("/", &headers).await.status, 200);
    assert_eq!(second.get("/", &headers).await.status, 200);
    let mut third = gateway.plain().await;
    assert!(third.closed().await.is_empty(), "closed without a word");
    assert_eq!(first.get("/", &headers).await.status, 200);
    drop(second);
    eventually("a place is free", || async {
        let mut client = gateway.plain().await;
        client.begin("GET", "/", &headers, b"").await;
        client.answer().await.ok()
    })
    .await;
    assert!(
        gateway
            .metric("cde_gateway_refused_connections_total", &[])
            .await
            >= 1.0
    );
}

#[tokio::test]
async fn an_upgraded_connection_still_counts() {
    let upstream = Upstream::scripted(|stream, _| async {
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        use futures_util::StreamExt;
        while let Some(Ok(_)) = socket.next().await {}
    })
    .await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.limits.connections_per_network = 1)
        .start();
    let token = gateway.owner();
    let mut first = gateway.plain().await;
    let headers = [
        ("x-gitspace-token", &*token),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ];
    first.begin("GET", "/", &headers, b"").await;
    assert_eq!(first.head().await.unwrap().status, 101);
    for _ in 0..3 {
        let mut other = gateway.plain().await;
        assert!(other.closed().await.is_empty(), "closed without a word");
    }
}

#[tokio::test]
async fn new_connections_of_a_network_have_a_rate() {
    let gateway = Setup::new()
        .with(|config| config.limits.new_connections_per_network = rate(1))
        .start();
    let mut refused = 0;
    for _ in 0..10 {
        let mut client = gateway.plain().await;
        client.begin("GET", "/", &[], b"").await;
        refused += usize::from(client.answer().await.is_err());
    }
    assert!(refused >= 1);
}

#[tokio::test]
async fn heads_have_a_size_and_a_number_of_fields() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| {
            config.limits.head_bytes = 8192;
            config.limits.head_fields = 20;
        })
        .start();
    let token = gateway.owner();
    let large = "x".repeat(10_000);
    let mut client = gateway.plain().await;
    let headers = [("x-gitspace-token", &*token), ("x-large", &large)];
    client.begin("GET", "/", &headers, b"").await;
    assert_eq!(client.answer().await.unwrap().status, 431);
    let mut many = vec![("x-gitspace-token", &*token)];
    many.extend([("x-field", "1"); 30]);
    let answer = gateway.plain().await.get("/", &many).await;
    assert_eq!(answer.status, 431);
    let few = [("x-gitspace-token", &*token), ("x-field", "1")];
    assert_eq!(gateway.plain().await.get("/", &few).await.status, 200);

    let url = format!("https://{HOST}/");
    let mut h2 = crate::support::H2::connect(&gateway, HOST).await;
    let answer = h2.request("GET", &url, &headers, b"").await;
    assert_eq!(answer.status(), 431);
    assert_eq!(upstream.seen().len(), 1);
}
