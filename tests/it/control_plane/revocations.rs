//! Revocations at the control plane: kept, told to gateways, passed on by them.

use cde_gateway::api::{
    feed::FeedKind,
    revocation::{Revocation, RevocationKind},
};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::support::*;

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

async fn revoke(plane: &Plane, asked: Value) -> Revocation {
    let answer = plane.post("/v1/revocations", USER, asked).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    answer.json().await.unwrap()
}

#[tokio::test]
async fn a_revocation_reaches_gateways_that_wait_and_those_that_come_later_also_over_a_restart() {
    let plane = Plane::start().await;
    let before = plane.feed("", 0, 0).await;
    assert!(before.revoked.is_empty());
    let asked = json!({ "kind": "sub", "id": "github:ada", "reason": "left", "by": "somebody" });
    let (told, counts) = tokio::join!(
        plane.feed(&before.epoch, before.revision, 9),
        revoke(&plane, asked)
    );
    assert_eq!(
        (counts.kind, &*counts.id),
        (RevocationKind::Sub, "github:ada")
    );
    assert_eq!(counts.by.as_deref(), Some("alice"), "it is who asked");
    assert!(counts.issued_before.unwrap() >= now() - 10);
    assert_eq!(
        (told.kind, &told.revoked),
        (FeedKind::Delta, &vec![counts.clone()])
    );
    assert!(plane.feed_after(&told).await.revoked.is_empty());
    let plane = plane.restarted().await;
    assert_eq!(
        plane.feed("", 0, 0).await.revoked,
        std::slice::from_ref(&counts)
    );
    let listed: Vec<Revocation> = plane
        .get("/v1/revocations", USER)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(listed, [counts]);
}

#[tokio::test]
async fn a_second_one_never_revokes_less_and_one_that_is_over_is_not_told() {
    let plane = Plane::start().await;
    let until = now() + 3600;
    let first = json!({ "kind": "sid", "id": "l", "issued_before": 500, "until": until });
    revoke(&plane, first.clone()).await;
    let feed = plane.feed("", 0, 0).await;
    let same = revoke(&plane, first).await;
    assert_eq!(
        plane.feed_after(&feed).await.revision,
        feed.revision,
        "nothing is new"
    );
    let more = json!({ "kind": "sid", "id": "l", "issued_before": 400 });
    let joined = revoke(&plane, more).await;
    assert_eq!((same.until, joined.until), (Some(until), None));
    assert_eq!(joined.issued_before, Some(500));
    assert_eq!(plane.feed_after(&feed).await.revoked, [joined]);
    let over = json!({ "kind": "jti", "id": "t", "issued_before": 5, "until": 6 });
    revoke(&plane, over).await;
    assert_eq!(plane.feed("", 0, 0).await.revoked.len(), 1);
}

#[tokio::test]
async fn gateways_pass_on_what_they_are_told_and_say_by_whom() {
    let plane = Plane::start().await;
    let asked = json!({ "kind": "gitspace", "id": "api-k3x9q2", "by": "root" });
    let taken = plane.post("/v1/feed/revoke", GATEWAY, asked).await;
    assert_eq!(taken.status(), StatusCode::CREATED);
    let revoked = plane.feed("", 0, 0).await.revoked;
    assert_eq!(revoked[0].by.as_deref(), Some("root"));
}

#[tokio::test]
async fn who_may_not_and_what_cannot_be_is_refused() {
    let plane = Plane::start().await;
    let good = json!({ "kind": "sub", "id": "ada" });
    for (path, token) in [("/v1/revocations", GATEWAY), ("/v1/feed/revoke", USER)] {
        let refused = refusal(plane.post(path, token, good.clone()).await).await;
        assert_eq!((refused.0, &*refused.1), (401, "invalid-token"));
    }
    for (bad, said) in [
        (json!({ "kind": "user", "id": "a" }), "unknown variant"),
        (
            json!({ "kind": "gitspace", "id": "Not one" }),
            "no gitspace such as",
        ),
        (json!({ "kind": "sub", "id": "" }), "`id` must have"),
        (
            json!({ "kind": "sub", "id": "a", "issued_before": 5, "until": 5 }),
            "`until`",
        ),
    ] {
        let (status, reason, detail) =
            refusal(plane.post("/v1/revocations", USER, bad).await).await;
        assert_eq!((status, &*reason), (400, "bad-request"));
        assert!(detail.contains(said), "{detail}");
    }
    assert!(plane.feed("", 0, 0).await.revoked.is_empty());
}
