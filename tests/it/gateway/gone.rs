//! What becomes of an exchange whose client goes, or takes nothing any more.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cde_gateway::config::Timeout;
use http::Request;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    sync::watch,
};

use super::bodies::start;
use crate::support::{
    HOST, Pieces, Setup, Streams, Upstream, eventually, head, read_request, soon, text,
};

const SHORT: Duration = Duration::from_millis(300);

/// What an upstream's connection has been through, for the test to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Saw {
    Nothing,
    Head,
    /// The connection's end, with so many bytes after the head.
    End(usize),
}

/// Reads a head, writes this, and watches for the end of the connection.
async fn watching(answer: &'static str) -> (Upstream, watch::Receiver<Saw>) {
    let (tell, told) = watch::channel(Saw::Nothing);
    let tell = Arc::new(tell);
    let upstream = Upstream::scripted(move |stream, _| {
        let tell = Arc::clone(&tell);
        async move {
            let mut stream = BufReader::new(stream);
            head(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
            tell.send_replace(Saw::Head);
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            tell.send_replace(Saw::End(rest.len()));
        }
    })
    .await;
    (upstream, told)
}

async fn saw_head(told: &mut watch::Receiver<Saw>) {
    let head = told.wait_for(|saw| *saw != Saw::Nothing);
    soon("the upstream's head", head).await.unwrap();
}

/// How long the upstream's connection lasts from now on.
async fn ends(told: &mut watch::Receiver<Saw>) -> Duration {
    let start = Instant::now();
    let end = told.wait_for(|saw| matches!(saw, Saw::End(_)));
    soon("the upstream's end", end).await.unwrap();
    start.elapsed()
}

#[tokio::test]
async fn a_stream_without_window_ends_and_leaves_its_connection() {
    const ENDLESS: &str = "HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
    let (tell, mut told) = watch::channel(false);
    let tell = Arc::new(tell);
    let upstream = Upstream::scripted(move |stream, _| {
        let tell = Arc::clone(&tell);
        async move {
            let mut stream = BufReader::new(stream);
            while let Ok(request) = read_request(&mut stream).await {
                if request.method == "GET" {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    stream.write_all(answer).await.unwrap();
                    continue;
                }
                stream.write_all(ENDLESS.as_bytes()).await.unwrap();
                while stream.write_all(&[b'x'; 65536]).await.is_ok() {}
                tell.send_replace(true);
                return;
            }
        }
    })
    .await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.timeouts.body_idle = Timeout::After(SHORT))
        .start();
    let token = gateway.owner();
    let headers = [("x-gitspace-token", &*token)];
    let streams = Streams::connect(&gateway).await;
    // Nobody reads it, so its window is used up and not renewed.
    let stuck = streams.request("REPORT", &headers).await.unwrap();
    let ended = async {
        while !*told.borrow_and_update() {
            let answer = streams.request("GET", &headers).await.unwrap();
            assert_eq!(text(answer).await, "ok");
            let _ = tokio::time::timeout(SHORT / 3, told.changed()).await;
        }
    };
    soon("the upstream's end", ended).await;
    let body = soon("the end", stuck.into_body().collect()).await;
    assert!(body.is_err(), "it is cut");
    let answer = streams.request("GET", &headers).await.unwrap();
    assert_eq!(text(answer).await, "ok");
    eventually("its account", || async {
        let lines = gateway.lines();
        lines
            .iter()
            .find(|line| line["method"] == "REPORT")
            .map(|line| {
                assert_eq!(
                    (&line["reason"], &line["ended_by"]),
                    (&"client-gone".into(), &"client".into())
                );
            })
    })
    .await;
}

/// Before the answer, within it, and within the request.
const POINTS: [(&str, &str); 3] = [
    ("GET", ""),
    ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome"),
    ("POST", ""),
];

#[tokio::test]
async fn a_client_that_goes_takes_its_upstreams_connection_along() {
    for (method, answer) in POINTS {
        let (upstream, mut told) = watching(answer).await;
        let (gateway, token) = start(&upstream).await;
        let mut client = gateway.plain().await;
        let length = if method == "POST" {
            "content-length: 100\r\n"
        } else {
            ""
        };
        let head = format!(
            "{method} / HTTP/1.1\r\nhost: {HOST}\r\nx-gitspace-token: {token}\r\n{length}\r\n"
        );
        client.send(head).await;
        saw_head(&mut told).await;
        if !answer.is_empty() {
            client.head().await.unwrap();
        }
        drop(client);
        let lasted = ends(&mut told).await;
        assert!(
            lasted < Duration::from_secs(5),
            "{method} {answer}: {lasted:?}"
        );
        assert_eq!(
            gateway.account().await["reason"],
            "client-gone",
            "{method} {answer}"
        );
    }
}

#[tokio::test]
async fn a_reset_stream_takes_its_upstreams_connection_along() {
    for (method, answer) in POINTS {
        let (upstream, mut told) = watching(answer).await;
        let (gateway, token) = start(&upstream).await;
        let headers = [("x-gitspace-token", &*token)];
        let streams = Streams::connect(&gateway).await;
        let (sender, mut body) = Pieces::channel();
        sender.send("some".into()).unwrap();
        if method == "GET" {
            body = Pieces::none();
        }
        let got = tokio::time::timeout(
            SHORT * 2,
            streams.0.clone().send_request(
                Request::builder()
                    .method(method)
                    .uri(format!("https://{HOST}/"))
                    .header(headers[0].0, headers[0].1)
                    .body(body)
                    .unwrap(),
            ),
        )
        .await;
        saw_head(&mut told).await;
        assert_eq!(got.is_ok(), !answer.is_empty());
        // Dropped, the answer or the wait for it resets the stream.
        drop(got);
        let lasted = ends(&mut told).await;
        assert!(
            lasted < Duration::from_secs(5),
            "{method} {answer}: {lasted:?}"
        );
        assert_eq!(
            gateway.account().await["reason"],
            "client-gone",
            "{method} {answer}"
        );
        drop(sender);
    }
}
