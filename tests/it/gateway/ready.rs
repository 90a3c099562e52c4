//! `/readyz`: whether the gateway should get traffic, and every reason why not.
//!
//! Not here: what a stop does to traffic (`stop`).

use cde_gateway::config::FailMode;
use reqwest::Method;
use serde_json::Value;

use crate::support::{ControlPlane, Setup, TestGateway, Upstream, eventually, route};

/// Waits until exactly these reasons are given, and none: 200.
async fn becomes(gateway: &TestGateway, reasons: &[&str]) {
    eventually(&format!("{reasons:?}"), || async {
        let answer = gateway.admin(Method::GET, "/readyz", None).await;
        let status = answer.status().as_u16();
        let told: Value = answer.json().await.unwrap();
        let given = told["reasons"].as_array().unwrap();
        assert_eq!(told["ready"], status == 200);
        assert_eq!(given.is_empty(), status == 200);
        assert!(matches!(status, 200 | 503));
        assert!(
            given
                .iter()
                .all(|reason| !reason["detail"].as_str().unwrap().is_empty())
        );
        let given: Vec<_> = given
            .iter()
            .map(|reason| reason["reason"].as_str().unwrap())
            .collect();
        (given == reasons).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_gateway_is_ready_when_its_workers_accept_and_not_once_it_stops() {
    let gateway = Setup::new().start();
    becomes(&gateway, &[]).await;
    let silent = Upstream::scripted(|stream, _| async move {
        let _stream = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let gateway = Setup::to(&silent).start();
    becomes(&gateway, &[]).await;
    let token = gateway.owner();
    let mut client = gateway.plain().await;
    client
        .begin("GET", "/", &[("x-gitspace-token", &token)], b"")
        .await;
    eventually("the request", || async {
        (silent.connections() == 1).then_some(())
    })
    .await;
    gateway.begin_stop();
    becomes(&gateway, &["draining"]).await;
    let health = gateway.admin(Method::GET, "/healthz", None).await;
    assert_eq!(health.status(), 200, "it lives still");
}

#[tokio::test]
async fn a_gateway_that_knows_no_routes_waits_for_its_control_plane() {
    let upstream = Upstream::echo().await;
    let plane = ControlPlane::start().await;
    let gateway = Setup::new().following(&plane, FailMode::Static).start();
    becomes(&gateway, &["feed-never-answered"]).await;
    plane.snapshot(1, 60, &[route(1, upstream.address)]);
    becomes(&gateway, &[]).await;
    plane.asked_after(1).await;
    drop(plane);
    let setup = gateway.setup.clone();
    gateway.stop().await;
    becomes(&setup.start(), &[]).await;
}

#[tokio::test]
async fn a_lease_that_ran_out_counts_only_where_it_closes_routes() {
    let upstream = Upstream::echo().await;
    for (mode, reasons) in [
        (FailMode::Static, &[][..]),
        (FailMode::Closed, &["feed-stale"]),
    ] {
        let plane = ControlPlane::start().await;
        plane.snapshot(1, 0, &[route(1, upstream.address)]);
        let gateway = Setup::new().following(&plane, mode).start();
        plane.asked_after(1).await;
        becomes(&gateway, reasons).await;
        plane.delta(2, &[], &[]);
        becomes(&gateway, &[]).await;
    }
}
