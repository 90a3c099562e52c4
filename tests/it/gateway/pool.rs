//! The pool of upstream connections: how many, how long, and which are never used again.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};

use crate::support::{
    Answer, Client, GITSPACE, OWNER, Refusing, Setup, TestGateway, Upstream, eventually,
    read_request,
};

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

fn to(upstream: &Upstream) -> Setup {
    Setup::to(upstream).with(|config| config.workers = 1)
}

async fn get(gateway: &TestGateway) -> Answer {
    request(gateway.http, gateway.owner(), "GET").await
}

async fn request(address: SocketAddr, token: String, method: &'static str) -> Answer {
    let mut client = Client::plain(address).await;
    client
        .request(method, "/", &[("x-gitspace-token", &token)], b"")
        .await
}

/// Answers when it is told to, each request on its connection.
struct Holding {
    upstream: Upstream,
    waiting: Arc<AtomicUsize>,
    go: Arc<tokio::sync::Semaphore>,
}

async fn holding() -> Holding {
    let (waiting, go) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(tokio::sync::Semaphore::new(0)),
    );
    let (count, gate) = (Arc::clone(&waiting), Arc::clone(&go));
    let upstream = Upstream::scripted(move |stream, _| {
        let (count, gate) = (Arc::clone(&count), Arc::clone(&gate));
        async move {
            let mut stream = BufReader::new(stream);
            while read_request(&mut stream).await.is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                let _ = stream.write_all(HELLO).await;
            }
        }
    })
    .await;
    Holding {
        upstream,
        waiting,
        go,
    }
}

impl Holding {
    async fn waits_for(&self, count: usize) {
        eventually("the requests have come", || async {
            (self.waiting.load(Ordering::SeqCst) == count).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_target_has_at_most_so_many_connections_over_all_workers() {
    let holding = holding().await;
    let gateway = Setup::to(&holding.upstream)
        .with(|config| {
            config.workers = 2;
            config.upstreams.max_connections = 3;
        })
        .start();
    let ask = || tokio::spawn(request(gateway.http, gateway.owner(), "GET"));
    let first: Vec<_> = (0..3).map(|_| ask()).collect();
    holding.waits_for(3).await;
    let answer = get(&gateway).await;
    assert_eq!(answer.refusal(), (503, "overloaded".into()));
    assert!(answer.header("retry-after").is_some());
    let late = ask();
    holding.go.add_permits(4);
    for request in first.into_iter().chain([late]) {
        assert_eq!(request.await.unwrap().text(), "hello");
    }
    assert_eq!(holding.upstream.connections(), 3);
}

#[tokio::test]
async fn at_the_bound_a_connection_at_rest_with_another_worker_is_borrowed() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| {
            config.workers = 4;
            config.upstreams.max_connections = 1;
        })
        .start();
    // The kernel spreads connections over the workers.
    for _ in 0..40 {
        assert_eq!(get(&gateway).await.text(), "hello");
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_connection_that_ends_makes_room_for_who_waits() {
    let upstream = Upstream::scripted(|stream, _| async {
        let mut stream = BufReader::new(stream);
        read_request(&mut stream).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello")
            .await;
    })
    .await;
    let gateway = to(&upstream)
        .with(|config| config.upstreams.max_connections = 1)
        .start();
    let ask = || tokio::spawn(request(gateway.http, gateway.owner(), "POST"));
    for request in (0..5).map(|_| ask()).collect::<Vec<_>>() {
        assert_eq!(request.await.unwrap().text(), "hello");
    }
    assert_eq!(upstream.connections(), 5);
}

#[tokio::test]
async fn a_tunnel_has_its_seat_until_it_ends() {
    let upstream = Upstream::scripted(|stream, _| async {
        let mut stream = BufReader::new(stream);
        read_request(&mut stream).await.unwrap();
        let _ = stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: raw\r\n\r\n",
            )
            .await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let gateway = to(&upstream)
        .with(|config| config.upstreams.max_connections = 1)
        .start();
    let token = gateway.owner();
    let mut client = gateway.plain().await;
    let headers = [
        ("x-gitspace-token", token.as_str()),
        ("connection", "upgrade"),
        ("upgrade", "raw"),
    ];
    client.begin("GET", "/", &headers, b"").await;
    assert_eq!(client.head().await.unwrap().status, 101);
    assert_eq!(get(&gateway).await.refusal(), (503, "overloaded".into()));
    drop(client);
    let mut again = gateway.plain().await;
    again.begin("GET", "/", &headers, b"").await;
    assert_eq!(again.head().await.unwrap().status, 101);
}

#[tokio::test]
async fn none_rest_where_none_may() {
    let upstream = Upstream::echo().await;
    let gateway = to(&upstream)
        .with(|config| config.upstreams.idle = 0)
        .start();
    for _ in 0..3 {
        assert_eq!(get(&gateway).await.status, 200);
    }
    assert_eq!(upstream.connections(), 3);
}

#[tokio::test]
async fn a_connection_that_rested_too_long_is_not_used() {
    let upstream = Upstream::echo().await;
    let gateway = to(&upstream)
        .with(|config| config.upstreams.ttl = Duration::from_millis(50))
        .start();
    assert_eq!(get(&gateway).await.status, 200);
    tokio::time::sleep(Duration::from_millis(80)).await;
    assert_eq!(get(&gateway).await.status, 200);
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn bytes_after_the_end_of_an_answer_end_its_connection_and_reach_nobody() {
    for more in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nevil!"[..],
        b"x",
        b"\r\n",
    ] {
        for answer in [
            HELLO,
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ] {
            let mut bytes = answer.to_vec();
            bytes.extend(more);
            let upstream = Upstream::answering(move |_| bytes.clone()).await;
            let gateway = to(&upstream).start();
            for count in 1..=3 {
                assert_eq!(get(&gateway).await.text(), "hello");
                assert_eq!(upstream.connections(), count, "{more:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_answer_of_http10_ends_its_connection() {
    let upstream = Upstream::scripted(|stream, _| async {
        let mut stream = BufReader::new(stream);
        read_request(&mut stream).await.unwrap();
        let _ = stream
            .write_all(b"HTTP/1.0 200 OK\r\nserver: old\r\n\r\nhello")
            .await;
    })
    .await;
    let gateway = to(&upstream).start();
    for count in 1..=3 {
        let answer = get(&gateway).await;
        assert_eq!((answer.status, answer.text()), (200, "hello"));
        assert_eq!(upstream.connections(), count);
    }
}

/// Serves one request a connection and answers the next with these bytes before it closes.
async fn dying_with(last: &'static [u8]) -> (Upstream, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let upstream = Upstream::scripted(move |stream, _| {
        let count = Arc::clone(&count);
        async move {
            let mut stream = BufReader::new(stream);
            for bytes in [HELLO, last] {
                if read_request(&mut stream).await.is_err() {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(bytes).await;
            }
        }
    })
    .await;
    (upstream, requests)
}

#[tokio::test]
async fn a_get_is_sent_again_at_once_when_its_used_connection_dies_silently() {
    let (upstream, requests) = dying_with(b"").await;
    let gateway = to(&upstream).start();
    for _ in 0..2 {
        assert_eq!(get(&gateway).await.text(), "hello");
    }
    assert_eq!(requests.load(Ordering::SeqCst), 3);
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn a_get_is_not_sent_again_once_a_byte_of_an_answer_came() {
    for last in [
        &b"H"[..],
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"nonsense\r\n\r\n",
    ] {
        let (upstream, requests) = dying_with(last).await;
        let gateway = to(&upstream).start();
        assert_eq!(get(&gateway).await.text(), "hello");
        assert_eq!(
            get(&gateway).await.refusal(),
            (502, "gitspace-broke".into())
        );
        assert_eq!(requests.load(Ordering::SeqCst), 2);
    }
}

#[tokio::test]
async fn a_post_is_not_sent_again() {
    let (upstream, requests) = dying_with(b"").await;
    let gateway = to(&upstream).start();
    assert_eq!(get(&gateway).await.text(), "hello");
    let answer = request(gateway.http, gateway.owner(), "POST").await;
    assert_eq!(answer.refusal(), (502, "gitspace-broke".into()));
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_target_that_does_not_answer_is_left_alone_for_a_while_and_found_again() {
    let refusing = Refusing::new();
    let address = refusing.address();
    let gateway = Setup::new()
        .route(&format!(
            "gitspace = {GITSPACE:?}\nupstream = \"http://{address}\"\nowner = {OWNER:?}"
        ))
        .start();
    for _ in 0..12 {
        let answer = get(&gateway).await;
        assert_eq!(answer.refusal(), (502, "nothing-listens".into()));
    }
    let lines = gateway.accounted(12).await;
    let fast = lines
        .iter()
        .filter(|line| line["detail"].as_str().unwrap().contains("attempts"));
    assert!(fast.count() > 0, "{lines:#?}");

    let listener = refusing.listen();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            if read_request(&mut stream).await.is_ok() {
                let _ = stream.write_all(HELLO).await;
            }
        }
    });
    eventually("it is found again", || async {
        (get(&gateway).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_upstream_may_have_an_address_of_ipv6() {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let seen = read_request(&mut stream).await.unwrap();
            let host = seen.header("host").unwrap().to_owned();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{host}",
                host.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let gateway = Setup::new()
        .route(&format!(
            "gitspace = {GITSPACE:?}\nupstream = \"http://{address}\"\nowner = {OWNER:?}\nhost_header = \"upstream\""
        ))
        .start();
    assert_eq!(get(&gateway).await.text(), address.to_string());
}
