//! Bodies both ways: every method, framing without a body, pieces as they come, trailers, events.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::BodyExt;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    sync::mpsc,
};

use crate::support::{HOST, Pieces, Setup, Streams, TestGateway, Upstream, head, soon, text};

pub(super) async fn start(upstream: &Upstream) -> (TestGateway, String) {
    let gateway = Setup::to(upstream)
        .with(|config| config.workers = 1)
        .start();
    let token = gateway.owner();
    (gateway, token)
}

#[tokio::test]
async fn every_method_passes_with_its_body() {
    let upstream = Upstream::echo().await;
    let (gateway, token) = start(&upstream).await;
    let headers = [("x-gitspace-token", &*token)];
    let mut client = gateway.plain().await;
    let methods = [
        "GET",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
        "OPTIONS",
        "PROPFIND",
        "PROPPATCH",
        "MKCOL",
        "REPORT",
        "SEARCH",
        "QUERY",
        "M-SEARCH",
        "get",
        "X!#$%&'*+-.^_`|~9",
    ];
    for method in methods {
        let answer = client
            .request(method, "/x?y", &headers, b"with a body")
            .await;
        assert_eq!(
            (answer.status, answer.text()),
            (200, "with a body"),
            "{method}"
        );
        let seen = upstream.last();
        assert_eq!((&*seen.method, &*seen.target), (method, "/x?y"));
        assert_eq!(seen.header("content-length"), Some("11"));
        let answer = client.request(method, "/", &headers, b"").await;
        assert_eq!((answer.status, answer.text()), (200, "hello"), "{method}");
        assert_eq!(upstream.last().header("transfer-encoding"), None);
    }
    let streams = Streams::connect(&gateway).await;
    for method in methods {
        let (sender, body) = Pieces::channel();
        sender.send("over h2".into()).unwrap();
        drop(sender);
        let answer = streams.send(method, &headers, body).await.unwrap();
        assert_eq!(text(answer).await, "over h2", "{method}");
        assert_eq!(upstream.last().method, method);
    }
}

#[tokio::test]
async fn trace_and_connect_are_refused() {
    let upstream = Upstream::echo().await;
    let (gateway, token) = start(&upstream).await;
    let headers = [("x-gitspace-token", &*token)];
    for (method, target) in [
        ("TRACE", "/"),
        ("CONNECT", "/"),
        ("CONNECT", "example.test:443"),
    ] {
        let mut client = gateway.plain().await;
        client.begin(method, target, &headers, b"").await;
        let status = client.head().await.unwrap().status;
        assert!(matches!(status, 400 | 405), "{method} {target}: {status}");
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn what_has_no_body_is_framed_without_one() {
    for (method, answer, length) in [
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
            Some("5"),
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            None,
        ),
        (
            "HEAD",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 7\r\n\r\n",
            Some("7"),
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", None),
        (
            "GET",
            "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
            None,
        ),
        (
            "GET",
            "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n",
            None,
        ),
        (
            "GET",
            "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n",
            None,
        ),
        ("GET", "HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n", None),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
            Some("5"),
        ),
        (
            "GET",
            "HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n",
            Some("0"),
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            Some("0"),
        ),
    ] {
        let upstream = Upstream::always(answer).await;
        let (gateway, token) = start(&upstream).await;
        let headers = [("x-gitspace-token", &*token)];
        let mut client = gateway.plain().await;
        for _ in 0..3 {
            client.begin(method, "/", &headers, b"").await;
            let got = client.head().await.unwrap();
            // hyper's server leaves it out of a 304, which may say it and need not (RFC 9110 §8.6).
            let length = length.filter(|_| got.status != 304);
            assert_eq!(got.header("content-length"), length, "{answer}");
            assert_eq!(got.header("transfer-encoding"), None, "{answer}");
        }
        assert_eq!(upstream.connections(), 1, "{answer}");
        let streams = Streams::connect(&gateway).await;
        let got = streams.request(method, &headers).await.unwrap();
        let told = got.headers().get("content-length").cloned();
        assert_eq!(
            told.as_ref().map(|told| told.to_str().unwrap()),
            length,
            "{answer}"
        );
        assert_eq!(text(got).await, "", "{answer}");
    }
}

#[tokio::test]
async fn ranges_and_codings_pass_untouched() {
    const ANSWER: &str = "HTTP/1.1 206 Partial Content\r\ncontent-type: multipart/byteranges; boundary=x\r\n\
        content-encoding: gzip\r\netag: W/\"1\"\r\naccept-ranges: bytes\r\nvary: accept-encoding\r\ncontent-length: 12\r\n\r\n\
        --x\r\n\x1f?\x08\0--x";
    let upstream = Upstream::always(ANSWER).await;
    let (gateway, token) = start(&upstream).await;
    let headers = [
        ("x-gitspace-token", &*token),
        ("range", "bytes=0-1, 5-"),
        ("if-range", "W/\"1\""),
        ("accept-encoding", "zstd, gzip;q=0.5"),
    ];
    let answer = gateway.plain().await.get("/", &headers).await;
    assert_eq!(answer.status, 206);
    assert_eq!(answer.body, b"--x\r\n\x1f?\x08\0--x");
    for (name, value) in [
        ("content-type", "multipart/byteranges; boundary=x"),
        ("content-encoding", "gzip"),
        ("etag", "W/\"1\""),
        ("accept-ranges", "bytes"),
        ("vary", "accept-encoding"),
    ] {
        assert_eq!(answer.header(name), Some(value));
    }
    let seen = upstream.last();
    for (name, value) in &headers[1..] {
        assert_eq!(seen.header(name), Some(*value));
    }
}

#[tokio::test]
async fn pieces_pass_as_they_come_in_both_directions() {
    let upstream = Upstream::scripted(|stream, _| async {
        let mut stream = BufReader::new(stream);
        let head = head(&mut stream).await;
        assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            .await
            .unwrap();
        loop {
            // A piece comes alone, before there is another.
            let mut piece = String::new();
            for _ in 0..2 {
                stream.read_line(&mut piece).await.unwrap();
            }
            stream.write_all(piece.as_bytes()).await.unwrap();
            if piece.starts_with("0\r\n") {
                return;
            }
        }
    })
    .await;
    let (gateway, token) = start(&upstream).await;
    let headers = [
        ("x-gitspace-token", &*token),
        ("transfer-encoding", "chunked"),
    ];
    let mut client = gateway.plain().await;
    let head = format!(
        "POST / HTTP/1.1\r\nhost: {HOST}\r\nx-gitspace-token: {token}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    client.send(head).await;
    assert_eq!(client.head().await.unwrap().status, 200);
    for _ in 0..20 {
        client.send("5\r\nhello\r\n").await;
        assert_eq!(client.read_exact(10).await.unwrap(), b"5\r\nhello\r\n");
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.read_exact(5).await.unwrap(), b"0\r\n\r\n");

    let streams = Streams::connect(&gateway).await;
    let (sender, body) = Pieces::channel();
    let answer = streams.send("POST", &headers[..1], body).await.unwrap();
    let mut back = answer.into_body();
    for _ in 0..20 {
        sender.send("hello".into()).unwrap();
        let frame = soon("a piece", back.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "hello");
    }
    drop(sender);
    let rest = soon("the end", back.collect()).await.unwrap();
    assert!(rest.to_bytes().is_empty());
}

#[tokio::test]
async fn announced_trailers_pass_in_both_directions() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let upstream = Upstream::scripted(move |stream, _| {
        let tell = tell.clone();
        async move {
            let mut stream = BufReader::new(stream);
            while !head(&mut stream).await.is_empty() {
                let mut body = String::new();
                while !body.ends_with("\r\n\r\n") {
                    stream.read_line(&mut body).await.unwrap();
                }
                tell.send(body).unwrap();
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n")
                    .await
                    .unwrap();
            }
        }
    })
    .await;
    let (gateway, token) = start(&upstream).await;
    let mut client = gateway.plain().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nhost: {HOST}\r\nx-gitspace-token: {token}\r\nte: trailers\r\nconnection: te\r\n\
             trailer: x-mine\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-mine: 2\r\n\r\n"
        ))
        .await;
    assert_eq!(client.head().await.unwrap().status, 200);
    let whole = "2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n";
    let came = client.read_exact(whole.len()).await.unwrap();
    assert_eq!(String::from_utf8(came).unwrap(), whole);
    let body = told.recv().await.unwrap();
    assert_eq!(body, "2\r\nhi\r\n0\r\nx-mine: 2\r\n\r\n");

    let streams = Streams::connect(&gateway).await;
    let headers = [("x-gitspace-token", &*token), ("te", "trailers")];
    let (sender, body) = Pieces::channel();
    sender.send("hi".into()).unwrap();
    drop(sender);
    let answer = streams.send("POST", &headers, body).await.unwrap();
    let back = soon("a body", answer.into_body().collect()).await.unwrap();
    assert_eq!(back.trailers().unwrap()["x-sum"], "1");
}

/// What is measured is in docs/performance.md (`tests/bodies/run.py`).
#[tokio::test]
async fn the_first_event_passes_at_once() {
    let (flush, flushed) = mpsc::unbounded_channel::<()>();
    let flushed = Arc::new(tokio::sync::Mutex::new(flushed));
    let upstream = Upstream::scripted(move |stream, _| {
        let flushed = Arc::clone(&flushed);
        async move {
            let mut stream = BufReader::new(stream);
            head(&mut stream).await;
            let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
            stream.write_all(head).await.unwrap();
            while flushed.lock().await.recv().await.is_some() {
                stream.write_all(b"data: x\n\n").await.unwrap();
            }
        }
    })
    .await;
    let (gateway, token) = start(&upstream).await;
    let headers = [("x-gitspace-token", &*token)];
    let streams = Streams::connect(&gateway).await;
    let mut events = streams.request("GET", &headers).await.unwrap().into_body();
    let mut delays = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        flush.send(()).unwrap();
        let frame = soon("an event", events.frame()).await.unwrap().unwrap();
        delays.push(start.elapsed());
        assert_eq!(frame.into_data().unwrap(), "data: x\n\n");
    }
    delays.sort();
    // Loose: a buffer would hold it back for ever.
    assert!(delays[10] < Duration::from_millis(100), "{delays:?}");
}

#[tokio::test]
async fn an_answer_that_its_connections_end_delimits_arrives_whole() {
    let upstream = Upstream::scripted(|stream, _| async {
        let mut stream = BufReader::new(stream);
        head(&mut stream).await;
        let answer = b"HTTP/1.0 200 OK\r\nserver: old\r\n\r\nall of it";
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let (gateway, token) = start(&upstream).await;
    let headers = [("x-gitspace-token", &*token)];
    let mut client = gateway.plain().await;
    for _ in 0..3 {
        let answer = client.get("/", &headers).await;
        assert_eq!((answer.status, answer.text()), (200, "all of it"));
        assert_eq!(answer.header("server"), Some("old"));
    }
    assert_eq!(upstream.connections(), 3);
}
