//! gRPC through the gateway: HTTP/2 over TLS on the client's side, HTTP/2 in the clear on the gitspace's.
//!
//! Messages are bytes here; `tests/grpc/run.sh` shows the same with the library that people use.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cde_gateway::config::Timeout;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;

use crate::support::{
    GITSPACE, HOST, Kind, OWNER, Peer, PeerAnswer, Setup, TestGateway, eventually, soon, try_tls,
};

type Pieces = mpsc::Sender<Frame<Bytes>>;
type Body = BoxBody<Bytes, Infallible>;

/// A body that is written piece by piece.
fn body() -> (Pieces, Body) {
    let (pieces, mut queue) = mpsc::channel::<Frame<Bytes>>(1);
    let stream = futures_util::stream::poll_fn(move |context| {
        queue.poll_recv(context).map(|piece| piece.map(Ok))
    });
    (pieces, StreamBody::new(stream).boxed())
}

fn message(text: &str) -> Frame<Bytes> {
    let mut bytes = vec![0];
    bytes.extend((text.len() as u32).to_be_bytes());
    bytes.extend(text.as_bytes());
    Frame::data(bytes.into())
}

fn status(code: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    trailers.insert("x-app-trailer-bin", HeaderValue::from_static("AAEC"));
    trailers
}

fn answer(body: Body) -> PeerAnswer {
    Response::builder()
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap()
}

/// Sends every message back as it comes, and a status behind them.
async fn echo(request: Request<Incoming>) -> PeerAnswer {
    let (pieces, body) = body();
    tokio::spawn(async move {
        let mut messages = request.into_body();
        while let Some(Ok(frame)) = messages.frame().await {
            if pieces.send(frame).await.is_err() {
                return;
            }
        }
        let _ = pieces.send(Frame::trailers(status("0"))).await;
    });
    answer(body)
}

async fn gateway(peer: &Peer) -> TestGateway {
    Setup::new()
        .route(&format!(
            "gitspace = {GITSPACE:?}\nupstream = \"h2c://{}\"\nowner = {OWNER:?}",
            peer.address
        ))
        .start()
}

/// A client's connection.
async fn channel(gateway: &TestGateway) -> SendRequest<Body> {
    let stream = try_tls(gateway.https, &gateway.authority(), HOST, &[b"h2"])
        .await
        .unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    sender
}

fn call(gateway: &TestGateway, body: Body) -> Request<Body> {
    Request::post(format!("https://{HOST}/app.Service/Method"))
        .header("x-gitspace-token", gateway.owner())
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers")
        .header("grpc-timeout", "9S")
        .header("x-app-bin", "AAEC")
        .body(body)
        .unwrap()
}

#[tokio::test]
async fn messages_pass_both_ways_one_by_one_and_the_status_behind_them() {
    let peer = Peer::serving(Kind::h2c(), echo).await;
    let gateway = gateway(&peer).await;
    let mut channel = channel(&gateway).await;
    let (pieces, body) = body();
    let sent = channel.send_request(call(&gateway, body));
    let response = soon("the head before any message", sent).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/grpc");
    let mut answers = response.into_body();
    for text in ["one", "two", "three"] {
        pieces.send(message(text)).await.unwrap();
        let frame = soon("its answer", answers.frame()).await.unwrap().unwrap();
        assert_eq!(
            frame.into_data().unwrap(),
            message(text).into_data().unwrap()
        );
    }
    drop(pieces);
    let frame = soon("the status", answers.frame()).await.unwrap().unwrap();
    assert_eq!(frame.into_trailers().unwrap(), status("0"));
    let seen = peer.last();
    assert_eq!(seen.headers["te"], "trailers");
    assert_eq!(seen.headers["grpc-timeout"], "9S");
    assert_eq!(seen.headers["x-app-bin"], "AAEC");
    assert_eq!(seen.uri.path(), "/app.Service/Method");
}

#[tokio::test]
async fn one_message_and_many_messages_have_their_answer() {
    let peer = Peer::serving(Kind::h2c(), |request: Request<Incoming>| async move {
        let sum = request.into_body().collect().await.unwrap().to_bytes();
        let (pieces, body) = body();
        tokio::spawn(async move {
            let _ = pieces.send(Frame::data(sum)).await;
            let _ = pieces.send(Frame::trailers(status("0"))).await;
        });
        answer(body)
    })
    .await;
    let gateway = gateway(&peer).await;
    let mut channel = channel(&gateway).await;
    for count in [1, 100] {
        let (pieces, body) = body();
        let sent = channel.send_request(call(&gateway, body));
        for _ in 0..count {
            pieces.send(message("x")).await.unwrap();
        }
        drop(pieces);
        let response = soon("an answer", sent).await.unwrap();
        let collected = soon("its end", response.into_body().collect())
            .await
            .unwrap();
        assert_eq!(collected.trailers(), Some(&status("0")));
        assert_eq!(collected.to_bytes().len(), count * 6);
    }
    assert_eq!(peer.connections(), 1);
}

#[tokio::test]
async fn a_status_without_messages_passes_in_the_head() {
    let peer = Peer::serving(Kind::h2c(), |_| async {
        Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "5")
            .header("grpc-message", "no such thing")
            .body(BoxBody::default())
            .unwrap()
    })
    .await;
    let gateway = gateway(&peer).await;
    let (pieces, body) = body();
    drop(pieces);
    let response = channel(&gateway)
        .await
        .send_request(call(&gateway, body))
        .await
        .unwrap();
    assert_eq!(response.headers()["grpc-status"], "5");
    assert_eq!(response.headers()["grpc-message"], "no such thing");
    let collected = response.into_body().collect().await.unwrap();
    assert!(collected.to_bytes().is_empty());
}

/// Counts the requests under way, and ends with them.
struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_call_that_its_client_cancels_is_cancelled_at_the_gitspace() {
    let under_way = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&under_way);
    let peer = Peer::serving(Kind::h2c(), move |request: Request<Incoming>| {
        count.fetch_add(1, Ordering::SeqCst);
        let this = UnderWay(Arc::clone(&count));
        async move {
            if request.headers().contains_key("x-head-first") {
                let (pieces, body) = body();
                tokio::spawn(async move {
                    let _ = pieces.send(message("one")).await;
                    pieces.closed().await;
                    drop(this);
                });
                return answer(body);
            }
            let _this = this;
            std::future::pending().await
        }
    })
    .await;
    let gateway = gateway(&peer).await;
    let mut channel = channel(&gateway).await;
    let none_under_way = || async { (under_way.load(Ordering::SeqCst) == 0).then_some(()) };

    let (_pieces, body_) = body();
    let sent = channel.send_request(call(&gateway, body_));
    let task = tokio::spawn(sent);
    eventually("the call came", || async {
        (under_way.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    task.abort();
    eventually("it was cancelled before its head", none_under_way).await;

    let (pieces, body_) = body();
    let mut request = call(&gateway, body_);
    let value = HeaderValue::from_static("1");
    request.headers_mut().insert("x-head-first", value);
    let response = channel.send_request(request).await.unwrap();
    let mut answers = response.into_body();
    answers.frame().await.unwrap().unwrap();
    assert_eq!(under_way.load(Ordering::SeqCst), 1);
    drop((answers, pieces));
    eventually("it was cancelled after its head", none_under_way).await;
    assert_eq!(peer.connections(), 1, "the connection serves the next");
}

#[tokio::test]
async fn refusals_of_ours_are_statuses_that_a_client_understands() {
    let peer = Peer::serving(Kind::h2c(), |_| std::future::pending()).await;
    let setup = Setup::new()
        .with(|config| {
            config.timeouts.response_head = Timeout::After(Duration::from_millis(200));
        })
        .route(&format!(
            "gitspace = {GITSPACE:?}\nupstream = \"h2c://{}\"\nowner = {OWNER:?}",
            peer.address
        ));
    let gateway = setup.start();
    let mut channel = channel(&gateway).await;
    let (pieces, body_) = body();
    drop(pieces);
    let response = channel.send_request(call(&gateway, body_)).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["grpc-status"], "4", "deadline exceeded");

    let (pieces, body_) = body();
    drop(pieces);
    let mut request = call(&gateway, body_);
    request.headers_mut().remove("x-gitspace-token");
    let response = channel.send_request(request).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "16", "unauthenticated");
}
