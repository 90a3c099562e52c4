//! Upstreams that are away, break off, are silent or talk nonsense.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use cde_gateway::config::Timeout;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::support::{Answer, HOST, Refusing, Setup, TestGateway, Upstream, read_request};

async fn get(gateway: &TestGateway) -> Answer {
    let token = gateway.owner();
    gateway
        .plain()
        .await
        .get("/", &[("x-gitspace-token", &token)])
        .await
}

/// Closes with a reset, so that nothing of what was written need arrive.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
}

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

#[tokio::test]
async fn an_upstream_that_refuses_is_unreachable() {
    let refusing = Refusing::new();
    let address = refusing.address();
    let gateway = Setup::new()
        .route(&format!(
            "gitspace = \"app-a1b2c3\"\nupstream = \"http://{address}\"\nowner = \"alice\""
        ))
        .start();
    let answer = get(&gateway).await;
    assert_eq!(answer.refusal(), (502, "nothing-listens".into()));
    assert!(!answer.text().contains(&address.to_string()));
    let line = gateway.account().await;
    assert_eq!(line["ended_by"], "gitspace");
    assert_eq!(line["step"], "forward");
    assert!(line["detail"].as_str().unwrap().contains("refused"));
}

#[tokio::test]
async fn an_upstream_that_resets_before_it_answers_broke() {
    let upstream = Upstream::scripted(|stream, _| async {
        let mut stream = BufReader::new(stream);
        read_request(&mut stream).await.unwrap();
        reset(stream.into_inner());
    })
    .await;
    let gateway = Setup::to(&upstream).start();
    let answer = get(&gateway).await;
    assert_eq!(answer.refusal(), (502, "gitspace-broke".into()));
    let line = gateway.account().await;
    assert_eq!(line["ended_by"], "gitspace");
    assert_eq!(
        upstream.connections(),
        1,
        "a fresh connection is not tried twice"
    );
}

#[tokio::test]
async fn an_upstream_that_is_silent_runs_into_the_deadline() {
    let upstream = Upstream::scripted(|mut stream, _| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let gateway = Setup::to(&upstream)
        .with(|config| {
            config.timeouts.response_head = Timeout::After(Duration::from_millis(100));
        })
        .start();
    let answer = get(&gateway).await;
    assert_eq!(answer.refusal(), (504, "gitspace-timeout".into()));
    assert_eq!(gateway.account().await["ended_by"], "gitspace");
}

#[tokio::test]
async fn nonsense_instead_of_an_answer_is_not_passed_on() {
    for nonsense in [
        &b"SSH-2.0-OpenSSH_9.9\r\n"[..],
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
    ] {
        let upstream = Upstream::answering(move |_| nonsense.into()).await;
        let gateway = Setup::to(&upstream).start();
        let answer = get(&gateway).await;
        assert_eq!(answer.refusal(), (502, "gitspace-broke".into()));
    }
}

#[tokio::test]
async fn a_switch_of_protocols_that_nobody_asked_for_is_not_passed_on() {
    let upstream = Upstream::always(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: evil\r\n\r\n",
    )
    .await;
    let gateway = Setup::to(&upstream).start();
    let answer = get(&gateway).await;
    assert_eq!(answer.refusal(), (502, "gitspace-broke".into()));
    gateway.account().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_cut_visibly() {
    for half in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let upstream = Upstream::scripted(move |stream, _| async move {
            let mut stream = BufReader::new(stream);
            read_request(&mut stream).await.unwrap();
            stream.write_all(half).await.unwrap();
        })
        .await;
        let gateway = Setup::to(&upstream).start();
        let token = gateway.owner();
        let mut client = gateway.tls(HOST).await;
        client
            .begin("GET", "/", &[("x-gitspace-token", &token)], b"")
            .await;
        client.answer().await.unwrap_err();
        let line = gateway.account().await;
        assert_eq!(line["reason"], "gitspace-broke");
        assert_eq!((&line["status"], &line["sent"]), (&200.into(), &5.into()));
        assert_eq!(line["ended_by"], "gitspace");
        assert_eq!(line["step"], "relay");
    }
}

#[tokio::test]
async fn connections_are_used_again() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.workers = 1)
        .start();
    for _ in 0..20 {
        assert_eq!(get(&gateway).await.status, 200);
    }
    assert_eq!(upstream.connections(), 1);
    assert_eq!(
        gateway
            .metric("cde_gateway_upstream_reused_total", &[])
            .await,
        19.0
    );
}

#[tokio::test]
async fn an_answer_that_ends_its_connection_does_not_leave_it_in_the_pool() {
    let upstream = Upstream::scripted(|stream, _| async {
        let mut stream = BufReader::new(stream);
        read_request(&mut stream).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello")
            .await
            .unwrap();
    })
    .await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.workers = 1)
        .start();
    for _ in 0..20 {
        let answer = get(&gateway).await;
        assert_eq!((answer.status, answer.text()), (200, "hello"));
        assert_eq!(answer.header("connection"), None);
    }
    assert_eq!(upstream.connections(), 20);
}

/// Answers once per connection; the next request on it is read and then reset.
async fn answering_once() -> (Upstream, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let upstream = Upstream::scripted(move |stream, _| {
        let count = Arc::clone(&count);
        async move {
            let mut stream = BufReader::new(stream);
            read_request(&mut stream).await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            stream.write_all(HELLO).await.unwrap();
            if read_request(&mut stream).await.is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
                reset(stream.into_inner());
            }
        }
    })
    .await;
    (upstream, requests)
}

/// Longer than a pooled connection must have rested before a request is copied for a second try.
const RESTED: Duration = Duration::from_millis(600);

#[tokio::test]
async fn a_get_on_a_pooled_connection_that_died_is_sent_again() {
    let (upstream, requests) = answering_once().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.workers = 1)
        .start();
    assert_eq!(get(&gateway).await.status, 200);
    tokio::time::sleep(RESTED).await;
    assert_eq!(get(&gateway).await.status, 200);
    assert_eq!(requests.load(Ordering::SeqCst), 3);
    assert_eq!(upstream.connections(), 2);
    gateway.accounted(2).await;
}

#[tokio::test]
async fn a_post_that_was_sent_is_never_sent_again() {
    let (upstream, requests) = answering_once().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.workers = 1)
        .start();
    assert_eq!(get(&gateway).await.status, 200);
    tokio::time::sleep(RESTED).await;
    let token = gateway.owner();
    for body in [&b""[..], b"pay"] {
        let answer = gateway
            .plain()
            .await
            .request("POST", "/", &[("x-gitspace-token", &token)], body)
            .await;
        let expected = if body.is_empty() {
            assert_eq!(answer.refusal(), (502, "gitspace-broke".into()));
            2
        } else {
            assert_eq!(answer.status, 200, "on a fresh connection");
            3
        };
        assert_eq!(requests.load(Ordering::SeqCst), expected);
    }
}

#[tokio::test]
async fn a_pooled_connection_that_was_closed_at_rest_is_not_used() {
    let upstream = Upstream::scripted(|stream, _| async {
        let mut stream = BufReader::new(stream);
        read_request(&mut stream).await.unwrap();
        stream.write_all(HELLO).await.unwrap();
    })
    .await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.workers = 1)
        .start();
    let token = gateway.owner();
    for _ in 0..50 {
        let answer = gateway
            .plain()
            .await
            .request("POST", "/", &[("x-gitspace-token", &token)], b"x")
            .await;
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test]
async fn an_upstream_may_be_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = [0; 4096];
        let _ = stream.read(&mut bytes).await.unwrap();
        stream.write_all(HELLO).await.unwrap();
    });
    let gateway = Setup::new()
        .route(&format!(
            "gitspace = \"app-a1b2c3\"\nupstream = \"unix:{}\"\nowner = \"alice\"",
            path.display()
        ))
        .start();
    assert_eq!(get(&gateway).await.text(), "hello");
}
