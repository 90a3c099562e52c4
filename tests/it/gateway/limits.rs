//! Limits per network and principal, and on heads.

use std::num::NonZeroU32;

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::websocket;
use crate::support::{Answer, HOST, Setup, TestGateway, Upstream, eventually, port_host, soon};

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
    assert_eq!(answer.header("ratelimit"), Some("\"principal\";r=0;t=1"));
    assert_eq!(
        answer.header("ratelimit-policy"),
        Some("\"principal\";q=1;w=1")
    );
    // Others are not concerned, and another token of the same principal is.
    let colleague = gateway
        .setup
        .issuer
        .token_with("carol", serde_json::json!({ "org": "acme" }));
    let answer = gateway
        .plain()
        .await
        .to(&port_host(5000))
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

/// Which limit refused, of the first answer that one gives.
async fn policy(gateway: &TestGateway, host: &str, token: Option<&str>) -> String {
    let headers: Vec<_> = token
        .map(|token| ("x-gitspace-token", token))
        .into_iter()
        .collect();
    for _ in 0..100 {
        let answer = gateway.plain().await.to(host).get("/", &headers).await;
        if answer.status == 429 {
            assert_eq!(answer.refusal(), (429, "rate-limited".into()));
            return answer.header("ratelimit-policy").unwrap().into();
        }
        assert_eq!(answer.status, 200);
    }
    panic!("no limit");
}

#[tokio::test]
async fn a_gitspace_has_its_rate_whoever_asks() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| {
            config.limits.requests_per_gitspace = rate(1);
            config.limits.burst_per_gitspace = Some(rate(1));
        })
        .start();
    let colleague = gateway
        .setup
        .issuer
        .token_with("carol", serde_json::json!({ "org": "acme" }));
    get(&gateway, &gateway.owner()).await;
    let told = policy(&gateway, &port_host(5000), Some(&colleague)).await;
    assert_eq!(told, "\"gitspace\";q=1;w=1");
}

#[tokio::test]
async fn who_comes_without_a_token_is_counted_by_the_network() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| {
            config.limits.requests_per_anonymous = rate(1);
            config.limits.burst_per_anonymous = Some(rate(1));
        })
        .start();
    let told = policy(&gateway, &port_host(4000), None).await;
    assert_eq!(told, "\"network\";q=1;w=1");
    // Who has a token is not among them, from the same address and on the same port.
    let token = gateway.owner();
    for _ in 0..10 {
        let mut client = gateway.plain().await.to(&port_host(4000));
        let answer = client.get("/", &[("x-gitspace-token", &token)]).await;
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test]
async fn new_streams_have_a_rate_of_their_own() {
    let upstream = websocket::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.limits.new_streams_per_principal = rate(1))
        .start();
    let mut open = Vec::new();
    let answer = loop {
        match websocket::open(&gateway).await {
            Ok(socket) => open.push(socket),
            Err(Error::Http(answer)) => break answer,
            Err(other) => panic!("{other}"),
        }
    };
    assert!((2..50).contains(&open.len()), "{}", open.len());
    assert_eq!(answer.status(), 429);
    assert_eq!(
        answer.headers()["ratelimit-policy"],
        "\"principal-new-streams\";q=1;w=1"
    );
    // What is open goes on.
    for socket in &mut open {
        websocket::say(socket, "still here").await;
    }
}

#[tokio::test]
async fn frames_of_a_websocket_are_no_requests() {
    const FRAMES: usize = 10_000;
    let upstream = websocket::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| {
            config.limits.requests_per_principal = rate(2);
            config.limits.burst_per_principal = Some(rate(2));
        })
        .start();
    let socket = websocket::open(&gateway).await.unwrap();
    let (mut sink, mut back) = socket.split();
    let send = async {
        for n in 0..FRAMES {
            sink.feed(Message::text(n.to_string())).await.unwrap();
        }
        sink.flush().await.unwrap();
    };
    let receive = async {
        for n in 0..FRAMES {
            let message = soon("a frame", back.next()).await.unwrap().unwrap();
            assert_eq!(message.to_text().unwrap(), n.to_string());
        }
    };
    tokio::join!(send, receive);
    assert!(
        gateway
            .metric("cde_gateway_requests_total", &["rate-limited"])
            .await
            == 0.0
    );
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
    // One comes back every 20 s.
    assert!((1..=20).contains(&seconds), "{seconds}");
    assert!((3..=4).contains(&refused), "{refused}");
    let left = format!("\"failed-logins\";r=0;t={seconds}");
    assert_eq!(answer.header("ratelimit"), Some(&*left));
    assert_eq!(
        answer.header("ratelimit-policy"),
        Some("\"failed-logins\";q=3;w=60")
    );
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
