//! The head guard from outside: what could be read in two ways is refused, accounted, and ends its connection.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};

use crate::support::{Client, HOST, Setup, TestGateway, Upstream, read_request};

/// A whole second request, to be found at the upstream if it was smuggled.
fn inner(gateway: &TestGateway) -> String {
    let token = gateway.owner();
    format!("GET /smuggled HTTP/1.1\r\nhost: {HOST}\r\nx-gitspace-token: {token}\r\n\r\n")
}

/// A head of the owner, with these lines beside it.
fn head(gateway: &TestGateway, request_line: &str, fields: &str) -> String {
    let token = gateway.owner();
    format!("{request_line}\r\nhost: {HOST}\r\nx-gitspace-token: {token}\r\n{fields}\r\n")
}

/// Sends it and a request behind it: the statuses of all answers until the connection ends.
async fn statuses(gateway: &TestGateway, bytes: &str) -> Vec<u16> {
    let mut client = gateway.plain().await;
    client.send(bytes).await;
    let mut statuses = Vec::new();
    while let Ok(answer) = client.answer().await {
        statuses.push(answer.status);
        if answer.header("connection") == Some("close") {
            assert!(client.closed().await.is_empty());
            break;
        }
    }
    statuses
}

/// Nobody but `/` and `/first` came through.
fn nothing_smuggled(upstream: &Upstream) {
    for seen in upstream.seen() {
        assert!(!seen.target.contains("smuggled"), "{seen:?}");
    }
}

#[tokio::test]
async fn messages_framed_twice_or_oddly_are_refused() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let framings = [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "content-length: 5\r\ncontent-length: 5\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5, 5\r\n",
        "content-length: +5\r\n",
        "content-length: 0x5\r\n",
        "content-length: 18446744073709551621\r\n",
        "content-length :5\r\n",
        "content-length:\r\n 5\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: identity, chunked\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: \"chunked\"\r\n",
        "transfer-encoding:\x0bchunked\r\n",
        "transfer-encoding : chunked\r\n",
        "transfer-encoding:\r\n chunked\r\n",
        "x: y\rtransfer-encoding: chunked\r\n",
        "x: y\ntransfer-encoding: chunked\r\n",
        "\0transfer-encoding: chunked\r\n",
    ];
    for framing in framings {
        let message = head(&gateway, "POST / HTTP/1.1", framing);
        let bytes = format!("{message}0\r\n\r\n{}", inner(&gateway));
        assert_eq!(statuses(&gateway, &bytes).await, [400], "{framing:?}");
    }
    let message = head(
        &gateway,
        "POST / HTTP/1.0",
        "transfer-encoding: chunked\r\n",
    );
    assert_eq!(
        statuses(&gateway, &format!("{message}0\r\n\r\n")).await,
        [400]
    );
    let message = head(
        &gateway,
        "POST / HTTP/1.1",
        "transfer-encoding: gzip, chunked\r\n",
    );
    assert_eq!(
        statuses(&gateway, &format!("{message}0\r\n\r\n")).await,
        [501]
    );
    assert!(upstream.seen().is_empty(), "{:?}", upstream.seen());
    let lines = gateway.accounted(framings.len() + 2).await;
    for line in &lines[..framings.len()] {
        assert_eq!(
            (
                &line["reason"],
                &line["ended_by"],
                &line["step"],
                &line["status"]
            ),
            (
                &"bad-request".into(),
                &"client".into(),
                &"parse".into(),
                &400.into()
            )
        );
    }
}

#[tokio::test]
async fn lines_and_targets_are_read_strictly() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    for (line, status) in [
        ("GET / HTTP/1.1\n", 400),
        ("GET /a#b HTTP/1.1\r\n", 400),
        ("GET  / HTTP/1.1\r\n", 400),
        ("GET\t/\tHTTP/1.1\r\n", 400),
        ("GET /\r\n", 400),
        ("GET / http/1.1\r\n", 400),
        ("GET / HTTP/1.2\r\n", 505),
        ("GET / HTTP/2.0\r\n", 505),
        ("PRI * HTTP/1.1\r\n", 400),
        ("\r\n\r\nGET / HTTP/1.1\r\n", 400),
        ("G(T / HTTP/1.1\r\n", 400),
        ("GET nowhere HTTP/1.1\r\n", 400),
        ("GET /\x01 HTTP/1.1\r\n", 400),
    ] {
        let rest = head(&gateway, "", "").trim_start().to_owned();
        let bytes = format!("{line}{rest}{}", inner(&gateway));
        assert_eq!(statuses(&gateway, &bytes).await, [status], "{line:?}");
    }
    let large = head(
        &gateway,
        "GET / HTTP/1.1",
        &format!("x: {}\r\n", "y".repeat(70_000)),
    );
    assert_eq!(statuses(&gateway, &large).await, [431]);
    let many = head(&gateway, "GET / HTTP/1.1", &"x: y\r\n".repeat(1000));
    assert_eq!(statuses(&gateway, &many).await, [431]);
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn what_came_before_a_bad_head_is_answered_first() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let first = head(&gateway, "POST /first HTTP/1.1", "content-length: 3\r\n");
    let bytes = format!("{first}abcGET / HTTP/1.1\nx: y\r\n\r\n{}", inner(&gateway));
    assert_eq!(statuses(&gateway, &bytes).await, [200, 400]);
    nothing_smuggled(&upstream);
    let reasons: Vec<_> = gateway
        .accounted(2)
        .await
        .iter()
        .map(|line| line["reason"].clone())
        .collect();
    assert_eq!(reasons, ["done", "bad-request"]);
}

#[tokio::test]
async fn funky_chunks_cut_the_request_and_never_complete_it() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    for body in [
        "0x3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3;x\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\r\nabc\r\n0\r\nbad trailer\r\n\r\n",
        "ffffffffffffffff3\r\nabc\r\n0\r\n\r\n",
    ] {
        let message = head(
            &gateway,
            "POST / HTTP/1.1",
            "transfer-encoding: chunked\r\n",
        );
        let bytes = format!("{message}{body}{}", inner(&gateway));
        assert_eq!(statuses(&gateway, &bytes).await, [400], "{body:?}");
    }
    assert!(upstream.seen().is_empty(), "{:?}", upstream.seen());
}

#[tokio::test]
async fn a_body_behind_our_own_early_answer_is_never_taken_for_a_request() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let smuggled = inner(&gateway);
    for (request, status) in [
        // Nobody's token, another's host, a page that is not ours.
        (format!("POST / HTTP/1.1\r\nhost: {HOST}\r\n"), 401),
        (
            format!("POST /_gitspace/nothing HTTP/1.1\r\nhost: {HOST}\r\n"),
            404,
        ),
        ("POST / HTTP/1.1\r\nhost: a.test\r\n".to_owned(), 401),
    ] {
        for framing in [
            format!("content-length: {}\r\n\r\n{smuggled}", smuggled.len()),
            format!(
                "transfer-encoding: chunked\r\n\r\n{:x}\r\n{smuggled}\r\n0\r\n\r\n",
                smuggled.len()
            ),
        ] {
            let mut client = gateway.plain().await;
            client.send(format!("{request}{framing}")).await;
            assert_eq!(client.answer().await.unwrap().status, status);
            // The connection goes on behind it.
            let token = gateway.owner();
            let next = client.get("/first", &[("x-gitspace-token", &token)]).await;
            assert_eq!(next.status, 200);
        }
    }
    nothing_smuggled(&upstream);
    assert_eq!(upstream.seen().len(), 6);
}

#[tokio::test]
async fn a_small_body_that_nobody_wants_does_not_end_the_connection() {
    let gateway = Setup::new().start();
    let mut client = gateway.plain().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 60000\r\n\r\n"
        ))
        .await;
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (401, None));
    client.send(vec![b'x'; 60_000]).await;
    assert_eq!(client.get("/_gitspace/jwks.json", &[]).await.status, 200);
}

#[tokio::test]
async fn a_large_body_that_nobody_wants_ends_it_and_the_answer_arrives() {
    let gateway = Setup::new().start();
    for fields in [
        "content-length: 10000000\r\n",
        "content-length: 5\r\nexpect: 100-continue\r\n",
    ] {
        let mut client = gateway.plain().await;
        client
            .send(format!("POST / HTTP/1.1\r\nhost: {HOST}\r\n{fields}\r\n"))
            .await;
        let _ = client.try_send(vec![b'x'; 30_000]).await;
        let answer = client.answer().await.unwrap();
        assert_eq!(
            (answer.status, answer.header("connection")),
            (401, Some("close"))
        );
        client.closed().await;
    }
}

#[tokio::test]
async fn a_head_that_does_not_end_in_time_is_told_so() {
    let gateway = Setup::new()
        .with(|config| config.timeouts.head = Duration::from_millis(300))
        .start();
    let mut client = gateway.plain().await;
    client.send("GET / HTTP/1.1\r\nhost: a.test\r\n").await;
    let answer = client.answer().await.unwrap();
    assert_eq!(answer.refusal(), (408, "head-timeout".into()));
    client.closed().await;
    assert_eq!(gateway.account().await["reason"], "head-timeout");
    // Also when it is not the first: its time begins with its first byte.
    let mut client = gateway.plain().await;
    assert_eq!(client.get("/_gitspace/jwks.json", &[]).await.status, 200);
    client.send("GET / HT").await;
    let answer = client.answer().await.unwrap();
    assert_eq!(answer.refusal(), (408, "head-timeout".into()));
}

#[tokio::test]
async fn early_bytes_of_a_stream_are_kept_and_those_of_a_refused_one_are_a_request() {
    let upstream = Upstream::scripted(|stream, _| async {
        let mut stream = BufReader::new(stream);
        while let Ok(request) = read_request(&mut stream).await {
            let target = request.target;
            let answer = match &*target {
                "/ws" => {
                    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: raw\r\n\r\n"
                        .into()
                }
                _ => format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{target}",
                    target.len()
                ),
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
            if target == "/ws" {
                let mut early = [0; 5];
                stream.read_exact(&mut early).await.unwrap();
                stream.write_all(&early).await.unwrap();
            }
        }
    })
    .await;
    let gateway = Setup::to(&upstream).start();
    let upgrade = |target: &str| {
        head(
            &gateway,
            &format!("GET {target} HTTP/1.1"),
            "connection: upgrade\r\nupgrade: raw\r\n",
        )
    };
    for over_tls in [false, true] {
        let connect = async || match over_tls {
            true => gateway.tls(HOST).await,
            false => gateway.plain().await,
        };
        let mut client: Client = connect().await;
        client.send(format!("{}\n\n\n\r\0", upgrade("/ws"))).await;
        assert_eq!(client.head().await.unwrap().status, 101);
        assert_eq!(client.read_exact(5).await.unwrap(), b"\n\n\n\r\0");
        let mut client = connect().await;
        let next = head(&gateway, "GET /next HTTP/1.1", "");
        client
            .send(format!(
                "{}{next}GET /smuggled HTTP/1.1\n\n",
                upgrade("/no")
            ))
            .await;
        assert_eq!(client.answer().await.unwrap().text(), "/no");
        assert_eq!(client.answer().await.unwrap().text(), "/next");
        assert_eq!(client.answer().await.unwrap().status, 400);
    }
}
