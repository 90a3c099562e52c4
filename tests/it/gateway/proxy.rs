//! Requests and answers on their way: targets, bodies, statuses, over every listener and protocol.

use crate::support::{H2, HOST, Setup, Upstream};

/// Bytes that tell their place.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n / 251 + n % 251) as u8).collect()
}

const TARGETS: &[&str] = &[
    "/",
    "/a//b/../c/./d",
    "/%2e%2E/%2F%zz;x=1",
    "/?",
    "/?a=b&&c=%20+d&=",
    "/a?b?c",
    "/%F0%9F%98%80?x=[1]{2}|",
    "//double",
];

#[tokio::test]
async fn targets_arrive_byte_for_byte() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    let mut plain = gateway.plain().await;
    let mut tls = gateway.tls(HOST).await;
    for target in TARGETS {
        for client in [&mut plain, &mut tls] {
            let answer = client.get(target, &[("x-gitspace-token", &token)]).await;
            assert_eq!((answer.status, answer.text()), (200, "hello"), "{target}");
            assert_eq!(upstream.last().target, *target);
        }
    }
    let mut client = H2::connect(&gateway, HOST).await;
    for target in TARGETS {
        let url = format!("https://{HOST}{target}");
        let answer = client
            .request("GET", &url, &[("x-gitspace-token", &token)], b"")
            .await;
        assert_eq!(answer.status(), 200, "{target}");
        assert_eq!(upstream.last().target, *target);
    }
}

#[tokio::test]
async fn bodies_pass_both_ways_unchanged() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    let headers = [("x-gitspace-token", &*token), ("content-type", "a/b")];
    let mut plain = gateway.plain().await;
    let mut tls = gateway.tls(HOST).await;
    let mut h2 = H2::connect(&gateway, HOST).await;
    let url = format!("https://{HOST}/up");
    for length in [1, 16 * 1024, 4_000_000] {
        let body = pattern(length);
        for client in [&mut plain, &mut tls] {
            let answer = client.request("POST", "/up", &headers, &body).await;
            assert_eq!(answer.status, 200);
            assert!(answer.body == body, "{length}");
        }
        let answer = h2.request("POST", &url, &headers, &body).await;
        assert!(answer.body()[..] == body, "{length}");
        assert_eq!(upstream.last().header("content-type"), Some("a/b"));
    }
    let sum = 2.0 * 3.0 * f64::from(1 + 16 * 1024 + 4_000_000) / 2.0;
    gateway.accounted(9).await;
    let received = gateway
        .metric("cde_gateway_received_bytes_total", &[])
        .await;
    let sent = gateway.metric("cde_gateway_sent_bytes_total", &[]).await;
    assert_eq!((received, sent), (sum, sum));
}

#[tokio::test]
async fn chunked_bodies_pass_both_ways() {
    let upstream = Upstream::answering(|seen| {
        let mut answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for piece in seen.body.chunks(1000) {
            answer.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            answer.extend_from_slice(piece);
            answer.extend_from_slice(b"\r\n");
        }
        answer.extend_from_slice(b"0\r\n\r\n");
        answer
    })
    .await;
    let gateway = Setup::to(&upstream).start();
    let mut client = gateway.plain().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nhost: {HOST}\r\nx-gitspace-token: {}\r\ntransfer-encoding: chunked\r\n\r\n",
            gateway.owner()
        ))
        .await;
    let body = pattern(10_000);
    for piece in body.chunks(700) {
        client.send(format!("{:x}\r\n", piece.len())).await;
        client.send(piece).await;
        client.send("\r\n").await;
    }
    client.send("0\r\n\r\n").await;
    let answer = client.answer().await.unwrap();
    assert!(answer.body == body);
    assert!(upstream.last().body == body);
    // And the connection goes on.
    let token = gateway.owner();
    let again = client.get("/", &[("x-gitspace-token", &token)]).await;
    assert_eq!(again.status, 200);
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let upstream = Upstream::answering(|seen| {
        let answer = match (&*seen.method, &*seen.target) {
            ("HEAD", _) => "HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n",
            (_, "/204") => "HTTP/1.1 204 No Content\r\n\r\n",
            (_, "/304") => "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        };
        answer.into()
    })
    .await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.workers = 1)
        .start();
    let token = gateway.owner();
    let mut client = gateway.plain().await;
    let mut h2 = H2::connect(&gateway, HOST).await;
    for (method, target, status) in [
        ("HEAD", "/", 200),
        ("GET", "/204", 204),
        ("GET", "/304", 304),
        ("GET", "/", 200),
    ] {
        let headers = [("x-gitspace-token", &*token)];
        let answer = client.request(method, target, &headers, b"").await;
        assert_eq!(answer.status, status);
        assert!(answer.body.is_empty());
        if method == "HEAD" {
            assert_eq!(answer.header("content-length"), Some("12345"));
        }
        let url = format!("https://{HOST}{target}");
        let answer = h2.request(method, &url, &headers, b"").await;
        assert_eq!(answer.status(), status);
        assert!(answer.body().is_empty());
        if method == "HEAD" {
            assert_eq!(answer.headers()["content-length"], "12345");
        }
    }
    assert_eq!(
        upstream.connections(),
        1,
        "and their connection is free again"
    );
}

#[tokio::test]
async fn an_upload_that_expects_100_continue_is_told_to_go_on() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let mut client = gateway.plain().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nhost: {HOST}\r\nx-gitspace-token: {}\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n",
            gateway.owner()
        ))
        .await;
    assert_eq!(client.head().await.unwrap().status, 100);
    client.send("abc").await;
    assert_eq!(client.answer().await.unwrap().text(), "abc");
}

#[tokio::test]
async fn an_answer_may_come_before_the_upload_has_ended() {
    let upstream = Upstream::scripted(|mut stream, _| async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut some = [0; 1024];
        stream.read_exact(&mut some).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
            .await
            .unwrap();
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    let gateway = Setup::to(&upstream).start();
    let mut client = gateway.plain().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nhost: {HOST}\r\nx-gitspace-token: {}\r\ncontent-length: 100000000\r\n\r\n",
            gateway.owner()
        ))
        .await;
    client.send([b'x'; 4096]).await;
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.status, answer.text()), (413, "big"));
}

#[tokio::test]
async fn requests_sent_together_are_answered_in_order() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    let mut client = gateway.plain().await;
    let mut all = String::new();
    for n in 0..5 {
        all.push_str(&format!(
            "POST /{n} HTTP/1.1\r\nhost: {HOST}\r\nx-gitspace-token: {token}\r\ncontent-length: 1\r\n\r\n{n}"
        ));
    }
    client.send(all).await;
    for n in 0..5 {
        assert_eq!(client.answer().await.unwrap().text(), n.to_string());
    }
}
