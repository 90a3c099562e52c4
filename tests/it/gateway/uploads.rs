//! Uploads: waits for `100 Continue`, answers that come early, lengths that are not true.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use super::bodies::start;
use crate::support::{HOST, Pieces, Setup, Streams, Upstream, head, text};

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_body_is_asked_for_only_after_token_and_limits() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.workers = 1)
        .start();
    let ask = |token: &str| {
        format!(
            "POST / HTTP/1.1\r\nhost: {HOST}\r\nx-gitspace-token: {token}\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n"
        )
    };
    let mut client = gateway.plain().await;
    client.send(ask("nonsense")).await;
    assert_eq!(client.head().await.unwrap().status, 401, "without 100");

    // The echo knows nothing of `Expect`: it waits for the body.
    let mut client = gateway.plain().await;
    client.send(ask(&gateway.owner())).await;
    assert_eq!(client.head().await.unwrap().status, 100);
    client.send("body").await;
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.status, answer.text()), (200, "body"));
    assert_eq!(upstream.last().header("expect"), Some("100-continue"));
}

#[tokio::test]
async fn an_upstream_decides_whether_it_wants_the_body() {
    let upstream = Upstream::scripted(|stream, _| async {
        let mut stream = BufReader::new(stream);
        loop {
            let head = head(&mut stream).await;
            if head.is_empty() {
                return;
            }
            if head.contains("/unwanted") {
                let refusal = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno";
                stream.write_all(refusal).await.unwrap();
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
                assert!(rest.is_empty(), "nobody had asked for {rest:?}");
                return;
            }
            let early = tokio::time::timeout(SHORT, stream.fill_buf()).await;
            assert!(early.is_err(), "the body came unasked: {early:?}");
            let asks = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
            stream.write_all(asks).await.unwrap();
            let mut body = [0; 4];
            stream.read_exact(&mut body).await.unwrap();
            let answer =
                b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            stream.write_all(&body).await.unwrap();
        }
    })
    .await;
    let (gateway, token) = start(&upstream).await;
    let ask = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: {HOST}\r\nx-gitspace-token: {token}\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n"
        )
    };
    let mut client = gateway.plain().await;
    client.send(ask("/wanted")).await;
    assert_eq!(client.head().await.unwrap().status, 100);
    client.send("body").await;
    let answer = client.answer().await.unwrap();
    assert_eq!(
        (answer.status, answer.text()),
        (200, "body"),
        "and no other 1xx"
    );

    let mut client = gateway.plain().await;
    client.send(ask("/unwanted")).await;
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.status, answer.text()), (413, "no"), "without 100");
}

/// Answers a head at once, and reads on only if it must.
async fn hasty(reads: bool) -> Upstream {
    Upstream::scripted(move |stream, _| async move {
        let mut stream = BufReader::new(stream);
        loop {
            let head = head(&mut stream).await;
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            if target.is_empty() {
                return;
            }
            let answer = format!(
                "HTTP/1.1 413 Content Too Large\r\ncontent-length: {}\r\n\r\n{target}",
                target.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            if head.starts_with("POST") {
                if reads {
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                } else {
                    std::future::pending::<()>().await;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_early_answer_arrives_whole_and_its_connection_is_not_used_again() {
    for reads in [true, false] {
        let upstream = hasty(reads).await;
        let (gateway, token) = start(&upstream).await;
        let headers = [("x-gitspace-token", &*token)];
        let mut client = gateway.plain().await;
        let head = format!(
            "POST /early HTTP/1.1\r\nhost: {HOST}\r\nx-gitspace-token: {token}\r\ncontent-length: 1000000\r\n\r\nbegin"
        );
        client.send(head).await;
        let answer = client.answer().await.unwrap();
        assert_eq!((answer.status, answer.text()), (413, "/early"), "{reads}");

        let streams = Streams::connect(&gateway).await;
        let (sender, body) = Pieces::channel();
        sender.send("begin".into()).unwrap();
        let answer = streams.send("POST", &headers, body).await.unwrap();
        assert_eq!(answer.status(), 413);
        assert_eq!(text(answer).await, "/");

        for path in ["/one", "/two"] {
            let answer = gateway.plain().await.get(path, &headers).await;
            assert_eq!(answer.text(), path);
        }
        assert_eq!(
            upstream.connections(),
            3,
            "two uploads, and one for the rest"
        );
        drop(sender);
    }
}

#[tokio::test]
async fn an_upload_of_another_length_than_it_says_is_no_request() {
    for (length, piece) in [("10", "half"), ("4", "too long"), ("0", "some")] {
        let upstream = Upstream::echo().await;
        let (gateway, token) = start(&upstream).await;
        let headers = [("x-gitspace-token", &*token), ("content-length", length)];
        let streams = Streams::connect(&gateway).await;
        let (sender, body) = Pieces::channel();
        sender.send(piece.into()).unwrap();
        drop(sender);
        if let Ok(answer) = streams.send("POST", &headers, body).await {
            assert!(answer.status().is_client_error(), "{answer:?}");
        }
        // The connection goes on, and nothing of the upload was taken for a request.
        let answer = streams.request("GET", &headers[..1]).await.unwrap();
        assert_eq!(text(answer).await, "hello");
        let seen = upstream.seen();
        assert!(seen.iter().all(|seen| seen.method == "GET"), "{seen:?}");
    }
}

#[tokio::test]
async fn an_upload_that_says_it_is_empty_is_a_request_once_it_has_ended() {
    let upstream = Upstream::echo().await;
    let (gateway, token) = start(&upstream).await;
    let headers = [("x-gitspace-token", &*token), ("content-length", "0")];
    let streams = Streams::connect(&gateway).await;
    let (sender, body) = Pieces::channel();
    let (answer, ()) = tokio::join!(streams.send("POST", &headers, body), async {
        for _ in 0..10 {
            let other = streams.request("GET", &headers[..1]).await.unwrap();
            assert_eq!(text(other).await, "hello");
        }
        assert!(upstream.seen().iter().all(|seen| seen.method == "GET"));
        drop(sender);
    });
    assert_eq!(text(answer.unwrap()).await, "hello");
    assert_eq!(upstream.last().method, "POST");
}
