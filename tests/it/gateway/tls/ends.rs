//! How connections begin that should not have, and how each of them ends.

use std::{future::Future, time::Duration};

use cde_gateway::config::Gateway;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{Client, Dialer, HOST, Setup, TestGateway, eventually, soon, try_tls};

/// Waits until so many handshakes failed for this reason.
async fn failed(gateway: &TestGateway, reason: &str, expected: f64) {
    let label = format!("reason=\"{reason}\"");
    let probe = || async {
        let count = gateway
            .metric("cde_gateway_failed_handshakes_total", &[&label])
            .await;
        (count == expected).then_some(())
    };
    eventually(&format!("{expected} failed by {reason}"), probe).await;
}

#[tokio::test]
async fn plain_http_on_an_https_port_is_told_so() {
    let gateway = Setup::new().start();
    let body = "x".repeat(20_000);
    let requests = [
        format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n"),
        format!("POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 20000\r\n\r\n{body}"),
        format!("\r\nGET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ];
    for (number, request) in (1..).zip(&requests) {
        let mut client = Client::plain(gateway.https).await;
        client.send(request).await;
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains("This port speaks https"));
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(client.closed().await.is_empty());
        failed(&gateway, "plain-http", f64::from(number)).await;
    }
}

#[tokio::test]
async fn what_is_no_tls_ends_at_once_and_is_counted() {
    let gateway = Setup::new().start();
    for (number, bytes) in (1..).zip([
        &[0x80, 0x2e, 0x01, 0x00, 0x02, 0, 0x15, 0, 0, 0, 0x10][..],
        &[0; 300],
        &[0x16, 0x03, 0x01, 0xff, 0xff, 1, 1, 1],
        // A server's hello.
        &[0x16, 0x03, 0x03, 0, 4, 2, 0, 0, 0],
    ]) {
        let mut client = Client::plain(gateway.https).await;
        client.send(bytes).await;
        client.closed().await;
        failed(&gateway, "broken", f64::from(number)).await;
    }
    drop(Client::plain(gateway.https).await);
    failed(&gateway, "closed", 1.0).await;
    let alpn: &[&[u8]] = &[b"smtp"];
    let error = try_tls(gateway.https, &gateway.authority(), HOST, alpn)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("alert"), "{error}");
    failed(&gateway, "nothing-in-common", 1.0).await;
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_ends() {
    let gateway = Setup::new()
        .with(|config| config.timeouts.head = Duration::from_millis(200))
        .start();
    let mut silent = Client::plain(gateway.https).await;
    let mut slow = Client::plain(gateway.https).await;
    slow.send([0x16, 0x03]).await;
    for client in [&mut silent, &mut slow] {
        assert!(client.closed().await.is_empty());
    }
    failed(&gateway, "timeout", 2.0).await;
}

#[tokio::test]
async fn a_tls_hello_on_a_plain_port_ends_at_once() {
    let gateway = Setup::new().start();
    let authority = gateway.authority();
    let attempt = try_tls(gateway.http, &authority, HOST, &[]);
    assert!(soon("a refusal", attempt).await.is_err());
}

/// Whether the gateway ends the connection with close_notify: without it rustls tells of an unexpected end.
async fn ends_in_order(mut stream: impl AsyncRead + Unpin) -> bool {
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest);
    soon("the connection's end", read).await.is_ok()
}

/// A connection's rest is first looked at when its first head is due.
fn short_rest(config: &mut Gateway) {
    config.timeouts.head = Duration::from_millis(500);
    config.timeouts.keep_alive = Duration::from_millis(100);
}

#[tokio::test]
async fn a_connection_that_rests_too_long_ends_in_order() {
    let gateway = Setup::new().with(short_rest).start();
    let dialer = Dialer::new(&gateway.authority());
    let stream = dialer.connect(gateway.https, HOST).await.unwrap();
    let mut client = Client::over(Box::new(stream));
    assert_eq!(client.get("/", &[]).await.status, 401);
    assert!(ends_in_order(client.into_stream()).await);
}

#[tokio::test]
async fn an_http2_connection_that_rests_too_long_ends_in_order() {
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    let gateway = Setup::new().with(short_rest).start();
    let mut stream = try_tls(gateway.https, &gateway.authority(), HOST, &[b"h2"])
        .await
        .unwrap();
    let settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(settings).await.unwrap();
    // One request, then rest: HEADERS of GET https / with the host as a literal, END_STREAM and END_HEADERS.
    let mut block = vec![0x82, 0x87, 0x84, 0x01, u8::try_from(HOST.len()).unwrap()];
    block.extend_from_slice(HOST.as_bytes());
    let mut frame = vec![0, 0, u8::try_from(block.len()).unwrap(), 1, 0x5, 0, 0, 0, 1];
    frame.extend_from_slice(&block);
    stream.write_all(&frame).await.unwrap();
    let mut goaway = false;
    let end = soon("the connection's end", async {
        loop {
            let mut head = [0; 9];
            if let Err(error) = stream.read_exact(&mut head).await {
                return error;
            }
            let length = usize::from(head[1]) << 8 | usize::from(head[2]);
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload).await.unwrap();
            goaway |= head[3] == GOAWAY;
            if head[3] == PING && head[4] == 0 {
                head[4] = 1;
                stream.write_all(&head).await.unwrap();
                stream.write_all(&payload).await.unwrap();
            }
        }
    })
    .await;
    assert!(goaway, "it is told so");
    // tokio's own word for an end between two frames; rustls's tells of a missing close_notify.
    assert!(!end.to_string().contains("close_notify"), "{end}");
}

#[tokio::test]
async fn an_answer_that_closes_and_a_stop_end_in_order() {
    let gateway = Setup::new().start();
    let dialer = Dialer::new(&gateway.authority());
    let connect =
        async || Client::over(Box::new(dialer.connect(gateway.https, HOST).await.unwrap()));
    let mut client = connect().await;
    client.get("/", &[("connection", "close")]).await;
    assert!(ends_in_order(client.into_stream()).await);
    let mut client = connect().await;
    client.get("/", &[]).await;
    gateway.begin_stop();
    assert!(ends_in_order(client.into_stream()).await);
}

/// An upstream that does something to its only connection once the request's head is there.
async fn upstream<F>(serve: impl FnOnce(tokio::net::TcpStream) -> F + Send + 'static) -> Setup
where
    F: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream).await;
    });
    Setup::new().route(&format!(
        "gitspace = \"app-a1b2c3\"\nupstream = \"http://{address}\"\nvisibility = \"public\""
    ))
}

#[tokio::test]
async fn an_answer_without_a_length_that_breaks_off_does_not_end_in_order() {
    let setup = upstream(async |mut stream| {
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await;
        let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let gateway = setup.start();
    let dialer = Dialer::new(&gateway.authority());
    let mut stream = dialer.connect(gateway.https, HOST).await.unwrap();
    // To HTTP/1.0 the end of the connection is the end of the body.
    let request = format!("GET / HTTP/1.0\r\nhost: {HOST}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert!(!ends_in_order(stream).await);
}

#[tokio::test]
async fn a_body_that_breaks_off_without_close_notify_is_not_whole() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let setup = upstream(async |mut stream| {
        let mut all = Vec::new();
        let whole = stream.read_to_end(&mut all).await.is_ok() && all.ends_with(b"0\r\n\r\n");
        let _ = sender.send(whole);
    })
    .await;
    let gateway = setup.start();
    let dialer = Dialer::new(&gateway.authority());
    let mut stream = dialer.connect(gateway.https, HOST).await.unwrap();
    let request = format!(
        "POST / HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    // The TCP connection ends, TLS does not.
    let (mut socket, _session) = stream.into_inner();
    socket.shutdown().await.unwrap();
    let whole = soon("the upstream's end", receiver).await.unwrap();
    assert!(!whole);
    assert_eq!(gateway.account().await["reason"], "client-gone");
}
