//! Limits that change while requests and streams are under way: they count at once, and end nothing.

use cde_gateway::config::Limits;
use tokio_tungstenite::tungstenite::Error;

use super::websocket::{self, Socket};
use crate::support::{Client, Setup, TestGateway, Upstream};

fn change(gateway: &TestGateway, change: impl FnOnce(&mut Limits)) {
    let mut settings = gateway.setup.settings.clone();
    change(&mut settings.config.limits);
    gateway.handle.reload(&settings).unwrap();
}

/// A stream, or which limit refused it.
async fn open(gateway: &TestGateway) -> Result<Socket, String> {
    match websocket::open(gateway).await {
        Ok(socket) => Ok(socket),
        Err(Error::Http(answer)) => {
            assert_eq!(answer.status(), 429);
            assert_eq!(answer.headers()["retry-after"], "1");
            let policy = answer.headers()["ratelimit-policy"].to_str().unwrap();
            Err(policy.to_owned())
        }
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn fewer_streams_at_once_end_none_and_admit_no_new_ones() {
    let upstream = websocket::echo().await;
    let gateway = Setup::to(&upstream).start();
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(open(&gateway).await.unwrap());
    }
    change(&gateway, |limits| limits.streams_per_principal = 2);
    let policy = "\"principal-streams\";q=2;qu=\"concurrent-requests\"";
    assert_eq!(open(&gateway).await.err().as_deref(), Some(policy));
    for stream in &mut streams {
        websocket::say(stream, "still here").await;
    }
    change(&gateway, |limits| limits.streams_per_principal = 4);
    streams.push(open(&gateway).await.unwrap());
    // Those that were there before still count.
    let policy = "\"principal-streams\";q=4;qu=\"concurrent-requests\"";
    assert_eq!(open(&gateway).await.err().as_deref(), Some(policy));
}

#[tokio::test]
async fn rates_of_requests_and_numbers_of_connections_change_while_it_runs() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| {
            config.limits.requests_per_principal = 1.try_into().unwrap();
            config.limits.burst_per_principal = Some(100.try_into().unwrap());
        })
        .start();
    let token = gateway.owner();
    let headers = [("x-gitspace-token", &*token)];
    let mut client = gateway.plain().await;
    let refused = async |client: &mut Client| {
        for _ in 0..1_000 {
            if client.get("/", &headers).await.status == 429 {
                return;
            }
        }
        panic!("no limit");
    };
    refused(&mut client).await;
    // Who used up the old rate does not wait by it.
    change(&gateway, |limits| {
        limits.requests_per_principal = 100_000.try_into().unwrap();
        limits.burst_per_principal = None;
    });
    for _ in 0..200 {
        assert_eq!(client.get("/", &headers).await.status, 200);
    }
    change(&gateway, |limits| limits.connections_per_network = 1);
    assert!(gateway.plain().await.closed().await.is_empty());
    assert_eq!(client.get("/", &headers).await.status, 200);
    change(&gateway, |limits| limits.connections_per_network = 100);
    let mut other = gateway.plain().await;
    assert_eq!(other.get("/", &headers).await.status, 200);
}
