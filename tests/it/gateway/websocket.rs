//! WebSockets and other upgrades, until they end one way or another.

use std::time::Duration;

use cde_gateway::config::Timeout;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Request};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message, client::IntoClientRequest},
};

use crate::support::{
    Client, GITSPACE, HOST, Io, OWNER, Setup, TestGateway, Upstream, eventually, port_host,
    read_request, soon,
};

pub(super) type Socket = WebSocketStream<Box<dyn Io>>;

/// Gives every message back.
pub(super) async fn echo() -> Upstream {
    Upstream::scripted(|stream, _| async {
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                return;
            }
        }
    })
    .await
}

pub(super) fn request(token: &str) -> Request<()> {
    let mut request = format!("wss://{HOST}/socket?x=1")
        .into_client_request()
        .unwrap();
    let token = HeaderValue::from_str(token).unwrap();
    request.headers_mut().insert("x-gitspace-token", token);
    request
}

pub(super) async fn open(gateway: &TestGateway) -> Result<Socket, tungstenite::Error> {
    open_with(gateway, &gateway.owner()).await
}

pub(super) async fn open_with(
    gateway: &TestGateway,
    token: &str,
) -> Result<Socket, tungstenite::Error> {
    let stream = gateway.tls(HOST).await.into_stream();
    let opened = client_async(request(token), stream);
    Ok(soon("the handshake", opened).await?.0)
}

pub(super) async fn say(socket: &mut Socket, text: &str) {
    socket.send(Message::text(text)).await.unwrap();
    let back = soon("the message", socket.next()).await.unwrap().unwrap();
    assert_eq!(back.to_text().unwrap(), text);
}

/// Switches to a protocol of its own, then `serve` has the stream.
async fn switching<F>(serve: impl Fn(BufReader<TcpStream>) -> F + Send + Sync + 'static) -> Upstream
where
    F: Future<Output = ()> + Send + 'static,
{
    let serve = std::sync::Arc::new(serve);
    Upstream::scripted(move |stream, _| {
        let serve = std::sync::Arc::clone(&serve);
        async move {
            let mut stream = BufReader::new(stream);
            let request = read_request(&mut stream).await.unwrap();
            assert_eq!(request.header("connection"), Some("Upgrade"));
            assert_eq!(request.header("upgrade"), Some("raw"));
            stream
                .write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: raw\r\n\r\n")
                .await
                .unwrap();
            serve(stream).await;
        }
    })
    .await
}

async fn switched(gateway: &TestGateway) -> Client {
    let mut client = gateway.plain().await;
    let token = gateway.owner();
    let headers = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "raw"),
        ("x-gitspace-token", &token),
    ];
    client.begin("GET", "/", &headers, b"").await;
    assert_eq!(client.head().await.unwrap().status, 101);
    client
}

#[tokio::test]
async fn messages_pass_both_ways_over_tls() {
    let upstream = echo().await;
    let gateway = Setup::to(&upstream).start();
    let mut socket = open(&gateway).await.unwrap();
    for n in 0..100 {
        say(&mut socket, &format!("message {n}")).await;
    }
    socket.close(None).await.unwrap();
    while soon("the close", socket.next()).await.is_some() {}
    soon("the shutdown", socket.get_mut().shutdown())
        .await
        .unwrap();
    let line = gateway.account().await;
    assert_eq!(
        (&line["status"], &line["reason"]),
        (&101.into(), &"done".into())
    );
    assert_eq!(line["step"], "relay");
    assert!(line["received"].as_u64() > Some(1000) && line["sent"].as_u64() > Some(1000));
}

#[tokio::test]
async fn large_messages_pass_unchanged() {
    let upstream = echo().await;
    let gateway = Setup::to(&upstream).start();
    let mut socket = open(&gateway).await.unwrap();
    let data: Vec<u8> = (0..8_000_000u32).map(|n| (n / 255 + n) as u8).collect();
    socket.send(Message::binary(data.clone())).await.unwrap();
    let back = soon("the message", socket.next()).await.unwrap().unwrap();
    assert!(back.into_data() == data);
}

#[tokio::test]
async fn bytes_sent_at_once_after_the_head_are_not_lost() {
    let upstream = switching(|mut stream| async move {
        stream.write_all(b"early").await.unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        stream.write_all(&got).await.unwrap();
    })
    .await;
    let gateway = Setup::to(&upstream).start();
    let mut client = gateway.plain().await;
    client
        .send(format!(
            "GET / HTTP/1.1\r\nhost: {HOST}\r\nconnection: upgrade\r\nupgrade: raw\r\nx-gitspace-token: {}\r\n\r\nfirst",
            gateway.owner()
        ))
        .await;
    assert_eq!(client.head().await.unwrap().status, 101);
    assert_eq!(client.read_exact(5).await.unwrap(), b"early");
    client.shut().await;
    assert_eq!(client.closed().await, b"first");
}

#[tokio::test]
async fn each_way_closes_on_its_own() {
    let upstream = switching(|mut stream| async move {
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"all of it");
        stream.write_all(b"an answer after the end").await.unwrap();
    })
    .await;
    let gateway = Setup::to(&upstream).start();
    let mut client = switched(&gateway).await;
    client.send("all of it").await;
    client.shut().await;
    assert_eq!(client.closed().await, b"an answer after the end");
    let line = gateway.account().await;
    assert_eq!(
        (&line["reason"], &line["ended_by"]),
        (&"done".into(), &"both".into())
    );
    assert_eq!((&line["received"], &line["sent"]), (&9.into(), &23.into()));
}

#[tokio::test]
async fn an_app_may_decline() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let stream = gateway.tls(HOST).await.into_stream();
    match client_async(request(&gateway.owner()), stream).await {
        Err(tungstenite::Error::Http(answer)) => assert_eq!(answer.status(), 200),
        other => panic!("{:?}", other.map(|_| ())),
    }
    let line = gateway.account().await;
    assert_eq!(
        (&line["status"], &line["reason"]),
        (&200.into(), &"done".into())
    );
}

#[tokio::test]
async fn an_idle_stream_ends() {
    let upstream = echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.timeouts.tunnel_idle = Timeout::After(Duration::from_millis(800)))
        .start();
    let mut socket = open(&gateway).await.unwrap();
    say(&mut socket, "hello").await;
    while soon("the end", socket.next())
        .await
        .is_some_and(|next| next.is_ok())
    {}
    let line = gateway.account().await;
    assert_eq!(
        (&line["reason"], &line["ended_by"]),
        (&"idle".into(), &"gateway".into())
    );
}

#[tokio::test]
async fn a_stream_ends_with_its_lifetime() {
    let upstream = echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.timeouts.tunnel_lifetime = Timeout::After(Duration::from_millis(200)))
        .start();
    let mut socket = open(&gateway).await.unwrap();
    while socket.send(Message::text("still here")).await.is_ok() {
        match soon("an echo or the end", socket.next()).await {
            Some(Ok(_)) => {}
            _ => break,
        }
    }
    assert_eq!(gateway.account().await["reason"], "lifetime");
}

#[tokio::test]
async fn who_went_away_is_told_apart() {
    let upstream = echo().await;
    let gateway = Setup::to(&upstream).start();
    let mut socket = open(&gateway).await.unwrap();
    say(&mut socket, "hello").await;
    // Without TLS's close and WebSocket's, over a socket that resets.
    drop(socket);
    let line = gateway.account().await;
    assert!(
        line["reason"] == "client-gone" || line["reason"] == "done",
        "{line}"
    );

    let upstream = switching(|stream| async move {
        let stream = stream.into_inner();
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    })
    .await;
    let gateway = Setup::to(&upstream).start();
    let mut client = switched(&gateway).await;
    client.closed().await;
    let line = gateway.account().await;
    assert_eq!(
        (&line["reason"], &line["ended_by"]),
        (&"gitspace-broke".into(), &"gitspace".into())
    );
}

#[tokio::test]
async fn streams_of_a_principal_are_counted_until_they_end() {
    let upstream = echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.limits.streams_per_principal = 1)
        .start();
    let mut first = open(&gateway).await.unwrap();
    say(&mut first, "hello").await;
    match open(&gateway).await {
        Err(tungstenite::Error::Http(answer)) => {
            assert_eq!(answer.status(), 429);
            let status = answer.headers()["proxy-status"].to_str().unwrap();
            assert!(status.contains("too-many-streams"), "{status}");
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
    drop(first);
    eventually("the permit is back", || async { open(&gateway).await.ok() }).await;
}

/// What VS Code's Node client asks for: no version, and with `skipWebSocketFrames` bytes without frames. It may leave out Host where the
/// target is absolute (RFC 9112 §3.2.2 wants one; the client does not).
const NODE: [&str; 4] = [
    "GET http://{host}/stable-1?reconnectionToken=t&skipWebSocketFrames=true HTTP/1.1\r\n",
    "GET ws://{host}/stable-1?reconnectionToken=t&skipWebSocketFrames=true HTTP/1.1\r\n",
    "GET ws://{host}/stable-1?reconnectionToken=t&skipWebSocketFrames=true HTTP/1.1\r\nHost: {host}\r\n",
    "GET /stable-1?reconnectionToken=t&skipWebSocketFrames=true HTTP/1.1\r\nHost: {host}\r\n",
];

/// Asks as that client does, with a first byte behind the head in the same write.
async fn as_node(gateway: &TestGateway, head: &str) -> Client {
    let mut client = gateway.plain().await;
    let head = head.replace("{host}", HOST);
    let token = gateway.owner();
    client
        .send(format!(
            "{head}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Gitspace-Token: {token}\r\n\r\n!"
        ))
        .await;
    client
}

/// Looks at such a request, switches with bytes in the same write, and gives back what comes.
async fn without_frames() -> Upstream {
    Upstream::scripted(|stream, _| async {
        let mut stream = BufReader::new(stream);
        let request = read_request(&mut stream).await.unwrap();
        assert_eq!(
            request.target,
            "/stable-1?reconnectionToken=t&skipWebSocketFrames=true"
        );
        assert_eq!(request.header("host"), Some(HOST));
        assert_eq!(request.header("sec-websocket-version"), None);
        let key = request.header("sec-websocket-key");
        assert_eq!(key, Some("dGhlIHNhbXBsZSBub25jZQ=="));
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nearly")
            .await
            .unwrap();
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            stream.write_all(&buffer[..count]).await.unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn handshakes_of_vs_codes_node_client_pass_one_by_one() {
    let upstream = without_frames().await;
    let every: Vec<u8> = (0..=u8::MAX).collect();
    for head in NODE {
        let gateway = Setup::to(&upstream).start();
        let mut client = as_node(&gateway, head).await;
        assert_eq!(client.head().await.unwrap().status, 101, "{head}");
        assert_eq!(client.read_exact(6).await.unwrap(), b"early!", "{head}");
        client.send(&every).await;
        assert_eq!(client.read_exact(256).await.unwrap(), every, "{head}");
        client.shut().await;
        assert_eq!(client.closed().await, b"", "{head}");
        assert_eq!(gateway.account().await["reason"], "done");
    }
}

#[tokio::test]
async fn nothing_is_put_into_a_stream_without_frames() {
    let upstream = without_frames().await;
    let gateway = Setup::to(&upstream).start();
    let mut client = as_node(&gateway, NODE[0]).await;
    assert_eq!(client.head().await.unwrap().status, 101);
    assert_eq!(client.read_exact(6).await.unwrap(), b"early!");
    // What a whole frame would look like.
    client.send(b"\x82\x01a").await;
    assert_eq!(client.read_exact(3).await.unwrap(), b"\x82\x01a");
    let revocation = serde_json::json!({ "kind": "gitspace", "id": GITSPACE, "by": "root" });
    gateway
        .admin(http::Method::POST, "/v1/revocations", Some(revocation))
        .await;
    assert_eq!(client.closed().await, b"");
    assert_eq!(gateway.account().await["reason"], "access-ended");
}

#[tokio::test]
async fn a_port_switches_to_websockets_and_to_what_it_has_beside_them() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.setup.issuer.token(OWNER);
    for (host, offered, passed) in [
        (HOST.to_owned(), "raw", Some("raw")),
        (
            HOST.to_owned(),
            "RAW, websocket, other",
            Some("RAW, websocket"),
        ),
        (port_host(3000), "raw", None),
        (port_host(3000), "raw, WebSocket", Some("WebSocket")),
        (port_host(3000), "h2c", None),
    ] {
        let headers = [
            ("connection", "upgrade"),
            ("upgrade", offered),
            ("x-gitspace-token", &*token),
        ];
        let answer = gateway.plain().await.to(&host).get("/", &headers).await;
        assert_eq!(answer.status, 200);
        assert_eq!(upstream.last().header("upgrade"), passed, "{offered}");
    }
}
