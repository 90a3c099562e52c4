//! Deadlines of connections and bodies: peers that are slow, silent or stop halfway.

use std::time::Duration;

use cde_gateway::config::Timeout;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::support::{Client, HOST, Setup, Upstream, eventually, read_request, soon};

const SHORT: Duration = Duration::from_millis(150);
/// What a busy machine needs for the beginning must fit in.
const LONGER: Duration = Duration::from_millis(800);

/// Sends these bytes one by one until the other side has enough of it.
async fn drip(client: &mut Client, bytes: &[u8]) {
    for byte in bytes.iter().cycle() {
        if client.try_send([*byte]).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let gateway = Setup::new()
        .with(|config| config.timeouts.head = SHORT)
        .start();
    for address in [gateway.http, gateway.https] {
        let mut client = Client::plain(address).await;
        assert!(client.closed().await.is_empty());
    }
    eventually("the handshake is counted", || async {
        let failed = gateway
            .metric("cde_gateway_failed_handshakes_total", &[])
            .await;
        (failed == 1.0).then_some(())
    })
    .await;
    // Over TLS without a request, in both protocols. A busy machine has time for the handshake.
    let gateway = Setup::new()
        .with(|config| config.timeouts.head = LONGER)
        .start();
    let mut client = gateway.tls(HOST).await;
    assert!(client.closed().await.is_empty());
    let h2 = crate::support::H2::connect(&gateway, HOST).await;
    h2.ended().await;
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_not_waited_for() {
    let gateway = Setup::new()
        .with(|config| config.timeouts.head = SHORT)
        .start();
    for address in [gateway.http, gateway.https] {
        let mut client = Client::plain(address).await;
        let head = b"GET / HTTP/1.1\r\nx: y\r\nx: y\r\nx: y\r\nx: y\r\nx: y\r\n";
        // A TLS record of 16 KiB, of which the beginning comes.
        let record = [
            0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3, 0, 0, 0, 0, 0, 0,
        ];
        let bytes = if address == gateway.http {
            &head[..]
        } else {
            &record
        };
        soon("the end of patience", drip(&mut client, bytes)).await;
        client.closed().await;
    }
}

#[tokio::test]
async fn a_connection_may_rest_only_so_long_between_requests() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.timeouts.keep_alive = SHORT)
        .start();
    let token = gateway.owner();
    let headers = [("x-gitspace-token", &*token)];
    let mut client = gateway.tls(HOST).await;
    for _ in 0..3 {
        assert_eq!(client.get("/", &headers).await.status, 200);
    }
    assert!(client.closed().await.is_empty());
    gateway.accounted(3).await;
}

#[tokio::test]
async fn a_request_under_way_is_not_rest() {
    let upstream = Upstream::scripted(|stream, _| async {
        let mut stream = BufReader::new(stream);
        read_request(&mut stream).await.unwrap();
        tokio::time::sleep(LONGER * 2).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate")
            .await
            .unwrap();
    })
    .await;
    let gateway = Setup::to(&upstream)
        .with(|config| {
            config.timeouts.keep_alive = SHORT;
            config.timeouts.head = LONGER;
        })
        .start();
    let token = gateway.owner();
    let answer = gateway
        .plain()
        .await
        .get("/", &[("x-gitspace-token", &token)])
        .await;
    assert_eq!(answer.text(), "late");
}

#[tokio::test]
async fn an_upload_that_stalls_ends() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.timeouts.body_idle = Timeout::After(SHORT))
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
    let line = gateway.account().await;
    assert_eq!(
        (&line["ended_by"], &line["received"]),
        (&"client".into(), &4.into())
    );
    client.closed().await;
    assert!(upstream.seen().is_empty(), "half an upload is no request");
}

#[tokio::test]
async fn an_upload_that_breaks_off_ends() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let mut client = gateway.plain().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nhost: {HOST}\r\nx-gitspace-token: {}\r\ncontent-length: 10\r\n\r\nhalf",
            gateway.owner()
        ))
        .await;
    drop(client);
    let line = gateway.account().await;
    assert_eq!(
        (&line["reason"], &line["ended_by"]),
        (&"client-gone".into(), &"client".into())
    );
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn an_answer_that_stalls_is_cut() {
    let upstream = Upstream::scripted(|stream, _| async {
        let mut stream = BufReader::new(stream);
        read_request(&mut stream).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
            .await
            .unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.timeouts.body_idle = Timeout::After(SHORT))
        .start();
    let mut client = gateway.plain().await;
    let token = gateway.owner();
    client
        .begin("GET", "/", &[("x-gitspace-token", &token)], b"")
        .await;
    client.answer().await.unwrap_err();
    let line = gateway.account().await;
    assert_eq!(
        (&line["reason"], &line["ended_by"]),
        (&"idle".into(), &"gateway".into())
    );
    assert_eq!(line["sent"], 4);
}

#[tokio::test]
async fn slow_is_not_stalled() {
    let upstream = Upstream::scripted(|stream, _| async {
        let mut stream = BufReader::new(stream);
        read_request(&mut stream).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")
            .await
            .unwrap();
        for _ in 0..10 {
            tokio::time::sleep(LONGER / 8).await;
            stream.write_all(b"x").await.unwrap();
        }
    })
    .await;
    let gateway = Setup::to(&upstream)
        .with(|config| {
            config.timeouts.body_idle = Timeout::After(LONGER);
            config.timeouts.response_head = Timeout::After(LONGER);
        })
        .start();
    let mut client = gateway.plain().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nhost: {HOST}\r\nx-gitspace-token: {}\r\ncontent-length: 10\r\n\r\n",
            gateway.owner()
        ))
        .await;
    for _ in 0..10 {
        tokio::time::sleep(LONGER / 8).await;
        client.send("y").await;
    }
    assert_eq!(client.answer().await.unwrap().text(), "xxxxxxxxxx");
}

/// Sends without end, until nobody takes it.
async fn endless() -> Upstream {
    Upstream::scripted(|stream, _| async {
        let mut stream = BufReader::new(stream);
        read_request(&mut stream).await.unwrap();
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
        stream.write_all(head).await.unwrap();
        while stream.write_all(&[b'x'; 65536]).await.is_ok() {}
    })
    .await
}

#[tokio::test]
async fn a_client_that_stops_reading_is_let_go() {
    let upstream = endless().await;
    let gateway = Setup::to(&upstream)
        .with(|config| {
            config.timeouts.body_idle = Timeout::After(SHORT);
            config.timeouts.head = LONGER;
        })
        .start();
    let mut client = gateway.plain().await;
    let token = gateway.owner();
    client
        .begin("GET", "/", &[("x-gitspace-token", &token)], b"")
        .await;
    let line = gateway.account().await;
    assert_eq!(
        (&line["reason"], &line["ended_by"]),
        (&"client-gone".into(), &"client".into())
    );
    drop(client);
}

#[tokio::test]
async fn a_client_that_goes_ends_the_upstreams_work() {
    let upstream = endless().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    let mut stream = TcpStream::connect(gateway.http).await.unwrap();
    stream
        .write_all(
            format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nx-gitspace-token: {token}\r\n\r\n")
                .as_bytes(),
        )
        .await
        .unwrap();
    let mut some = [0; 1000];
    stream.read_exact(&mut some).await.unwrap();
    drop(stream);
    let line = gateway.account().await;
    assert_eq!(
        (&line["reason"], &line["ended_by"]),
        (&"client-gone".into(), &"client".into())
    );
    assert_eq!(line["status"], 200);
}
