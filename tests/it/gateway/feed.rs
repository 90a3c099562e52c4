//! Following a control plane: routes and keys that come, change, go, are wrong, or stay away.

use cde_gateway::config::FailMode;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    ControlPlane, GITSPACE, OWNER, Setup, TestGateway, Upstream, eventually, now, route,
};

async fn status(gateway: &TestGateway, token: &str) -> u16 {
    let headers = [("x-gitspace-token", token)];
    gateway.plain().await.get("/", &headers).await.status
}

async fn becomes(gateway: &TestGateway, token: &str, expected: u16) {
    eventually(&format!("status {expected}"), || async {
        (status(gateway, token).await == expected).then_some(())
    })
    .await;
}

async fn started(upstream: &Upstream) -> (ControlPlane, TestGateway, String) {
    let plane = ControlPlane::start().await;
    plane.snapshot(1, 60, &[route(1, upstream.address)]);
    let gateway = Setup::new().following(&plane, FailMode::Static).start();
    let token = plane.issuer.token(OWNER);
    becomes(&gateway, &token, 200).await;
    (plane, gateway, token)
}

#[tokio::test]
async fn a_snapshot_brings_routes_and_keys() {
    let upstream = Upstream::echo().await;
    let (plane, gateway, _) = started(&upstream).await;
    plane.asked_after(1).await;
    assert_eq!(gateway.metric("cde_gateway_feed_revision", &[]).await, 1.0);
    assert_eq!(gateway.metric("cde_gateway_routes", &[]).await, 1.0);
    // The configured issuer's `alice` is somebody else.
    assert_eq!(status(&gateway, &gateway.owner()).await, 404);
}

#[tokio::test]
async fn changes_take_effect_and_an_older_generation_does_not() {
    let (first, second) = (Upstream::echo().await, Upstream::echo().await);
    let (plane, gateway, token) = started(&first).await;
    plane.delta(2, &[route(5, second.address)], &[]);
    plane.asked_after(2).await;
    assert_eq!(status(&gateway, &token).await, 200);
    assert_eq!(second.seen().len(), 1);
    plane.delta(3, &[route(4, first.address)], &[]);
    plane.asked_after(3).await;
    assert_eq!(status(&gateway, &token).await, 200);
    assert_eq!(second.seen().len(), 2, "generation 4 is older than 5");
    let removed = json!({ "gitspace": GITSPACE, "generation": 6 });
    plane.delta(4, &[], &[removed]);
    plane.asked_after(4).await;
    assert_eq!(status(&gateway, &token).await, 404);
}

#[tokio::test]
async fn an_answer_that_is_no_feed_changes_nothing() {
    let upstream = Upstream::echo().await;
    let (plane, gateway, token) = started(&upstream).await;
    let mut half: Value = serde_json::from_str(&plane.feed("delta", 9, 60, &[], &[])).unwrap();
    half["routes"] = json!([{ "gitspace": GITSPACE, "ide": { "port": "not a port" } }]);
    let mut keys: Value = serde_json::from_str(&plane.feed("snapshot", 9, 60, &[], &[])).unwrap();
    keys["keys"]["jwks"] = json!({ "keys": [] });
    for (n, bad) in ["<html>", &half.to_string(), &keys.to_string()]
        .into_iter()
        .enumerate()
    {
        plane.tell(bad.to_owned());
        eventually("the failure is counted", || async {
            let failures = gateway.metric("cde_gateway_feed_failures_total", &[]).await;
            (failures > n as f64).then_some(())
        })
        .await;
        assert_eq!(status(&gateway, &token).await, 200, "{bad}");
    }
    plane.delta(2, &[], &[json!({ "gitspace": GITSPACE, "generation": 2 })]);
    becomes(&gateway, &token, 404).await;
}

#[tokio::test]
async fn a_route_that_may_not_be_used_does_not_stop_the_others() {
    let upstream = Upstream::echo().await;
    let plane = ControlPlane::start().await;
    let mut forbidden = route(1, upstream.address);
    forbidden["gitspace"] = "other-a1b2c3".into();
    forbidden["address"] = "169.254.169.254".into();
    plane.snapshot(1, 60, &[forbidden, route(1, upstream.address)]);
    let gateway = Setup::new().following(&plane, FailMode::Static).start();
    becomes(&gateway, &plane.issuer.token(OWNER), 200).await;
    assert_eq!(gateway.metric("cde_gateway_routes", &[]).await, 1.0);
}

#[tokio::test]
async fn a_gateway_starts_and_serves_while_its_control_plane_is_away() {
    let upstream = Upstream::echo().await;
    let (plane, gateway, token) = started(&upstream).await;
    plane.asked_after(1).await;
    drop(plane);
    assert_eq!(status(&gateway, &token).await, 200);
    let setup = gateway.setup.clone();
    gateway.stop().await;
    let gateway = setup.start();
    becomes(&gateway, &token, 200).await;
}

#[tokio::test]
async fn a_gateway_that_starts_again_asks_only_for_what_changed() {
    let upstream = Upstream::echo().await;
    let (plane, gateway, token) = started(&upstream).await;
    plane.asked_after(1).await;
    let setup = gateway.setup.clone();
    gateway.stop().await;
    let before = plane.asked().len();
    let gateway = setup.start();
    becomes(&gateway, &token, 200).await;
    let first = eventually("it asks", || async { plane.asked().get(before).cloned() }).await;
    assert_eq!((&*first.epoch, first.after), ("epoch-1", 1));
}

#[tokio::test]
async fn another_epoch_starts_generations_anew() {
    let (first, second) = (Upstream::echo().await, Upstream::echo().await);
    let (plane, gateway, token) = started(&first).await;
    plane.delta(2, &[route(50, first.address)], &[]);
    plane.asked_after(2).await;
    let snapshot = plane.feed("snapshot", 1, 60, &[route(1, second.address)], &[]);
    plane.tell(snapshot.replace("epoch-1", "epoch-2"));
    eventually("the new epoch's route", || async {
        // A request that the change meets on its way is told that its target went.
        status(&gateway, &token).await;
        (!second.seen().is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_ran_out_closes_the_feeds_routes_only_where_that_is_wanted() {
    let upstream = Upstream::echo().await;
    for (mode, expected) in [(FailMode::Static, 200), (FailMode::Closed, 503)] {
        let plane = ControlPlane::start().await;
        plane.snapshot(1, 0, &[route(1, upstream.address)]);
        let address = upstream.address;
        let gateway = Setup::new()
            .route(&format!(
                "host = \"static.test\"\nupstream = \"http://{address}\"\nvisibility = \"public\""
            ))
            .following(&plane, mode)
            .start();
        let token = plane.issuer.token(OWNER);
        becomes(&gateway, &token, expected).await;
        if expected == 503 {
            let headers = [("x-gitspace-token", &*token)];
            let answer = gateway.plain().await.get("/", &headers).await;
            assert_eq!(answer.reason(), "control-plane-stale");
            assert!(answer.header("retry-after").is_some());
            // Another answer renews it.
            plane.delta(2, &[], &[]);
            becomes(&gateway, &token, 200).await;
        }
        let answer = gateway.plain().await.to("static.test").get("/", &[]).await;
        assert_eq!(answer.status, 200, "static routes have no lease");
    }
}

#[tokio::test]
async fn an_older_answer_of_the_same_epoch_changes_nothing() {
    let (first, second) = (Upstream::echo().await, Upstream::echo().await);
    let (plane, gateway, token) = started(&first).await;
    plane.delta(7, &[route(5, second.address)], &[]);
    plane.asked_after(7).await;
    for kind in ["snapshot", "delta"] {
        let before = plane.asked().len();
        plane.tell(plane.feed(kind, 6, 60, &[], &[]));
        let asked = eventually("it asks again", || async {
            plane.asked().get(before).cloned()
        })
        .await;
        assert_eq!((&*asked.epoch, asked.after), ("epoch-1", 7));
        assert_eq!(status(&gateway, &token).await, 200);
    }
    // A removal that is older than the route, too.
    let removed = json!({ "gitspace": GITSPACE, "generation": 4 });
    plane.delta(8, &[], &[removed]);
    plane.asked_after(8).await;
    assert_eq!(status(&gateway, &token).await, 200);
    assert_eq!(second.seen().len(), 3);
}

#[tokio::test]
async fn a_change_to_another_history_makes_it_ask_for_everything() {
    let upstream = Upstream::echo().await;
    let (plane, gateway, token) = started(&upstream).await;
    plane.asked_after(1).await;
    let before = plane.asked().len();
    let foreign = plane.feed(
        "delta",
        9,
        60,
        &[],
        &[json!({ "gitspace": GITSPACE, "generation": 9 })],
    );
    plane.tell(foreign.replace("epoch-1", "epoch-2"));
    let asked = eventually("it asks again", || async {
        plane.asked().get(before).cloned()
    })
    .await;
    assert_eq!((&*asked.epoch, asked.after), ("", 0));
    assert_eq!(status(&gateway, &token).await, 200);
}

/// What restarts while its control plane is away begins without a lease: it cannot know how long it was off.
#[tokio::test]
async fn a_gateway_lives_through_the_absence_of_its_control_plane_as_it_is_told_to() {
    let upstream = Upstream::echo().await;
    for (mode, meanwhile) in [(FailMode::Static, 200), (FailMode::Closed, 503)] {
        let plane = ControlPlane::start().await;
        plane.snapshot(1, 3, &[route(1, upstream.address)]);
        let gateway = Setup::new().following(&plane, mode).start();
        let token = plane.issuer.token(OWNER);
        becomes(&gateway, &token, 200).await;
        plane.away(true);
        if meanwhile == 200 {
            eventually("it notices", || async {
                let failures = gateway.metric("cde_gateway_feed_failures_total", &[]).await;
                (failures >= 3.0).then_some(())
            })
            .await;
        }
        becomes(&gateway, &token, meanwhile).await;
        let setup = gateway.setup.clone();
        gateway.stop().await;
        let gateway = setup.start();
        becomes(&gateway, &token, meanwhile).await;
        plane.away(false);
        plane.delta(2, &[route(2, upstream.address)], &[]);
        plane.asked_after(2).await;
        becomes(&gateway, &token, 200).await;
    }
}

#[tokio::test]
async fn what_it_was_told_in_changes_is_there_after_a_restart_without_a_control_plane() {
    let upstream = Upstream::echo().await;
    let (plane, gateway, token) = started(&upstream).await;
    let mut other = route(3, upstream.address);
    other["gitspace"] = "other-a1b2c3".into();
    plane.delta(2, &[other], &[]);
    plane.delta(3, &[], &[json!({ "gitspace": GITSPACE, "generation": 2 })]);
    plane.asked_after(3).await;
    becomes(&gateway, &token, 404).await;
    drop(plane);
    let setup = gateway.setup.clone();
    gateway.stop().await;
    let gateway = setup.start();
    becomes(&gateway, &token, 404).await;
    let routes = gateway.admin(Method::GET, "/v1/routes", None).await;
    let routes: Value = routes.json().await.unwrap();
    assert_eq!(routes.as_array().unwrap().len(), 1);
    assert_eq!(
        (&routes[0]["gitspace"], &routes[0]["generation"]),
        (&"other-a1b2c3".into(), &3.into())
    );
}

#[tokio::test]
async fn a_clock_that_is_off_is_seen_by_the_metric_and_serves_on() {
    let upstream = Upstream::echo().await;
    let (plane, gateway, token) = started(&upstream).await;
    let skew = async || gateway.metric("cde_gateway_clock_skew_seconds", &[]).await;
    assert!(skew().await.abs() <= 10.0);
    for (revision, theirs, least) in [(2, -1000, 1000.0), (3, 1000, -1000.0), (4, 0, 0.0)] {
        let text = plane.feed("delta", revision, 60, &[], &[]);
        let mut feed: Value = serde_json::from_str(&text).unwrap();
        feed["time"] = (now() + theirs).into();
        plane.tell(feed.to_string());
        plane.asked_after(revision).await;
        let ahead = skew().await;
        assert!((least..least + 10.0).contains(&ahead), "{ahead}");
        assert_eq!(status(&gateway, &token).await, 200);
    }
}
