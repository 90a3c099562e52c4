//! A graceful stop: what is under way may end, until the drain deadline.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::Semaphore,
};

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use super::websocket;
use crate::support::{
    Client, H2, HOST, Setup, TestGateway, Upstream, eventually, head, read_request, soon,
};

/// Answers when it is let.
async fn waiting() -> (Upstream, Arc<Semaphore>, Arc<Semaphore>) {
    let (arrived, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (tell, wait) = (Arc::clone(&arrived), Arc::clone(&go));
    let upstream = Upstream::scripted(move |stream, _| {
        let (tell, wait) = (Arc::clone(&tell), Arc::clone(&wait));
        async move {
            let mut stream = BufReader::new(stream);
            read_request(&mut stream).await.unwrap();
            tell.add_permits(1);
            wait.acquire().await.unwrap().forget();
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate")
                .await;
        }
    })
    .await;
    (upstream, arrived, go)
}

async fn refuses(gateway: &TestGateway) {
    eventually("new connections are refused", || async {
        TcpStream::connect(gateway.http)
            .await
            .is_err()
            .then_some(())
    })
    .await;
}

async fn readiness(gateway: &TestGateway) -> u16 {
    let ready = gateway.admin(reqwest::Method::GET, "/readyz", None).await;
    ready.status().as_u16()
}

#[tokio::test]
async fn what_is_under_way_completes_and_nothing_new_is_accepted() {
    let (upstream, arrived, go) = waiting().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.timeouts.drain = Duration::from_secs(8))
        .start();
    let token = gateway.owner();
    let headers = [("x-gitspace-token", &*token)];
    let mut client = gateway.plain().await;
    client.begin("GET", "/", &headers, b"").await;
    let mut h2 = H2::connect(&gateway, HOST).await;
    let url = format!("https://{HOST}/");
    let over_h2 = h2.request("GET", &url, &headers, b"");
    let rest = async {
        arrived.acquire_many(2).await.unwrap().forget();
        assert_eq!(readiness(&gateway).await, 200);
        gateway.begin_stop();
        refuses(&gateway).await;
        assert_eq!(readiness(&gateway).await, 503);
        go.add_permits(2);
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.text(), "late");
        assert_eq!(answer.header("connection"), Some("close"));
        client.closed().await;
    };
    let (answer, ()) = tokio::join!(over_h2, rest);
    assert_eq!(&answer.body()[..], b"late");
    gateway.stop().await;
}

#[tokio::test]
async fn connections_at_rest_are_closed_at_once() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.timeouts.drain = Duration::from_secs(60))
        .start();
    let token = gateway.owner();
    let headers = [("x-gitspace-token", &*token)];
    let mut client = gateway.tls(HOST).await;
    client.get("/", &headers).await;
    let mut h2 = H2::connect(&gateway, HOST).await;
    h2.request("GET", &format!("https://{HOST}/"), &headers, b"")
        .await;
    gateway.stop().await;
    client.closed().await;
    h2.ended().await;
}

async fn switched(gateway: &TestGateway) -> Client {
    let token = gateway.owner();
    let headers = [
        ("connection", "Upgrade"),
        ("upgrade", "raw"),
        ("x-gitspace-token", &token),
    ];
    let mut client = gateway.tls(HOST).await;
    client.begin("GET", "/", &headers, b"").await;
    assert_eq!(client.head().await.unwrap().status, 101);
    client
}

async fn echo() -> Upstream {
    Upstream::scripted(|stream, _| async {
        let mut stream = BufReader::new(stream);
        read_request(&mut stream).await.unwrap();
        let head =
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: raw\r\n\r\n";
        stream.write_all(head).await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(stream);
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
        let _ = writer.shutdown().await;
    })
    .await
}

#[tokio::test]
async fn a_stream_lives_until_the_drain_deadline() {
    let upstream = echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.timeouts.drain = Duration::from_secs(2))
        .start();
    let mut client = switched(&gateway).await;
    gateway.begin_stop();
    refuses(&gateway).await;
    client.send("still").await;
    assert_eq!(client.read_exact(5).await.unwrap(), b"still");
    assert!(client.closed().await.is_empty());
    let line = eventually("the account", || async { gateway.lines().pop() }).await;
    assert_eq!(
        (&line["reason"], &line["ended_by"]),
        (&"drained".into(), &"gateway".into())
    );
    assert_eq!((&line["received"], &line["sent"]), (&5.into(), &5.into()));
    gateway.stop().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_longer_than_its_last_stream() {
    let upstream = echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.timeouts.drain = Duration::from_secs(600))
        .start();
    let mut client = switched(&gateway).await;
    gateway.begin_stop();
    refuses(&gateway).await;
    client.shut().await;
    client.closed().await;
    drop(client);
    gateway.stop().await;
}

#[tokio::test]
async fn a_request_that_outlives_the_deadline_is_cut_and_accounted_as_drained() {
    let (upstream, arrived, _go) = waiting().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.timeouts.drain = Duration::from_millis(100))
        .start();
    let token = gateway.owner();
    let mut client = gateway.plain().await;
    client
        .begin("GET", "/", &[("x-gitspace-token", &token)], b"")
        .await;
    soon("the request", arrived.acquire())
        .await
        .unwrap()
        .forget();
    gateway.begin_stop();
    client.closed().await;
    let line = eventually("the account", || async { gateway.lines().pop() }).await;
    assert_eq!(
        (&line["reason"], &line["ended_by"]),
        (&"drained".into(), &"gateway".into())
    );
    gateway.stop().await;
}

#[tokio::test]
async fn a_handshake_that_never_ends_does_not_hold_up_the_stop() {
    let gateway = Setup::new()
        .with(|config| {
            config.timeouts.head = Duration::from_secs(600);
            config.timeouts.drain = Duration::from_millis(100);
        })
        .start();
    let mut silent = TcpStream::connect(gateway.https).await.unwrap();
    gateway.tls(HOST).await;
    gateway.stop().await;
    let _ = soon("the end", silent.read(&mut [0])).await;
}

#[tokio::test]
async fn streams_are_told_to_go_one_after_the_other_before_the_deadline() {
    let upstream = websocket::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.timeouts.drain = Duration::from_secs(3))
        .start();
    let mut sockets = Vec::new();
    for _ in 0..12 {
        sockets.push(websocket::open(&gateway).await.unwrap());
    }
    gateway.begin_stop();
    let next = sockets.iter_mut().map(|socket| Box::pin(socket.next()));
    let (first, _, rest) = soon("the first end", futures_util::future::select_all(next)).await;
    drop(rest);
    let Some(Ok(Message::Close(Some(frame)))) = first else {
        panic!("{first:?}");
    };
    let said = (u16::from(frame.code), &*frame.reason);
    assert_eq!(said, (1012, "the gateway is restarting"));
    let mut still = 0;
    for socket in &mut sockets {
        let asked = socket.send(Message::text("still?")).await.is_ok();
        let answer = soon("an answer or the end", socket.next()).await;
        still += usize::from(asked && matches!(answer, Some(Ok(message)) if message.is_text()));
    }
    assert!(still > 0, "all went at once");
    assert_eq!(gateway.stop().await, 0, "nothing was left at the deadline");
}

#[tokio::test]
async fn an_event_stream_goes_with_the_streams_and_a_download_has_all_of_the_time() {
    let upstream = Upstream::scripted(|stream, _| async {
        let mut stream = BufReader::new(stream);
        let head = head(&mut stream).await;
        let kind = if head.contains("/events") {
            "text/event-stream; charset=utf-8"
        } else {
            "text/plain"
        };
        let begin = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n\r\ndata: 1\n\n");
        stream.write_all(begin.as_bytes()).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.timeouts.drain = Duration::from_secs(2))
        .start();
    let token = gateway.owner();
    let ours = [("x-gitspace-token", &*token)];
    let mut clients = Vec::new();
    for path in ["/events", "/download"] {
        let mut client = gateway.plain().await;
        client.begin("GET", path, &ours, b"").await;
        assert_eq!(client.head().await.unwrap().status, 200);
        clients.push(client);
    }
    gateway.begin_stop();
    for client in &mut clients {
        client.closed().await;
    }
    let lines = eventually("both accounts", || async {
        let lines = gateway.lines();
        (lines.len() == 2).then_some(lines)
    })
    .await;
    let (events, download) = (&lines[0], &lines[1]);
    assert_eq!(
        (&events["path"], &events["reason"]),
        (&"/events".into(), &"drained".into())
    );
    assert_eq!(
        (&download["path"], &download["reason"]),
        (&"/download".into(), &"drained".into())
    );
    assert_eq!(events["detail"], "the gateway stops");
    assert_eq!(gateway.stop().await, 1, "the download was cut");
}
