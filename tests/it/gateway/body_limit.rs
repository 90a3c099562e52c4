//! Bodies that are longer than a request may have (`body_bytes`): refused unread where that is known, cut where it turns out.

use cde_gateway::config::Limits;

use crate::support::{HOST, Pieces, Setup, Streams, TestGateway, Upstream, text};

const MAX: usize = 2048;

fn at_most(limits: &mut Limits, text: &str) {
    limits.body_bytes = toml::Value::from(text).try_into().unwrap();
}

async fn start() -> (Upstream, TestGateway) {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| at_most(&mut config.limits, "2KiB"))
        .start();
    (upstream, gateway)
}

fn too_large() -> (u16, String) {
    (413, "body-too-large".into())
}

#[tokio::test]
async fn a_length_that_is_too_large_is_refused_unread_and_changes_with_a_reload() {
    let (upstream, gateway) = start().await;
    let token = gateway.owner();
    let ask = |length: usize| {
        format!(
            "POST / HTTP/1.1\r\nhost: {HOST}\r\nx-gitspace-token: {token}\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let mut client = gateway.plain().await;
    client.send(ask(MAX + 1)).await;
    let answer = client.answer().await.unwrap();
    assert_eq!(answer.refusal(), too_large(), "without 100");
    assert_eq!(upstream.seen().len(), 0);

    let headers = [("x-gitspace-token", &*token)];
    let mut client = gateway.plain().await;
    let body = vec![b'x'; MAX];
    let answer = client.request("POST", "/", &headers, &body).await;
    assert_eq!((answer.status, answer.body), (200, body));

    let body = vec![b'x'; MAX + 1];
    let answer = client.request("POST", "/", &headers, &body).await;
    assert_eq!(answer.refusal(), too_large());
    let mut settings = gateway.setup.settings.clone();
    at_most(&mut settings.config.limits, "off");
    gateway.handle.reload(&settings).unwrap();
    let answer = client.request("POST", "/", &headers, &body).await;
    assert_eq!(answer.status, 200, "on the same connection");
}

#[tokio::test]
async fn a_body_that_turns_out_too_large_is_cut() {
    let (upstream, gateway) = start().await;
    let token = gateway.owner();
    for (length, expected) in [(MAX, 200), (MAX + 1, 413)] {
        let mut client = gateway.plain().await;
        let half = "x".repeat(MAX / 2);
        let rest = "x".repeat(length - MAX / 2);
        client
            .send(format!(
                "POST / HTTP/1.1\r\nhost: {HOST}\r\nx-gitspace-token: {token}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{half}\r\n{:x}\r\n{rest}\r\n0\r\n\r\n",
                half.len(),
                rest.len(),
            ))
            .await;
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.status, expected, "{length}");
        if expected == 413 {
            assert_eq!(answer.refusal(), too_large());
            assert_eq!(answer.header("connection"), Some("close"));
        }
    }
    assert_eq!(upstream.seen().len(), 1, "the other one never ended");
}

#[tokio::test]
async fn over_http2_the_stream_ends_and_the_connection_goes_on() {
    let (_upstream, gateway) = start().await;
    let token = gateway.owner();
    let headers = [("x-gitspace-token", &*token)];
    let streams = Streams::connect(&gateway).await;
    for (length, expected) in [(MAX + 1, 413), (MAX, 200)] {
        let (sender, body) = Pieces::channel();
        sender.send(vec![b'x'; length].into()).unwrap();
        drop(sender);
        let answer = streams.send("POST", &headers, body).await.unwrap();
        assert_eq!(answer.status(), expected, "{length}");
        let said = text(answer).await;
        assert_eq!(said.contains("body-too-large"), expected == 413, "{said}");
    }
}
