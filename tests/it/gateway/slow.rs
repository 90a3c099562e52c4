//! Slow everything: hundreds of peers of every slow kind at once, while another is served.
//!
//! Not here: when each of them is let go (`deadlines`, `h2_abuse`).

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    Client, HOST, Io, RawH2, Setup, TestGateway, Upstream, eventually,
    raw_h2::{PREFACE, frame, kind},
};

/// Of each of the eight kinds: 504 in all.
const EACH: usize = 63;
/// A second is what is promised; a test machine does ten other things meanwhile.
const BOUND: Duration = Duration::from_secs(4);
const LARGE: usize = 8 * 1024 * 1024;

/// The beginning of a ClientHello.
const HELLO: [u8; 8] = [0x16, 3, 1, 2, 0, 1, 0, 1];

async fn upstream() -> Upstream {
    Upstream::answering(|seen| {
        let size = if seen.target == "/large" { LARGE } else { 2 };
        let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + size, b'x');
        answer
    })
    .await
}

async fn plain(gateway: &TestGateway, bytes: &str) -> Box<dyn Io> {
    let mut stream = TcpStream::connect(gateway.http).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    Box::new(stream)
}

async fn h2(gateway: &TestGateway, bytes: &[u8]) -> Box<dyn Io> {
    let mut client = RawH2::bare(gateway, HOST).await;
    client.raw(bytes).await.unwrap();
    client.into_stream()
}

/// One peer of each kind, and whether it goes on byte by byte.
async fn peers(gateway: &TestGateway, token: &str) -> Vec<(Box<dyn Io>, bool)> {
    let head =
        |line: &str| format!("{line} HTTP/1.1\r\nhost: {HOST}\r\nx-gitspace-token: {token}\r\n");
    let mut handshake = TcpStream::connect(gateway.https).await.unwrap();
    handshake.write_all(&HELLO).await.unwrap();
    let head_of_h2 = [
        PREFACE,
        &frame(kind::SETTINGS, 0, 0, b""),
        &frame(kind::HEADERS, 0, 1, &[0x82]),
    ]
    .concat();
    let mut idle = Client::plain(gateway.http).await;
    assert_eq!(
        idle.get("/", &[("x-gitspace-token", token)]).await.status,
        200
    );
    vec![
        (
            Box::new(TcpStream::connect(gateway.https).await.unwrap()),
            false,
        ),
        (Box::new(handshake), true),
        (
            plain(gateway, &format!("{}x-slow: ", head("GET /"))).await,
            true,
        ),
        (h2(gateway, &PREFACE[..10]).await, false),
        (h2(gateway, &head_of_h2).await, false),
        (
            plain(
                gateway,
                &format!("{}content-length: 1000000\r\n\r\nx", head("POST /")),
            )
            .await,
            true,
        ),
        (
            plain(gateway, &format!("{}\r\n", head("GET /large"))).await,
            false,
        ),
        (idle.into_stream(), false),
    ]
}

#[tokio::test]
async fn five_hundred_slow_peers_do_not_slow_others() {
    let upstream = upstream().await;
    let gateway = Setup::to(&upstream)
        .with(|config| {
            config.limits.new_connections_per_network = NonZeroU32::new(100_000).unwrap();
            config.limits.streams_per_principal = 10_000;
            config.timeouts.head = Duration::from_secs(60);
        })
        .start();
    let token = gateway.owner();
    let (mut resting, mut dripping) = (Vec::new(), Vec::new());
    for _ in 0..EACH {
        for (peer, drips) in peers(&gateway, &token).await {
            if drips { &mut dripping } else { &mut resting }.push(peer);
        }
    }
    assert_eq!(resting.len() + dripping.len(), 8 * EACH);
    let drip = tokio::spawn(async move {
        loop {
            for peer in &mut dripping {
                // Who was let go meanwhile is not what this is about.
                let _ = peer.write_all(b"x").await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    eventually("all have been accepted", || async {
        let connected = gateway.metric("cde_gateway_connections", &[]).await;
        (connected >= 8.0 * EACH as f64).then_some(())
    })
    .await;
    for _ in 0..10 {
        let start = Instant::now();
        let mut client = gateway.tls(HOST).await;
        let answer = client.get("/", &[("x-gitspace-token", &token)]).await;
        assert_eq!((answer.status, answer.text()), (200, "xx"));
        assert!(RawH2::connect(&gateway, HOST).await.lives(1).await);
        let took = start.elapsed();
        assert!(took < BOUND, "{took:?}");
    }
    drip.abort();
    // They were there all the time: a slow reader's answer has begun, and waits.
    let reader = &mut resting[3];
    let mut status = [0; 15];
    reader.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200 OK");
}
