//! Overload: when all places are taken the newest is told so, and nobody who is there is let go.
//!
//! Not here: limits per network and principal (`limits`).

use tokio::io::BufReader;

use crate::support::{
    Answer, Client, HOST, Outcome, RawH2, Setup, TestGateway, Upstream, eventually, read_request,
};

/// A gateway with places for so many connections, and a few to say that they are taken.
async fn gateway(connections: usize) -> (Upstream, TestGateway) {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.limits.connections = connections)
        .start();
    (upstream, gateway)
}

#[track_caller]
fn is_overloaded(answer: &Answer) {
    assert_eq!(answer.refusal(), (503, "overloaded".into()));
    assert_eq!(answer.header("retry-after"), Some("2"));
}

#[tokio::test]
async fn the_newest_connection_is_told_that_all_are_taken_and_the_others_stay() {
    let (upstream, gateway) = gateway(3).await;
    let token = gateway.owner();
    let headers = [("x-gitspace-token", &*token)];
    let mut first = gateway.plain().await;
    let mut second = gateway.tls(HOST).await;
    let mut third = RawH2::connect(&gateway, HOST).await;
    assert_eq!(first.get("/", &headers).await.status, 200);
    assert_eq!(second.get("/", &headers).await.status, 200);
    assert!(third.lives(1).await);

    let mut plain = gateway.plain().await;
    let answer = plain.get("/", &headers).await;
    is_overloaded(&answer);
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(plain.closed().await.is_empty());
    let mut tls = gateway.tls(HOST).await;
    is_overloaded(&tls.get("/", &headers).await);
    let mut h2 = RawH2::connect(&gateway, HOST).await;
    h2.request(1, "GET", &[], true).await;
    let Outcome::Answer(503, body) = h2.outcome(1).await else {
        panic!("no answer");
    };
    assert!(String::from_utf8(body).unwrap().contains("overloaded"));
    h2.ended().await;

    assert_eq!(first.get("/", &headers).await.status, 200);
    assert_eq!(second.get("/", &headers).await.status, 200);
    assert!(third.lives(3).await);
    assert_eq!(upstream.seen().len(), 6, "nothing of the others");
    assert_eq!(
        gateway
            .metric("cde_gateway_shed_connections_total", &[])
            .await,
        3.0
    );
    drop(first);
    eventually("a place is free", || async {
        let answer = gateway.plain().await.get("/", &headers).await;
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_says_nothing_does_not_keep_a_place_for_long_and_beyond_these_all_are_closed() {
    let (_upstream, gateway) = gateway(1).await;
    let token = gateway.owner();
    let headers = [("x-gitspace-token", &*token)];
    let mut only = gateway.plain().await;
    assert_eq!(only.get("/", &headers).await.status, 200);
    // Four places to say so, taken by who says nothing.
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(gateway.plain().await);
    }
    eventually("they have been accepted", || async {
        let shed = gateway
            .metric("cde_gateway_shed_connections_total", &[])
            .await;
        (shed == 4.0).then_some(())
    })
    .await;
    // In the clear there is an answer even so, before anything is asked; over TLS there is none.
    let answer = gateway.plain().await.answer().await.unwrap();
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("2"))
    );
    let mut tls = Client::plain(gateway.https).await;
    assert!(tls.closed().await.is_empty());
    assert!(
        gateway
            .metric("cde_gateway_refused_connections_total", &[])
            .await
            >= 2.0
    );
    for mut client in silent {
        client.closed().await;
    }
    is_overloaded(&gateway.plain().await.get("/", &headers).await);
    assert_eq!(only.get("/", &headers).await.status, 200);
}

#[tokio::test]
async fn requests_at_once_have_a_number_and_who_is_beyond_may_come_again() {
    let upstream = Upstream::scripted(|stream, _| async move {
        let mut stream = BufReader::new(stream);
        while read_request(&mut stream).await.is_ok() {}
    })
    .await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.limits.requests = 2)
        .start();
    let token = gateway.owner();
    let headers = [("x-gitspace-token", &*token)];
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut client = gateway.plain().await;
        client.begin("GET", "/", &headers, b"").await;
        waiting.push(client);
    }
    eventually("both are under way", || async {
        (gateway.metric("cde_gateway_streams", &[]).await == 2.0).then_some(())
    })
    .await;
    let mut client = gateway.plain().await;
    is_overloaded(&client.get("/", &headers).await);
    // The connection is not to blame.
    is_overloaded(&client.get("/", &headers).await);
    drop(waiting);
    eventually("both are let go", || async {
        (gateway.metric("cde_gateway_streams", &[]).await == 0.0).then_some(())
    })
    .await;
    let answer = client.get("/_gitspace/whoami", &headers).await;
    assert_eq!(answer.status, 200);
}
