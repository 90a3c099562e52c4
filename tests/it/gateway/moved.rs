//! Routes that change under load: after the change no byte goes to the old target.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use reqwest::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::support::{
    Client, GITSPACE, HOST, Setup, TestGateway, Upstream, eventually, read_request, route,
};

async fn lead_to(gateway: &TestGateway, upstream: &Upstream) {
    let path = format!("/v1/routes/{GITSPACE}");
    let put = gateway
        .admin(Method::PUT, &path, Some(route(0, upstream.address)))
        .await;
    assert_eq!(put.status(), 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_change_every_request_goes_to_the_new_target() {
    let (old, new) = (Upstream::echo().await, Upstream::echo().await);
    let gateway = Arc::new(Setup::new().start());
    lead_to(&gateway, &old).await;
    let changed = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let clients = (0..8).map(|_| {
        let (gateway, changed, served) = (
            Arc::clone(&gateway),
            Arc::clone(&changed),
            Arc::clone(&served),
        );
        tokio::spawn(async move {
            let token = gateway.owner();
            let headers = [("x-gitspace-token", &*token)];
            let mut client = gateway.plain().await;
            let mut after = 0;
            while after < 50 {
                let target = if changed.load(Ordering::SeqCst) {
                    after += 1;
                    "/after"
                } else {
                    "/before"
                };
                let answer = client.get(target, &headers).await;
                // A request that was under way may be told that its target went.
                let ended = matches!(answer.status, 502 | 503);
                assert!(
                    answer.status == 200 || (target == "/before" && ended),
                    "{answer:?}"
                );
                served.fetch_add(1, Ordering::SeqCst);
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    eventually("load", || async {
        (served.load(Ordering::SeqCst) > 200).then_some(())
    })
    .await;
    lead_to(&gateway, &new).await;
    changed.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    assert!(old.seen().iter().all(|seen| seen.target == "/before"));
    let after = new
        .seen()
        .into_iter()
        .filter(|seen| seen.target == "/after");
    assert_eq!(after.count(), 8 * 50);
}

/// Answers with a head and a piece, or switches protocols, and then holds the stream.
async fn holding() -> Upstream {
    Upstream::scripted(|stream, _| async {
        let mut stream: BufReader<TcpStream> = BufReader::new(stream);
        let request = read_request(&mut stream).await.unwrap();
        let head = if request.header("upgrade").is_some() {
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: raw\r\n\r\nhello"
        } else {
            "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello"
        };
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty(), "bytes for another target: {rest:?}");
    })
    .await
}

async fn begin(gateway: &TestGateway, more: &[(&str, &str)]) -> Client {
    let token = gateway.owner();
    let mut headers = vec![("x-gitspace-token", &*token)];
    headers.extend_from_slice(more);
    let mut client = gateway.tls(HOST).await;
    client.begin("GET", "/", &headers, b"").await;
    client.head().await.unwrap();
    assert_eq!(client.read_exact(5).await.unwrap(), b"hello");
    client
}

#[tokio::test]
async fn streams_and_answers_of_the_old_target_end() {
    let (old, new) = (holding().await, Upstream::echo().await);
    let gateway = Setup::new().start();
    lead_to(&gateway, &old).await;
    let mut stream = begin(&gateway, &[("connection", "upgrade"), ("upgrade", "raw")]).await;
    let mut answer = begin(&gateway, &[]).await;
    lead_to(&gateway, &new).await;
    assert!(stream.closed().await.is_empty());
    assert!(answer.closed().await.is_empty(), "cut");
    for line in gateway.accounted(2).await {
        assert_eq!(
            (&line["reason"], &line["ended_by"]),
            (&"target-changed".into(), &"gateway".into())
        );
    }
}

#[tokio::test]
async fn a_change_that_leaves_the_target_leaves_its_streams() {
    let old = holding().await;
    let gateway = Setup::new().start();
    lead_to(&gateway, &old).await;
    let mut answer = begin(&gateway, &[]).await;
    let mut same = route(0, old.address);
    same["allow"] = serde_json::json!(["dave"]);
    let path = format!("/v1/routes/{GITSPACE}");
    gateway.admin(Method::PUT, &path, Some(same)).await;
    let next = tokio::time::timeout(std::time::Duration::from_millis(200), answer.closed());
    assert!(next.await.is_err(), "it goes on");
}
