//! Bytes per second: what is over its rate waits, is never cut, holds nobody else back, and has another rate at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cde_gateway::config::{ByteLimit, Timeout};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    time::Instant,
};

use super::websocket;
use crate::support::{
    Answer, Client, HOST, Pieces, Setup, Streams, TestGateway, Upstream, eventually, head,
    read_request, soon, text,
};

/// Of a long body: more than what fits into the sockets on its way.
const LONG: usize = 32 << 20;
const PIECE: usize = 64 * 1024;
/// A rate that shows.
const SLOW: u64 = 128;
/// So many bytes take more than this at that rate, with what is saved up and what goes ahead of its turn.
const SOME: usize = 512 * 1024;
const A_WHILE: Duration = Duration::from_millis(500);

fn kib(number: u64) -> ByteLimit {
    match number
        .checked_mul(1024)
        .and_then(|bytes| bytes.try_into().ok())
    {
        Some(bytes) => ByteLimit::Bytes(bytes),
        None => ByteLimit::Off,
    }
}

/// The principal's rate is another one from now on.
fn turn(gateway: &TestGateway, rate: ByteLimit) {
    let mut settings = gateway.setup.settings.clone();
    settings.config.limits.bytes_per_principal = rate;
    gateway.handle.reload(&settings).unwrap();
}

fn slow(setup: Setup) -> TestGateway {
    setup
        .with(|config| config.limits.bytes_per_principal = kib(SLOW))
        .start()
}

/// Sends a long answer, and counts how much of it was taken.
async fn source() -> (Upstream, Arc<AtomicU64>) {
    let taken = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&taken);
    let upstream = Upstream::scripted(move |stream, _| {
        let count = Arc::clone(&count);
        async move {
            let mut stream = BufReader::new(stream);
            while let Ok(request) = read_request(&mut stream).await {
                let length = if request.target == "/short" { 0 } else { LONG };
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                for _ in 0..length / PIECE {
                    if stream.write_all(&[7; PIECE]).await.is_err() {
                        return;
                    }
                    count.fetch_add(PIECE as u64, Ordering::Relaxed);
                }
            }
        }
    })
    .await;
    (upstream, taken)
}

/// Reads uploads to their end, counts how much came, and tells how long they were.
async fn sink() -> (Upstream, Arc<AtomicU64>) {
    let came = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&came);
    let upstream = Upstream::scripted(move |stream, _| {
        let count = Arc::clone(&count);
        async move {
            let mut stream = BufReader::new(stream);
            let head = head(&mut stream).await.to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).unwrap();
            let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
            let (mut left, mut piece) = (length, vec![0; PIECE]);
            while left > 0 {
                match stream.read(&mut piece).await {
                    Ok(read) if read > 0 => left -= read,
                    _ => return,
                }
                count.store((length - left) as u64, Ordering::Relaxed);
            }
            let text = length.to_string();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}",
                text.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    (upstream, came)
}

/// So many bytes of a body.
async fn read(body: &mut Incoming, count: usize) {
    let mut read = 0;
    while read < count {
        let frame = soon("a piece", body.frame()).await.expect("more").unwrap();
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}

#[track_caller]
fn took_a_while(start: Instant) {
    assert!(start.elapsed() >= A_WHILE, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_download_is_slow_without_being_kept_and_fast_once_it_may() {
    let (upstream, taken) = source().await;
    let gateway = slow(Setup::to(&upstream));
    let token = gateway.owner();
    let mut client = gateway.plain().await;
    client
        .begin("GET", "/", &[("x-gitspace-token", &token)], b"")
        .await;
    assert_eq!(client.head().await.unwrap().status, 200);
    let start = Instant::now();
    client.read_exact(SOME).await.unwrap();
    took_a_while(start);
    // Nobody reads ahead: the rest is where it came from.
    assert!(taken.load(Ordering::Relaxed) < LONG as u64 * 3 / 4);
    turn(&gateway, ByteLimit::Off);
    client.read_exact(LONG - SOME).await.unwrap();
    let line = gateway.account().await;
    assert_eq!(
        (&line["reason"], &line["sent"]),
        (&"done".into(), &LONG.into())
    );
}

#[tokio::test]
async fn a_download_over_http2_is_slow_and_holds_no_other_stream_of_its_connection() {
    let (upstream, taken) = source().await;
    let other = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .route(&format!(
            "gitspace = \"web-a1b2c3\"\nupstream = \"http://{}\"\nowner = \"alice\"",
            other.address
        ))
        .with(|config| config.limits.bytes_per_gitspace = kib(SLOW))
        .start();
    let token = gateway.owner();
    let headers = [("x-gitspace-token", &*token)];
    let streams = Streams::connect(&gateway).await;
    let answer = streams.get(HOST, "/", &headers).await.unwrap();
    let mut body = answer.into_body();
    let start = Instant::now();
    read(&mut body, SOME / 2).await;
    for _ in 0..20 {
        let answer = streams.get("web-a1b2c3.gitspaces.localhost", "/", &headers);
        assert_eq!(text(answer.await.unwrap()).await, "hello");
    }
    // A head is no body: it does not wait.
    let answer = streams.get(HOST, "/short", &headers).await.unwrap();
    assert_eq!(answer.status(), 200);
    read(&mut body, SOME / 2).await;
    took_a_while(start);
    assert!(taken.load(Ordering::Relaxed) < LONG as u64 * 3 / 4);
    let mut settings = gateway.setup.settings.clone();
    settings.config.limits.bytes_per_gitspace = ByteLimit::Off;
    gateway.handle.reload(&settings).unwrap();
    soon("half of the rest", read(&mut body, LONG / 2)).await;
}

#[tokio::test]
async fn an_upload_is_slow_and_fast_once_it_may() {
    let (upstream, came) = sink().await;
    let gateway = slow(Setup::to(&upstream));
    let token = gateway.owner();
    let mut client = gateway.plain().await;
    let upload = async {
        let body = vec![7; LONG];
        client
            .begin("POST", "/", &[("x-gitspace-token", &token)], &body)
            .await;
        client.answer().await.unwrap()
    };
    let start = Instant::now();
    let watch = async {
        let some = async || (came.load(Ordering::Relaxed) >= SOME as u64).then_some(());
        eventually("some of it", some).await;
        took_a_while(start);
        assert!(came.load(Ordering::Relaxed) < LONG as u64 / 2);
        turn(&gateway, ByteLimit::Off);
        let all = async || (came.load(Ordering::Relaxed) == LONG as u64).then_some(());
        eventually("the rest", all).await;
    };
    let (answer, ()) = tokio::join!(upload, watch);
    assert_eq!(answer.text(), LONG.to_string());
}

#[tokio::test]
async fn an_upload_over_http2_is_slow_and_fast_once_it_may() {
    let (upstream, came) = sink().await;
    let gateway = slow(Setup::to(&upstream));
    let token = gateway.owner();
    let streams = Streams::connect(&gateway).await;
    let (sender, body) = Pieces::channel();
    for _ in 0..LONG / PIECE {
        sender.send(vec![7; PIECE].into()).unwrap();
    }
    drop(sender);
    let length = LONG.to_string();
    let headers = [("x-gitspace-token", &*token), ("content-length", &length)];
    let upload = async { text(streams.send("POST", &headers, body).await.unwrap()).await };
    let start = Instant::now();
    let watch = async {
        let some = async || (came.load(Ordering::Relaxed) >= SOME as u64).then_some(());
        eventually("some of it", some).await;
        took_a_while(start);
        assert!(came.load(Ordering::Relaxed) < LONG as u64 / 2);
        turn(&gateway, ByteLimit::Off);
        let all = async || (came.load(Ordering::Relaxed) == LONG as u64).then_some(());
        eventually("the rest", all).await;
    };
    let (answer, ()) = tokio::join!(upload, watch);
    assert_eq!(answer, length);
}

#[tokio::test]
async fn a_websocket_that_is_open_becomes_slow_and_fast_again() {
    let upstream = websocket::echo().await;
    let gateway = Setup::to(&upstream).start();
    let mut socket = websocket::open(&gateway).await.unwrap();
    let message = "x".repeat(SOME / 2);
    websocket::say(&mut socket, &message).await;
    turn(&gateway, kib(SLOW));
    let start = Instant::now();
    for _ in 0..2 {
        websocket::say(&mut socket, &message).await;
    }
    took_a_while(start);
    turn(&gateway, ByteLimit::Off);
    let message = "y".repeat(SOME * 4);
    for _ in 0..2 {
        // At the old rate each were 16 s, each way.
        websocket::say(&mut socket, &message).await;
    }
}

#[tokio::test]
async fn two_streams_of_one_principal_share_its_rate() {
    let (upstream, _) = source().await;
    let gateway = slow(Setup::to(&upstream));
    let token = gateway.owner();
    let download = async |size: usize| {
        let mut client: Client = gateway.plain().await;
        client
            .begin("GET", "/", &[("x-gitspace-token", &token)], b"")
            .await;
        assert_eq!(client.head().await.unwrap().status, 200);
        client.read_exact(size).await.unwrap();
    };
    let start = Instant::now();
    // One that would starve does not come to its end in time.
    tokio::join!(download(SOME / 2), download(SOME / 2));
    took_a_while(start);
}

const SHORT: usize = 96 * 1024;

/// With a rate that holds each piece back for longer than anybody may be idle.
fn impatient(upstream: &Upstream) -> TestGateway {
    let brief = Timeout::After(Duration::from_millis(150));
    Setup::to(upstream)
        .with(|config| {
            config.timeouts.body_idle = brief;
            config.timeouts.tunnel_idle = brief;
            config.limits.bytes_per_principal = kib(32);
        })
        .start()
}

async fn post(gateway: &TestGateway) -> Answer {
    let token = gateway.owner();
    let mut client = gateway.plain().await;
    let headers = [("x-gitspace-token", &*token)];
    client.request("POST", "/", &headers, &[7; SHORT]).await
}

#[tokio::test]
async fn an_upload_that_is_held_back_is_not_idle() {
    let (upstream, _) = sink().await;
    let gateway = impatient(&upstream);
    let start = Instant::now();
    let answer = post(&gateway).await;
    assert_eq!((answer.status, answer.text()), (200, &*SHORT.to_string()));
    took_a_while(start);
}

#[tokio::test]
async fn a_download_that_is_held_back_is_not_idle() {
    let upstream = Upstream::answering(|_| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {SHORT}\r\n\r\n");
        [head.as_bytes(), &[7; SHORT]].concat()
    })
    .await;
    let gateway = impatient(&upstream);
    let token = gateway.owner();
    let mut client = gateway.plain().await;
    let start = Instant::now();
    let answer = client.get("/", &[("x-gitspace-token", &token)]).await;
    assert_eq!((answer.status, answer.body.len()), (200, SHORT));
    took_a_while(start);
}

#[tokio::test]
async fn a_websocket_that_is_held_back_is_not_idle() {
    let upstream = websocket::echo().await;
    let gateway = impatient(&upstream);
    let mut socket = websocket::open(&gateway).await.unwrap();
    let start = Instant::now();
    websocket::say(&mut socket, &"x".repeat(SHORT)).await;
    took_a_while(start);
}
