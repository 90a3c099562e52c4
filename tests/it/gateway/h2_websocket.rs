//! WebSockets over HTTP/2 (RFC 8441), bridged to upgrades of HTTP/1.1.

use std::time::Duration;

use bytes::Bytes;
use cde_gateway::config::Timeout;
use futures_util::{SinkExt, StreamExt};
use http::{Method, Response};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

use super::{access, websocket::echo};
use crate::support::{
    GITSPACE, H2, HOST, Outcome, RawH2, Seen, Setup, TestGateway, Upstream, eventually,
    raw_h2::{code::PROTOCOL_ERROR, flag, kind, literal},
    read_request, soon,
};

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A connection whose settings have come: one request was answered.
async fn connected(gateway: &TestGateway) -> H2 {
    let mut client = H2::connect(gateway, HOST).await;
    let url = format!("https://{HOST}/_gitspace/none");
    client.request("GET", &url, &[], b"").await;
    client
}

async fn ask(
    client: &mut H2,
    gateway: &TestGateway,
    more: &[(&str, &str)],
) -> Result<(Response<()>, TokioIo<Upgraded>), Response<Bytes>> {
    let token = gateway.owner();
    let ours = [
        ("x-gitspace-token", &*token),
        ("sec-websocket-version", "13"),
    ];
    let headers = [&ours, more].concat();
    let url = format!("https://{HOST}/socket?x=1");
    client.connect_to("websocket", &url, &headers).await
}

async fn open(client: &mut H2, gateway: &TestGateway) -> Socket {
    let (_, stream) = ask(client, gateway, &[]).await.unwrap();
    WebSocketStream::from_raw_socket(stream, Role::Client, None).await
}

async fn say(socket: &mut Socket, text: &str) {
    socket.send(Message::text(text)).await.unwrap();
    let back = soon("the message", socket.next()).await.unwrap().unwrap();
    assert_eq!(back.to_text().unwrap(), text);
}

async fn told_to_go(socket: &mut Socket) -> (u16, String) {
    match soon("the end", socket.next()).await {
        Some(Ok(Message::Close(Some(frame)))) => (frame.code.into(), frame.reason.to_string()),
        other => panic!("{other:?}"),
    }
}

/// Answers a request for a WebSocket with what `answer` makes of it, and then gives everything back.
async fn answering(answer: impl Fn(&Seen) -> String + Send + Sync + 'static) -> Upstream {
    let answer = std::sync::Arc::new(answer);
    Upstream::scripted(move |stream, _| {
        let answer = std::sync::Arc::clone(&answer);
        async move {
            let mut stream = BufReader::new(stream);
            let request = read_request(&mut stream).await.unwrap();
            stream.write_all(answer(&request).as_bytes()).await.unwrap();
            let mut got = Vec::new();
            let _ = stream.read_to_end(&mut got).await;
            let _ = stream.write_all(&got).await;
        }
    })
    .await
}

fn switching(more: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n{more}\r\n"
    )
}

fn accepting(request: &Seen, more: &str) -> String {
    let key = request.header("sec-websocket-key").unwrap();
    let accept = derive_accept_key(key.as_bytes());
    switching(&format!("sec-websocket-accept: {accept}\r\n{more}"))
}

#[tokio::test]
async fn several_on_one_connection_pass_messages_beside_requests() {
    let upstream = echo().await;
    let gateway = Setup::to(&upstream).start();
    let mut client = connected(&gateway).await;
    let mut first = open(&mut client, &gateway).await;
    let mut second = open(&mut client, &gateway).await;
    for n in 0..50 {
        say(&mut first, &format!("message {n}")).await;
        say(&mut second, &format!("other {n}")).await;
    }
    let data: Vec<u8> = (0..4_000_000u32).map(|n| (n / 255 + n) as u8).collect();
    let (mut sender, mut receiver) = first.split();
    let sent = data.clone();
    let sending = tokio::spawn(async move {
        sender.send(Message::binary(sent)).await.unwrap();
        sender
    });
    let url = format!("https://{HOST}/_gitspace/none");
    assert_eq!(client.request("GET", &url, &[], b"").await.status(), 404);
    let back = soon("the message", receiver.next()).await.unwrap().unwrap();
    assert!(back.into_data() == data);
    let sender = soon("the sender", sending).await.unwrap();
    say(&mut second, "still").await;
    let first = sender.reunite(receiver).unwrap();
    for mut socket in [first, second] {
        socket.close(None).await.unwrap();
        while soon("the close", socket.next()).await.is_some() {}
    }
    let mut lines = gateway.accounted(4).await;
    lines.retain(|line| line["step"] == "relay");
    assert_eq!(lines.len(), 2);
    for line in lines {
        let (status, reason) = (&line["status"], &line["reason"]);
        assert_eq!((status, reason), (&200.into(), &"done".into()));
        assert_eq!(line["protocol"], "h2");
        assert!(line["received"].as_u64() > Some(400) && line["sent"].as_u64() > Some(400));
    }
}

#[tokio::test]
async fn the_gitspace_gets_an_upgrade_and_the_client_no_word_of_it() {
    let upstream = answering(|request| {
        assert_eq!((&*request.method, &*request.target), ("GET", "/socket?x=1"));
        assert_eq!(request.header("connection"), Some("Upgrade"));
        assert_eq!(request.header("upgrade"), Some("websocket"));
        assert_eq!(request.all("sec-websocket-key").len(), 1);
        assert_ne!(request.header("sec-websocket-key"), Some("the client's"));
        assert_eq!(request.header("sec-websocket-version"), Some("13"));
        assert_eq!(
            request.header("sec-websocket-protocol"),
            Some("a, v1.kernel.websocket.jupyter.org")
        );
        assert_eq!(
            request.header("sec-websocket-extensions"),
            Some("permessage-deflate; x=1")
        );
        assert_eq!(request.header("transfer-encoding"), None);
        let chosen =
            "sec-websocket-protocol: a\r\nsec-websocket-extensions: permessage-deflate\r\n";
        accepting(request, chosen)
    })
    .await;
    let gateway = Setup::to(&upstream).start();
    let mut client = connected(&gateway).await;
    let more = [
        ("sec-websocket-key", "the client's"),
        (
            "sec-websocket-protocol",
            "a, v1.kernel.websocket.jupyter.org",
        ),
        ("sec-websocket-extensions", "permessage-deflate; x=1"),
    ];
    let (answer, mut stream) = ask(&mut client, &gateway, &more).await.unwrap();
    assert_eq!(answer.status(), 200);
    let said = |name: &str| {
        answer
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap())
    };
    assert_eq!(said("sec-websocket-protocol"), Some("a"));
    assert_eq!(said("sec-websocket-extensions"), Some("permessage-deflate"));
    for name in ["sec-websocket-accept", "connection", "upgrade"] {
        assert_eq!(said(name), None, "{name}");
    }
    // Each way ends on its own.
    stream.write_all(b"all of it").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    soon("the rest", stream.read_to_end(&mut back))
        .await
        .unwrap();
    assert_eq!(back, b"all of it");
}

#[tokio::test]
async fn an_answer_that_is_no_websocket_is_502_and_a_refusal_arrives_as_it_is() {
    type Answers = fn(&Seen) -> String;
    let wrong: [(&str, Answers); 5] = [
        ("another key's accept", |_| {
            switching("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n")
        }),
        ("no accept", |_| switching("")),
        ("two", |request| {
            let key = request.header("sec-websocket-key").unwrap();
            let accept = derive_accept_key(key.as_bytes());
            accepting(request, &format!("sec-websocket-accept: {accept}\r\n"))
        }),
        ("another protocol", |_| {
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: raw\r\n\r\n".into()
        }),
        ("success without a switch", |_| {
            "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n<htm".into()
        }),
    ];
    for (what, answer) in wrong {
        let upstream = answering(answer).await;
        let gateway = Setup::to(&upstream).start();
        let mut client = connected(&gateway).await;
        let refused = ask(&mut client, &gateway, &[]).await.unwrap_err();
        assert_eq!(refused.status(), 502, "{what}");
        let line = gateway.accounted(2).await.remove(1);
        assert_eq!(line["reason"], "gitspace-broke", "{what}");
    }
    for status in ["403 Forbidden", "404 Not Found", "303 See Other"] {
        let upstream = answering(move |_| {
            format!("HTTP/1.1 {status}\r\nx-why: app\r\ncontent-length: 5\r\n\r\nnever")
        })
        .await;
        let gateway = Setup::to(&upstream).start();
        let mut client = connected(&gateway).await;
        let refused = ask(&mut client, &gateway, &[]).await.unwrap_err();
        assert!(status.starts_with(refused.status().as_str()));
        assert_eq!(refused.headers()["x-why"], "app");
        assert_eq!(refused.body(), "never");
    }
}

#[tokio::test]
async fn it_passes_the_steps_that_any_websocket_passes() {
    let upstream = echo().await;
    let gateway = Setup::to(&upstream).start();
    let mut client = connected(&gateway).await;
    let url = format!("https://{HOST}/");
    let nobody = client.connect_to("websocket", &url, &[]).await.unwrap_err();
    assert_eq!(nobody.status(), 401);
    let cookie = access::session(&gateway, 0).await;
    let origin = |origin| {
        [
            ("cookie", &*cookie),
            ("origin", origin),
            ("sec-websocket-version", "13"),
        ]
    };
    let foreign = origin("https://evil.test");
    let foreign = client.connect_to("websocket", &url, &foreign).await;
    assert_eq!(foreign.unwrap_err().status(), 403);
    let own = format!("https://{HOST}");
    client
        .connect_to("websocket", &url, &origin(&own))
        .await
        .unwrap();
    let other = client.connect_to("connect-udp", &url, &[]).await;
    assert_eq!(other.unwrap_err().status(), 501);
    assert_eq!(upstream.connections(), 1, "only what may went on");
}

#[tokio::test]
async fn a_plain_connect_and_one_where_it_is_switched_off_are_refused() {
    let upstream = echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.websockets_over_http2 = false)
        .start();
    let mut client = RawH2::connect(&gateway, HOST).await;
    let settings = client.next().await.unwrap();
    assert_eq!(settings.kind, kind::SETTINGS);
    let told = settings.payload.chunks(6).any(|pair| pair[..2] == [0, 8]);
    assert!(!told, "it is not said");
    let plain = [(":method", "CONNECT"), (":authority", HOST)];
    connect(&mut client, 1, &plain).await;
    let refused = client.outcome(1).await;
    assert!(matches!(refused, Outcome::Answer(405, _)), "{refused:?}");
    let token = gateway.owner();
    let extended = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":path", "/"),
        (":authority", HOST),
        ("x-gitspace-token", &token),
    ];
    connect(&mut client, 3, &extended).await;
    assert_eq!(client.outcome(3).await, Outcome::Reset(PROTOCOL_ERROR));
    assert_eq!(upstream.connections(), 0);
}

/// Sends a head that leaves its stream open.
async fn connect(client: &mut RawH2, stream: u32, fields: &[(&str, &str)]) {
    let fields = fields.iter();
    let block: Vec<u8> = fields
        .flat_map(|(name, value)| literal(name, value))
        .collect();
    client
        .send(kind::HEADERS, flag::END_HEADERS, stream, &block)
        .await;
}

#[tokio::test]
async fn its_end_is_told_in_a_frame_and_the_others_of_its_connection_go_on() {
    let upstream = echo().await;
    let gateway = Setup::to(&upstream).start();
    let mut client = connected(&gateway).await;
    let mut mine = open(&mut client, &gateway).await;
    say(&mut mine, "before").await;
    let revocation = json!({ "kind": "gitspace", "id": GITSPACE, "by": "root", "reason": "gone" });
    let revoked = gateway
        .admin(Method::POST, "/v1/revocations", Some(revocation))
        .await;
    assert!(revoked.status().is_success());
    let said = "access was revoked: gone".to_owned();
    assert_eq!(told_to_go(&mut mine).await, (1008, said));
    let url = format!("https://{HOST}/_gitspace/none");
    assert_eq!(client.request("GET", &url, &[], b"").await.status(), 404);
}

#[tokio::test]
async fn at_a_stop_it_is_told_to_come_again() {
    let upstream = echo().await;
    let gateway = Setup::to(&upstream).start();
    let mut client = connected(&gateway).await;
    let mut socket = open(&mut client, &gateway).await;
    say(&mut socket, "before").await;
    gateway.begin_stop();
    let said = "the gateway is restarting".to_owned();
    assert_eq!(told_to_go(&mut socket).await, (1012, said));
    drop(socket);
    client.ended().await;
    assert_eq!(gateway.stop().await, 0, "nothing was left at the deadline");
}

#[tokio::test]
async fn its_connection_does_not_rest_until_it_ends() {
    let upstream = echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| {
            // Whether a connection rests is first looked at when its first head would be late.
            config.timeouts.head = Duration::from_secs(2);
            config.timeouts.keep_alive = Duration::from_millis(100);
            config.timeouts.tunnel_idle = Timeout::After(Duration::from_secs(3));
        })
        .start();
    let mut client = connected(&gateway).await;
    let socket = open(&mut client, &gateway).await;
    let line = gateway.accounted(2).await.remove(1);
    assert_eq!(line["reason"], "idle", "{line}");
    client.ended().await;
    drop(socket);
}

#[tokio::test]
async fn a_client_that_resets_its_stream_ends_the_gitspaces_side() {
    let upstream = echo().await;
    let gateway = Setup::to(&upstream).start();
    let mut client = connected(&gateway).await;
    let mut socket = open(&mut client, &gateway).await;
    say(&mut socket, "before").await;
    drop(socket);
    gateway.accounted(2).await;
    let live = || async {
        let streams = gateway.metric("cde_gateway_streams", &[]).await;
        (streams == 0.0).then_some(())
    };
    eventually("nothing is left", live).await;
}
