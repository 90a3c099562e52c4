//! Upstreams that fail in every way that HTTP/1.1 allows and forbids: each ends in an answer of ours, in time.
//!
//! Not here: what goes wrong behind the head of an answer (`cuts`).

use std::{net::SocketAddr, time::Duration};

use cde_gateway::config::Timeout;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::support::{
    Answer, GITSPACE, HOST, OWNER, Refusing, Setup, TestGateway, Upstream, read_request, soon,
};

pub(super) const SHORT: Duration = Duration::from_millis(300);

/// What the peer does after it has written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Then {
    Hold,
    Close,
    Reset,
}

async fn end(stream: &mut BufReader<TcpStream>, then: Then) {
    match then {
        Then::Hold => {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        Then::Close => {}
        Then::Reset => socket2::SockRef::from(stream.get_ref())
            .set_linger(Some(Duration::ZERO))
            .unwrap(),
    }
}

/// Reads a request, writes this and then does that.
pub(super) async fn faulty(answer: Vec<u8>, then: Then) -> Upstream {
    Upstream::scripted(move |stream, _| {
        let answer = answer.clone();
        async move {
            let mut stream = BufReader::new(stream);
            if read_request(&mut stream).await.is_ok() {
                // The gateway may have had enough of it.
                let _ = stream.write_all(&answer).await;
                end(&mut stream, then).await;
            }
        }
    })
    .await
}

async fn get(gateway: &TestGateway) -> Answer {
    let token = gateway.owner();
    let mut client = gateway.plain().await;
    client.get("/", &[("x-gitspace-token", &token)]).await
}

#[track_caller]
fn is(answer: &Answer, status: u16, reason: &str, error: &str, name: &str) {
    assert_eq!(answer.refusal(), (status, reason.into()), "{name}");
    let told = answer.header("proxy-status").unwrap();
    assert!(
        told.starts_with(&format!("cde-gateway; error={error};")),
        "{name}: {told}"
    );
}

/// The answer is refused, whatever its peer does next, and its account blames the gitspace.
async fn refused(answer: impl Into<Vec<u8>>, then: Then, error: &str) {
    let bytes = answer.into();
    let name = bytes.escape_ascii().to_string();
    let name = format!("{} then {then:?}", name.get(..120).unwrap_or(&name));
    let upstream = faulty(bytes, then).await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.workers = 1)
        .start();
    is(&get(&gateway).await, 502, "gitspace-broke", error, &name);
    let line = gateway.account().await;
    assert_eq!(line["ended_by"], "gitspace", "{name}");
    assert_eq!(line["step"], "forward", "{name}");
    assert_eq!(upstream.connections(), 1, "{name}: tried twice");
}

#[tokio::test]
async fn what_is_not_http_1_is_refused_by_its_first_bytes() {
    for nonsense in [
        "SSH-2.0-OpenSSH_9.9\r\n",
        "<html>HTTP/0.9</html>",
        "\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "junkHTTP/1.1 101 Switching Protocols\r\nupgrade: raw\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 -200 OK\r\n\r\n",
        "HTTP/1.1 200\tOK\r\n\r\n",
        "HTTP/1.1 200OK\r\n\r\n",
        "HTTP/1.1\r\n\r\n",
    ] {
        refused(nonsense, Then::Hold, "http_protocol_error").await;
    }
}

#[tokio::test]
async fn a_head_that_could_split_an_answer_is_refused() {
    for field in [
        "x: a\nset-cookie: evil=1\r\n",
        "x: a\rset-cookie: evil=1\r\n",
        "x: a\0b\r\n",
        "x: a\r\n set-cookie: evil=1\r\n",
        "x: a\r\n\tb\r\n",
        "no colon\r\n",
        "x : y\r\n",
        ": y\r\n",
        "x\0: y\r\n",
        "x\u{7f}: y\r\n",
        "x: a\x01b\r\n",
    ] {
        let head = format!("HTTP/1.1 200 OK\r\n{field}content-length: 5\r\n\r\nhello");
        refused(head, Then::Hold, "http_protocol_error").await;
    }
    let head = "HTTP/1.1 200 O\x01K\r\ncontent-length: 0\r\n\r\n";
    refused(head, Then::Hold, "http_protocol_error").await;
    let head = "HTTP/1.1 200 OK\ncontent-length: 5\n\nhello";
    refused(head, Then::Hold, "http_protocol_error").await;
}

#[tokio::test]
async fn an_answer_whose_end_can_be_read_in_two_ways_is_refused() {
    for (fields, error) in [
        (
            "content-length: 5\r\ncontent-length: 6\r\n",
            "http_protocol_error",
        ),
        (
            "content-length: 5\r\ncontent-length: 5\r\n",
            "http_protocol_error",
        ),
        ("content-length: 5, 5\r\n", "http_protocol_error"),
        ("content-length: 5, 6\r\n", "http_protocol_error"),
        ("content-length: -1\r\n", "http_protocol_error"),
        ("content-length: +5\r\n", "http_protocol_error"),
        ("content-length: 0x5\r\n", "http_protocol_error"),
        ("content-length: five\r\n", "http_protocol_error"),
        ("content-length:\r\n", "http_protocol_error"),
        (
            "content-length: 18446744073709551616\r\n",
            "http_protocol_error",
        ),
        (
            "content-length: 99999999999999999999999999\r\n",
            "http_protocol_error",
        ),
        (
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            "http_protocol_error",
        ),
        (
            "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
            "http_protocol_error",
        ),
        (
            "transfer-encoding: gzip, chunked\r\n",
            "http_response_transfer_coding",
        ),
        (
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            "http_response_transfer_coding",
        ),
        (
            "transfer-encoding: xchunked\r\n",
            "http_response_transfer_coding",
        ),
        (
            "transfer-encoding: identity\r\n",
            "http_response_transfer_coding",
        ),
        (
            "transfer-encoding: chunked, identity\r\n",
            "http_response_transfer_coding",
        ),
        ("transfer-encoding:\r\n", "http_response_transfer_coding"),
    ] {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n5\r\nhello\r\n0\r\n\r\n");
        refused(head, Then::Hold, error).await;
    }
    let old = "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    refused(old, Then::Close, "http_protocol_error").await;
}

#[tokio::test]
async fn a_head_beyond_its_bounds_is_refused() {
    let section = "http_response_header_section_size";
    let many = |count: usize| {
        let fields: String = (0..count)
            .map(|number| format!("x-{number}: y\r\n"))
            .collect();
        format!("HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n")
    };
    refused(many(20_000), Then::Hold, section).await;
    refused(many(100), Then::Hold, section).await;
    let tiny = format!("HTTP/1.1 200 OK\r\n{}", "a:\r\n".repeat(200));
    refused(tiny, Then::Hold, section).await;
    let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(70_000));
    refused(long, Then::Hold, section).await;
    let reason = format!("HTTP/1.1 200 {}", "y".repeat(70_000));
    refused(reason, Then::Hold, section).await;
    let interim = "HTTP/1.1 102 Processing\r\n\r\n".repeat(1000);
    refused(interim, Then::Hold, section).await;

    let upstream = faulty(many(90).into(), Then::Hold).await;
    let gateway = Setup::to(&upstream).start();
    let answer = get(&gateway).await;
    assert_eq!((answer.status, answer.header("x-89")), (200, Some("y")));
}

#[tokio::test]
async fn a_connection_that_ends_before_the_answers_head_does_is_told_apart() {
    for then in [Then::Close, Then::Reset] {
        refused("", then, "connection_terminated").await;
    }
    for half in [
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
    ] {
        refused(half, Then::Close, "http_response_incomplete").await;
    }
}

#[tokio::test]
async fn a_switch_to_something_else_is_refused() {
    let upgrade = "http_upgrade_failed";
    let unasked =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: evil\r\n\r\n";
    refused(unasked, Then::Hold, upgrade).await;
    for other in [
        "upgrade: evil\r\n",
        "upgrade: raw, evil\r\n",
        "upgrade: h2c\r\n",
        "",
    ] {
        let head =
            format!("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n{other}\r\n");
        let upstream = faulty(head.into(), Then::Hold).await;
        let gateway = Setup::to(&upstream).start();
        let token = gateway.owner();
        let headers = [
            ("x-gitspace-token", &*token),
            ("connection", "upgrade"),
            ("upgrade", "raw"),
        ];
        let answer = gateway.plain().await.get("/", &headers).await;
        is(&answer, 502, "gitspace-broke", upgrade, other);
    }
}

#[tokio::test]
async fn another_version_of_http_is_never_switched_to() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    let headers = [
        ("x-gitspace-token", &*token),
        ("connection", "upgrade, http2-settings"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
    ];
    let answer = gateway.plain().await.get("/", &headers).await;
    assert_eq!((answer.status, answer.text()), (200, "hello"));
    let seen = upstream.last();
    assert_eq!(seen.header("upgrade"), None);
    assert_eq!(seen.header("http2-settings"), None);
    assert_eq!(seen.header("connection"), None);
}

#[tokio::test]
async fn a_refused_switch_arrives_with_its_body() {
    let refusal = "HTTP/1.1 403 Forbidden\r\nx-why: no\r\ncontent-length: 2\r\n\r\nno";
    let upstream = Upstream::always(refusal).await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    let headers = [
        ("x-gitspace-token", &*token),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
    ];
    let mut client = gateway.plain().await;
    for _ in 0..2 {
        let answer = client.get("/", &headers).await;
        assert_eq!((answer.status, answer.text()), (403, "no"));
        assert_eq!(answer.header("x-why"), Some("no"));
    }
}

fn to(address: SocketAddr) -> Setup {
    Setup::new().route(&format!(
        "gitspace = {GITSPACE:?}\nupstream = \"http://{address}\"\nowner = {OWNER:?}"
    ))
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_is_told_apart() {
    let refusing = Refusing::new();
    let gateway = to(refusing.address()).start();
    let answer = get(&gateway).await;
    is(
        &answer,
        502,
        "nothing-listens",
        "connection_refused",
        "refused",
    );

    // Whoever comes after the first two is not answered.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let connected = TcpStream::connect(address);
        if let Ok(connected) = tokio::time::timeout(SHORT, connected).await {
            waiting.push(connected.unwrap());
        }
    }
    let gateway = to(address)
        .with(|config| config.timeouts.connect = SHORT)
        .start();
    let answer = get(&gateway).await;
    is(
        &answer,
        504,
        "gitspace-timeout",
        "connection_timeout",
        "full",
    );
}

#[tokio::test]
async fn silence_and_drops_of_a_head_end_in_time() {
    let silent = faulty(Vec::new(), Then::Hold).await;
    let dripping = Upstream::scripted(|stream, _| async {
        let mut stream = BufReader::new(stream);
        read_request(&mut stream).await.unwrap();
        let head = b"HTTP/1.1 200 OK\r\nx: "
            .iter()
            .chain([b'y'].iter().cycle());
        for byte in head {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(SHORT / 20).await;
        }
    })
    .await;
    let interim = Upstream::scripted(|stream, _| async {
        let mut stream = BufReader::new(stream);
        read_request(&mut stream).await.unwrap();
        while stream
            .write_all(b"HTTP/1.1 102 Processing\r\n\r\n")
            .await
            .is_ok()
        {
            tokio::time::sleep(SHORT / 4).await;
        }
    })
    .await;
    for upstream in [silent, dripping, interim] {
        let gateway = Setup::to(&upstream)
            .with(|config| config.timeouts.response_head = Timeout::After(SHORT))
            .start();
        let answer = get(&gateway).await;
        is(
            &answer,
            504,
            "gitspace-timeout",
            "http_response_timeout",
            "late",
        );
    }
}

#[tokio::test]
async fn an_upload_that_its_upstream_does_not_take_ends_in_time() {
    let upstream = Upstream::scripted(|stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.timeouts.body_idle = Timeout::After(SHORT))
        .start();
    let token = gateway.owner();
    let mut client = gateway.plain().await;
    let head = format!(
        "POST / HTTP/1.1\r\nhost: {HOST}\r\nx-gitspace-token: {token}\r\ncontent-length: 1000000000\r\n\r\n"
    );
    client.send(head).await;
    let (mut reader, mut writer) = tokio::io::split(client.into_stream());
    let upload =
        tokio::spawn(async move { while writer.write_all(&[b'x'; 65536]).await.is_ok() {} });
    let mut answer = vec![0; 12];
    soon("an answer", reader.read_exact(&mut answer))
        .await
        .unwrap();
    assert_eq!(answer, b"HTTP/1.1 504");
    upload.abort();
}

#[tokio::test]
async fn a_client_that_stalls_its_upload_is_blamed_whatever_deadline_is_shorter() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| {
            config.timeouts.response_head = Timeout::After(SHORT / 3);
            config.timeouts.body_idle = Timeout::After(SHORT);
        })
        .start();
    let mut client = gateway.plain().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nhost: {HOST}\r\nx-gitspace-token: {}\r\ncontent-length: 10\r\n\r\nhalf",
            gateway.owner()
        ))
        .await;
    let answer = client.answer().await.unwrap();
    assert_eq!(answer.refusal(), (408, "body-timeout".into()));
}
