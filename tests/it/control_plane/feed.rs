//! Gateways: snapshot and delta, waking, redeeming, reporting.

use cde_gateway::api::{access::Visibility, feed::FeedKind, gitspace::Gitspace, route::RouteState};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::support::*;

#[tokio::test]
async fn a_new_gateway_gets_everything_and_then_what_changed() {
    let plane = Plane::start().await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    let running = plane.running(&delegate).await;
    let all = plane.feed("", 0, 0).await;
    assert_eq!((all.kind, all.lease), (FeedKind::Snapshot, 300));
    let [route] = all.routes.as_slice() else {
        panic!("one route")
    };
    assert_eq!(
        (route.gitspace.clone(), route.state),
        (running.id.clone(), RouteState::Running)
    );
    assert_eq!(route.owner.as_deref(), Some("alice"));
    assert_eq!(route.address, Some("127.0.0.9".parse().unwrap()));
    assert_eq!(route.ide.as_ref().unwrap().port, 40_000);
    assert_eq!(
        (route.ports[&3000].port, route.ports[&3000].visibility),
        (13_000, Visibility::Private)
    );
    assert_eq!(
        (route.ports[&8080].port, route.ports[&8080].visibility),
        (18_080, Visibility::Public)
    );

    let nothing = plane.feed(&all.epoch, all.revision, 0).await;
    assert_eq!(
        (nothing.kind, nothing.routes.len(), nothing.revision),
        (FeedKind::Delta, 0, all.revision)
    );
    plane.act(&running, "stop").await;
    let delta = plane.feed(&all.epoch, all.revision, 0).await;
    let stopping = &delta.routes[0];
    assert_eq!(
        (delta.kind, stopping.state, stopping.address),
        (FeedKind::Delta, RouteState::Stopping, None)
    );
    assert!(stopping.generation > route.generation);
    assert!(
        stopping.ide.is_some() && stopping.ports.len() == 2,
        "its ports are still known"
    );

    for (epoch, after) in [("other", all.revision), (&all.epoch, delta.revision + 100)] {
        assert_eq!(plane.feed(epoch, after, 0).await.kind, FeedKind::Snapshot);
    }
}

#[tokio::test]
async fn a_waiting_gateway_is_told_of_every_state_and_of_the_end() {
    let plane = Plane::start().await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    let empty = plane.feed("", 0, 0).await;
    let mut after = empty.revision;
    let mut states = Vec::new();
    let (feed, gitspace) = tokio::join!(plane.feed(&empty.epoch, after, 9), plane.create());
    states.push(feed.routes[0].state);
    after = feed.revision;
    let (feed, ()) = tokio::join!(
        plane.feed(&empty.epoch, after, 9),
        delegate.bring_up(&plane)
    );
    states.push(feed.routes[0].state);
    after = feed.revision;
    let (feed, _) = tokio::join!(
        plane.feed(&empty.epoch, after, 9),
        plane.act(&gitspace, "stop")
    );
    states.push(feed.routes[0].state);
    after = feed.revision;
    let down = async {
        delegate.perform(&plane, "agent.stop").await;
        delegate.perform(&plane, "vm.suspend").await;
    };
    let (feed, ()) = tokio::join!(plane.feed(&empty.epoch, after, 9), down);
    states.push(feed.routes[0].state);
    assert_eq!(
        states,
        [
            RouteState::Starting,
            RouteState::Running,
            RouteState::Stopping,
            RouteState::Stopped
        ]
    );
    let last = feed.routes[0].generation;
    let (feed, _) = tokio::join!(
        plane.feed(&empty.epoch, feed.revision, 9),
        plane.delete(&gitspace)
    );
    assert!(feed.routes.is_empty());
    assert_eq!(feed.removed[0].gitspace, gitspace.id);
    assert!(feed.removed[0].generation > last);
    assert!(plane.feed("", 0, 0).await.routes.is_empty());
}

#[tokio::test]
async fn a_gitspace_that_was_never_started_is_told_as_stopped() {
    let plane = Plane::start().await;
    let mut asked = new_gitspace();
    asked["start"] = false.into();
    let gitspace: Gitspace = plane
        .post("/v1/gitspaces", USER, asked)
        .await
        .json()
        .await
        .unwrap();
    let feed = plane.feed("", 0, 0).await;
    assert_eq!(
        (&feed.routes[0].gitspace, feed.routes[0].state),
        (&gitspace.id, RouteState::Stopped)
    );
    assert_eq!(feed.routes[0].instance, None);
}

#[tokio::test]
async fn the_first_redemption_of_a_ticket_wins_also_over_a_restart() {
    let plane = Plane::start().await;
    let exp = jiff::Timestamp::now().as_second() + 60;
    let ticket = json!({"jti": "t-1", "exp": exp});
    let first = plane.post("/v1/feed/redeem", GATEWAY, ticket.clone()).await;
    assert_eq!(first.status(), StatusCode::OK);
    let (status, reason, _) =
        refusal(plane.post("/v1/feed/redeem", GATEWAY, ticket.clone()).await).await;
    assert_eq!((status, reason.as_str()), (409, "ticket-used"));
    let plane = plane.restarted().await;
    assert_eq!(
        refusal(plane.post("/v1/feed/redeem", GATEWAY, ticket).await)
            .await
            .1,
        "ticket-used"
    );
    for (jti, exp, reason) in [
        ("t-2", exp - 200, "expired-token"),
        ("t-2", exp + 1_000_000, "bad-request"),
        ("", exp, "bad-request"),
    ] {
        let asked = json!({"jti": jti, "exp": exp});
        assert_eq!(
            refusal(plane.post("/v1/feed/redeem", GATEWAY, asked).await)
                .await
                .1,
            reason
        );
    }
}

#[tokio::test]
async fn one_of_many_redemptions_at_once_wins() {
    let plane = Plane::start().await;
    let exp = jiff::Timestamp::now().as_second() + 60;
    let tries =
        (0..16).map(|_| plane.post("/v1/feed/redeem", GATEWAY, json!({"jti": "t", "exp": exp})));
    let answers = futures_util::future::join_all(tries).await;
    let won = answers
        .iter()
        .filter(|answer| answer.status() == StatusCode::OK)
        .count();
    assert_eq!(won, 1);
}

#[tokio::test]
async fn reports_are_taken_within_bounds() {
    let plane = Plane::start().await;
    let report = |name: &str| json!({"gateway": name, "version": "0", "streams": 1, "revision": 2, "activity": [["a-aaaaaa", 5]]});
    let taken = plane.post("/v1/feed/report", GATEWAY, report("gw-1")).await;
    assert_eq!(taken.status(), StatusCode::OK);
    let long = "x".repeat(200);
    assert_eq!(
        refusal(plane.post("/v1/feed/report", GATEWAY, report(&long)).await)
            .await
            .0,
        400
    );
    let many: Vec<_> = (0..20_000).map(|n| (format!("a-{n:06}"), 5)).collect();
    let mut large = report("gw-1");
    large["activity"] = json!(many);
    assert_eq!(
        plane.post("/v1/feed/report", GATEWAY, large).await.status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn what_delegates_say_of_typing_in_terminals_is_told_to_every_gateway() {
    let plane = Plane::start().await;
    let delegate = Delegate::register(&plane, "d", "r1").await;
    let told = async |gateway: &str| -> Value {
        let report = json!({"gateway": gateway, "version": "0", "streams": 0, "revision": 0, "activity": []});
        let answer = plane.post("/v1/feed/report", GATEWAY, report).await;
        answer.json::<Value>().await.unwrap()["typed"].take()
    };
    assert_eq!(told("gw-1").await, json!([]));
    let beat = async |id: &str, typed: Value| {
        let path = format!("/v1/delegates/{id}/heartbeat");
        let beat = plane.post(&path, DELEGATE, typed).await;
        beat.status().as_u16()
    };
    let typed = json!({"tasks": [], "typed": [{"gitspace": "api-k3x9q2", "ago": 7}]});
    assert_eq!(beat("nobody", typed.clone()).await, 404);
    assert_eq!(told("gw-1").await, json!([]));
    assert_eq!(beat(&delegate.id, typed).await, 204);
    // One that does not know of it says nothing.
    assert_eq!(beat(&delegate.id, json!({"tasks": []})).await, 204);
    for gateway in ["gw-1", "gw-1", "gw-2"] {
        let told = told(gateway).await;
        assert_eq!(told[0]["gitspace"], "api-k3x9q2");
        let ago = told[0]["ago"].as_u64().unwrap();
        assert!((7..60).contains(&ago), "{ago}");
    }
}
