//! Upstreams that speak HTTP/2 in the clear: what they get, and what they cannot do to us.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cde_gateway::config::{self, Timeout};
use http::{HeaderMap, HeaderValue, Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Semaphore,
};

use crate::support::{
    Answer, GITSPACE, H2, HOST, Kind, OWNER, Peer, Setup, TestGateway, Upstream, eventually,
};

fn setup(address: std::net::SocketAddr) -> Setup {
    Setup::new()
        .with(|config| config.workers = 1)
        .route(&format!(
            "gitspace = {GITSPACE:?}\nupstream = \"h2c://{address}\"\nowner = {OWNER:?}"
        ))
}

async fn get(gateway: &TestGateway) -> Answer {
    let token = gateway.owner();
    gateway
        .plain()
        .await
        .get("/", &[("x-gitspace-token", &token)])
        .await
}

#[tokio::test]
async fn a_request_of_http1_becomes_one_of_http2() {
    let peer = Peer::echo(Kind::h2c()).await;
    let gateway = setup(peer.address).start();
    let token = gateway.owner();
    let headers = [
        ("x-gitspace-token", token.as_str()),
        ("connection", "keep-alive, x-mine"),
        ("keep-alive", "timeout=5"),
        ("x-mine", "1"),
        ("te", "trailers, deflate"),
        ("x-app", "kept"),
    ];
    let answer = gateway
        .plain()
        .await
        .request("POST", "/a//b?c=%2f&d", &headers, b"body")
        .await;
    assert_eq!((answer.status, answer.text()), (200, "body"));
    let seen = peer.last();
    assert_eq!(seen.version, Version::HTTP_2);
    assert_eq!(seen.uri.to_string(), format!("http://{HOST}/a//b?c=%2f&d"));
    assert_eq!(seen.headers["te"], "trailers");
    assert_eq!(seen.headers["x-app"], "kept");
    assert_eq!(seen.headers["content-length"], "4");
    assert_eq!(seen.headers["x-gitspace-user"], OWNER);
    for gone in [
        "host",
        "connection",
        "keep-alive",
        "x-mine",
        "transfer-encoding",
        "upgrade",
    ] {
        assert!(!seen.headers.contains_key(gone), "{gone}");
    }
}

#[tokio::test]
async fn the_authority_is_the_host_that_the_port_wants() {
    let peer = Peer::echo(Kind::h2c()).await;
    for (host_header, expected) in [
        ("public", HOST.to_owned()),
        ("localhost", format!("localhost:{}", peer.address.port())),
        ("upstream", peer.address.to_string()),
    ] {
        let gateway = Setup::new()
            .route(&format!(
                "gitspace = {GITSPACE:?}\nupstream = \"h2c://{}\"\nowner = {OWNER:?}\nhost_header = {host_header:?}",
                peer.address
            ))
            .start();
        assert_eq!(get(&gateway).await.status, 200);
        assert_eq!(peer.last().uri.authority().unwrap().as_str(), expected);
    }
}

#[tokio::test]
async fn requests_share_a_connection() {
    let gate = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&gate);
    let peer = Peer::serving(Kind::h2c(), move |_| {
        let wait = Arc::clone(&wait);
        async move {
            wait.acquire().await.unwrap().forget();
            Response::new(BoxBody::default())
        }
    })
    .await;
    let gateway = setup(peer.address).start();
    let requests: Vec<_> = (0..50).map(|_| start(&gateway)).collect();
    eventually("all have come", || async {
        (peer.seen().len() == 50).then_some(())
    })
    .await;
    assert_eq!(peer.connections(), 1);
    gate.add_permits(50);
    for request in requests {
        assert_eq!(request.await.unwrap().status, 200);
    }
}

fn start(gateway: &TestGateway) -> tokio::task::JoinHandle<Answer> {
    let (token, address) = (gateway.owner(), gateway.http);
    tokio::spawn(async move {
        crate::support::Client::plain(address)
            .await
            .get("/", &[("x-gitspace-token", &token)])
            .await
    })
}

#[tokio::test]
async fn more_requests_than_a_connection_takes_go_over_several_up_to_the_bound() {
    let gate = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&gate);
    let peer = Peer::serving(Kind::h2c().streams(2), move |_| {
        let wait = Arc::clone(&wait);
        async move {
            wait.acquire().await.unwrap().forget();
            Response::new(BoxBody::default())
        }
    })
    .await;
    let gateway = setup(peer.address)
        .with(|config| config.upstreams.max_connections = 3)
        .start();
    let requests: Vec<_> = (0..6).map(|_| start(&gateway)).collect();
    eventually("all have come", || async {
        (peer.seen().len() == 6).then_some(())
    })
    .await;
    assert_eq!(peer.connections(), 3);
    let answer = get(&gateway).await;
    assert_eq!(answer.refusal(), (503, "overloaded".into()));
    let seventh = start(&gateway);
    gate.add_permits(7);
    for request in requests.into_iter().chain([seventh]) {
        assert_eq!(request.await.unwrap().status, 200);
    }
    assert_eq!(peer.connections(), 3);
}

#[tokio::test]
async fn trailers_of_http2_come_in_chunks_to_http1() {
    let peer = Peer::serving(Kind::h2c(), |_| async {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("42"));
        let frames = [
            Ok(Frame::data(Bytes::from_static(b"hello"))),
            Ok(Frame::trailers(trailers)),
        ];
        Response::builder()
            .header("trailer", "x-sum")
            .body(StreamBody::new(futures_util::stream::iter(frames)).boxed())
            .unwrap()
    })
    .await;
    let gateway = setup(peer.address).start();
    let token = gateway.owner();
    let mut client = gateway.plain().await;
    let headers = [
        ("x-gitspace-token", token.as_str()),
        ("te", "trailers"),
        ("connection", "te, close"),
    ];
    client.begin("GET", "/", &headers, b"").await;
    let head = client.head().await.unwrap();
    assert_eq!(head.header("transfer-encoding"), Some("chunked"));
    let rest = String::from_utf8(client.closed().await).unwrap();
    assert_eq!(rest, "5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n");
}

#[tokio::test]
async fn an_answer_of_http2_has_the_framing_of_the_clients_version() {
    let peer = Peer::serving(Kind::h2c(), |request| async move {
        let status = request.uri().path()[1..].parse().unwrap_or(200);
        let body = match status {
            200 => Full::new(Bytes::from_static(b"hello")).boxed(),
            _ => BoxBody::default(),
        };
        Response::builder().status(status).body(body).unwrap()
    })
    .await;
    let gateway = setup(peer.address).start();
    let token = gateway.owner();
    let mut client = gateway.plain().await;
    for (method, path, status) in [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("GET", "/204", 204),
        ("GET", "/304", 304),
        ("GET", "/", 200),
    ] {
        let answer = client
            .request(method, path, &[("x-gitspace-token", &token)], b"")
            .await;
        assert_eq!(answer.status, status);
        let expected = if (method, status) == ("GET", 200) {
            "hello"
        } else {
            ""
        };
        assert_eq!(answer.text(), expected);
    }
    let mut h2 = H2::connect(&gateway, HOST).await;
    let url = format!("https://{HOST}/");
    let answer = h2
        .request("GET", &url, &[("x-gitspace-token", &token)], b"")
        .await;
    assert_eq!(answer.body().as_ref(), b"hello");
}

#[tokio::test]
async fn an_upgrade_is_not_offered_where_there_is_none() {
    let peer = Peer::echo(Kind::h2c()).await;
    let gateway = setup(peer.address).start();
    let token = gateway.owner();
    let headers = [
        ("x-gitspace-token", token.as_str()),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
    ];
    let answer = gateway.plain().await.get("/", &headers).await;
    assert_eq!((answer.status, answer.text()), (200, "hello"));
    assert!(!peer.last().headers.contains_key("upgrade"));
}

#[tokio::test]
async fn an_upstream_that_speaks_no_http2_broke() {
    let upstream = Upstream::always("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    let gateway = setup(upstream.address)
        .with(|config| config.timeouts.response_head = Timeout::After(Duration::from_secs(2)))
        .start();
    assert_eq!(
        get(&gateway).await.refusal(),
        (502, "gitspace-broke".into())
    );
}

/// Frames by hand: length, type, flags, stream.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

/// An upstream that sends its settings, reads what comes first, sends these bytes and then only reads.
async fn raw(bytes: Vec<u8>) -> Upstream {
    Upstream::scripted(move |mut stream, _| {
        let bytes = bytes.clone();
        async move {
            let _ = stream.write_all(&frame(SETTINGS, 0, 0, &[])).await;
            until_headers(&mut stream).await;
            let _ = stream.write_all(&bytes).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await
}

/// Reads the preface and frames until the head of a request has come.
async fn until_headers(stream: &mut tokio::net::TcpStream) {
    let _ = stream.read_exact(&mut [0; 24]).await;
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let _ = stream.read_exact(&mut vec![0; length]).await;
        if head[3] == HEADERS {
            return;
        }
    }
}

async fn answer_to(bytes: Vec<u8>, change: impl FnOnce(&mut config::Gateway)) -> Answer {
    let upstream = raw(bytes).await;
    let gateway = setup(upstream.address)
        .with(|config| {
            config.timeouts.response_head = Timeout::After(Duration::from_secs(3));
            change(config);
        })
        .start();
    get(&gateway).await
}

#[tokio::test]
async fn a_head_without_end_is_not_kept() {
    // `:status 200`, then literal fields without indexing, over and over.
    let mut field = vec![0x00, 0x01, b'x', 0x7f, 0x80, 0x07];
    field.extend([b'y'; 127 + (7 << 7)]);
    let mut bytes = frame(HEADERS, 0, 1, &[0x88]);
    for _ in 0..400 {
        bytes.extend(frame(CONTINUATION, 0, 1, &field));
    }
    let answer = answer_to(bytes, |_| {}).await;
    assert_eq!(answer.refusal(), (502, "gitspace-broke".into()));
}

#[tokio::test]
async fn thousands_of_small_fields_are_refused() {
    // One indexed field (accept-encoding, static table) a byte.
    let mut block = vec![0x88];
    block.extend([0x90; 500]);
    let answer = answer_to(frame(HEADERS, 0x4 | 0x1, 1, &block), |_| {}).await;
    assert_eq!(answer.refusal(), (502, "gitspace-broke".into()));
}

#[tokio::test]
async fn a_switch_of_protocols_is_no_answer_of_http2() {
    // `:status` literal with the static name 8.
    let block = [0x08, 0x03, b'1', b'0', b'1'];
    let answer = answer_to(frame(HEADERS, 0x4 | 0x1, 1, &block), |_| {}).await;
    assert!(matches!(answer.status, 502 | 504), "{answer:?}");
}

#[tokio::test]
async fn a_stream_that_is_reset_broke() {
    let internal = 2_u32.to_be_bytes();
    let answer = answer_to(frame(RST_STREAM, 0, 1, &internal), |_| {}).await;
    assert_eq!(answer.refusal(), (502, "gitspace-broke".into()));
}

#[tokio::test]
async fn a_get_that_was_refused_unseen_on_a_used_connection_is_sent_again() {
    let upstream = Upstream::scripted(|mut stream, connection| async move {
        let _ = stream.write_all(&frame(SETTINGS, 0, 0, &[])).await;
        until_headers(&mut stream).await;
        let _ = stream
            .write_all(&frame(HEADERS, 0x4 | 0x1, 1, &[0x88]))
            .await;
        if connection == 0 {
            let mut rest = vec![0; 9];
            // The acknowledged settings lie between; the next head is stream 3.
            loop {
                if stream.read_exact(&mut rest).await.is_err() {
                    return;
                }
                let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
                let _ = stream.read_exact(&mut vec![0; length]).await;
                if rest[3] == HEADERS {
                    break;
                }
            }
            let mut gone = 1_u32.to_be_bytes().to_vec();
            gone.extend(0_u32.to_be_bytes());
            let _ = stream.write_all(&frame(GOAWAY, 0, 0, &gone)).await;
        }
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let gateway = setup(upstream.address).start();
    assert_eq!(get(&gateway).await.status, 200);
    assert_eq!(get(&gateway).await.status, 200);
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn streams_of_a_target_that_changed_end_at_once() {
    let peer = Peer::serving(Kind::h2c(), |_| std::future::pending()).await;
    let setup = setup(peer.address);
    let gateway = setup.start();
    let request = start(&gateway);
    eventually("the request came", || async {
        (!peer.seen().is_empty()).then_some(())
    })
    .await;
    let mut moved = setup.settings.clone();
    moved.routes[0].upstream = "h2c://127.0.0.1:1".into();
    gateway.handle.reload(&moved).unwrap();
    let answer = request.await.unwrap();
    assert_eq!(answer.refusal(), (503, "target-changed".into()));
}

#[tokio::test]
async fn a_connection_that_fell_silent_gets_no_more_requests() {
    let upstream = Upstream::scripted(|mut stream, _| async move {
        let _ = stream.write_all(&frame(SETTINGS, 0, 0, &[])).await;
        until_headers(&mut stream).await;
        let _ = stream
            .write_all(&frame(HEADERS, 0x4 | 0x1, 1, &[0x88]))
            .await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let gateway = setup(upstream.address)
        .with(|config| {
            config.timeouts.response_head = Timeout::After(Duration::from_millis(300));
        })
        .start();
    assert_eq!(get(&gateway).await.status, 200);
    assert_eq!(
        get(&gateway).await.refusal(),
        (504, "gitspace-timeout".into())
    );
    assert_eq!(
        get(&gateway).await.status,
        200,
        "on a connection of its own"
    );
    assert_eq!(upstream.connections(), 2);
}
