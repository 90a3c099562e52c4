//! Spans by OTLP: what a collector gets, and what an app is told. Only in builds with the feature `otel`.
//!
//! The collector is an upstream of the tests; of what it gets only the strings are read, which protobuf writes as they are.

use cde_gateway::config;

use crate::support::{Client, HOST, Setup, TestGateway, Upstream, eventually};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

struct Traced {
    gateway: TestGateway,
    upstream: Upstream,
    collector: Upstream,
}

async fn traced(ratio: f64) -> Traced {
    let upstream = Upstream::echo().await;
    let collector = Upstream::always("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let endpoint = format!("http://{}", collector.address);
    let gateway = Setup::to(&upstream)
        .with(|config| config.traces = config::Traces { endpoint, ratio })
        .start();
    Traced {
        gateway,
        upstream,
        collector,
    }
}

async fn get(gateway: &TestGateway, target: &str, parent: Option<&str>) -> u16 {
    let token = gateway.owner();
    let mut client: Client = gateway.plain().await;
    let mut fields = vec![("x-gitspace-token", &*token)];
    fields.extend(parent.map(|parent| ("traceparent", parent)));
    client.get(target, &fields).await.status
}

/// All that the collector got, once it has got something.
async fn sent(collector: &Upstream) -> Vec<u8> {
    eventually("spans", || async {
        let seen = collector.seen();
        (!seen.is_empty()).then(|| {
            assert!(seen.iter().all(|one| one.target == "/v1/traces"));
            seen.into_iter().flat_map(|one| one.body).collect()
        })
    })
    .await
}

fn holds(sent: &[u8], text: impl AsRef<[u8]>) -> bool {
    let text = text.as_ref();
    sent.windows(text.len()).any(|some| some == text)
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits
        .chunks(2)
        .map(|two| (two[0] * 16 + two[1]) as u8)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_traced_request_is_a_span_and_its_app_goes_on_with_it() {
    let it = traced(1.0).await;
    assert_eq!(
        get(&it.gateway, "/deep?secret=hidden", Some(PARENT)).await,
        200
    );
    let seen = it.upstream.last();
    let told: Vec<_> = seen.header("traceparent").unwrap().split('-').collect();
    assert_eq!(told[1], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_ne!(told[2], "00f067aa0ba902b7", "the span is ours");
    assert_eq!(told[3], "01");
    it.gateway.accounted(1).await;
    it.gateway.stop().await;
    let sent = sent(&it.collector).await;
    for id in [told[1], told[2], "00f067aa0ba902b7"] {
        assert!(holds(&sent, bytes(id)), "{id}");
    }
    for text in [
        "cde-gateway",
        "GET",
        "/deep",
        HOST,
        "cde.step",
        "relay",
        "done",
        "http.response.status_code",
    ] {
        assert!(holds(&sent, text), "{text}");
    }
    for text in ["hidden", "alice", "127.0.0.1", "eyJ"] {
        assert!(!holds(&sent, text), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_is_a_span_too() {
    let it = traced(1.0).await;
    let mut client = it.gateway.plain().await;
    assert_eq!(client.get("/", &[]).await.status, 401);
    it.gateway.accounted(1).await;
    it.gateway.stop().await;
    let sent = sent(&it.collector).await;
    assert!(holds(&sent, "no-token") && holds(&sent, "authorize"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_does_not_decide_what_is_traced() {
    let it = traced(0.0).await;
    let sampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert_eq!(get(&it.gateway, "/", Some(sampled)).await, 200);
    let seen = it.upstream.last();
    assert_eq!(
        seen.header("traceparent"),
        Some(sampled),
        "it passes as it is"
    );
    it.gateway.accounted(1).await;
    it.gateway.stop().await;
    assert!(it.collector.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_gone_holds_nothing_up() {
    let it = traced(1.0).await;
    drop(it.collector);
    for _ in 0..100 {
        assert_eq!(get(&it.gateway, "/", None).await, 200);
    }
    it.gateway.accounted(100).await;
    it.gateway.stop().await;
}
