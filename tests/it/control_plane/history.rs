//! The feed's history: copies that are restored, changes that were forgotten, and what many gateways get at once.

use std::{fs, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use cde_gateway::{api::feed::FeedKind, control_plane::Timing};
use reqwest::Method;

use super::support::*;
use crate::support::eventually;

async fn again(folder: tempfile::TempDir) -> Plane {
    Plane::start_on(folder, Timing::default()).await
}

#[tokio::test]
async fn a_restart_is_the_same_history() {
    let plane = Plane::start().await;
    let first = plane.feed("", 0, 0).await;
    plane.create().await;
    let plane = plane.restarted().await;
    let delta = plane.feed_after(&first).await;
    assert_eq!((delta.kind, delta.routes.len()), (FeedKind::Delta, 1));
    assert_eq!(delta.epoch, first.epoch);
    assert_ne!(delta.run, first.run);
    let plane = plane.restarted().await;
    let nothing = plane.feed_after(&delta).await;
    assert_eq!((nothing.kind, nothing.routes.len()), (FeedKind::Delta, 0));
}

#[tokio::test]
async fn a_restored_database_has_another_epoch_once_a_gateway_knows_more() {
    let plane = Plane::start().await;
    plane.create().await;
    let early = plane.feed("", 0, 0).await;
    let folder = plane.stop().await;
    let database = folder.path().join("control-plane.db");
    let copy = fs::read(&database).unwrap();
    let plane = again(folder).await;
    plane.create().await;
    let late = plane.feed_after(&early).await;
    assert_eq!(late.epoch, early.epoch);

    // Whether or not the copy has as many revisions again by the time that the gateway comes.
    for more in [0, 1, 3] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("control-plane.db"), &copy).unwrap();
        let restored = again(folder).await;
        for _ in 0..more {
            restored.create().await;
        }
        // Who knows only what the copy has, is told what changed.
        let same = restored.feed_after(&early).await;
        assert_eq!((same.kind, &same.epoch), (FeedKind::Delta, &early.epoch));
        let anew = restored.feed_after(&late).await;
        assert_eq!(
            (anew.kind, anew.routes.len()),
            (FeedKind::Snapshot, 1 + more)
        );
        assert_ne!(anew.epoch, late.epoch);
        // From here on everybody begins anew, and it stays at that.
        let early = restored.feed_after(&early).await;
        assert_eq!(
            (early.kind, &early.epoch),
            (FeedKind::Snapshot, &anew.epoch)
        );
        let next = restored.feed_after(&anew).await;
        assert_eq!((next.kind, &next.epoch), (FeedKind::Delta, &anew.epoch));
    }
}

#[tokio::test]
async fn a_gateway_that_waits_is_told_when_the_history_begins_anew() {
    let plane = Plane::start().await;
    let first = plane.feed("", 0, 0).await;
    let ahead = async { plane.feed(&first.epoch, first.revision + 100, 0).await };
    let (waiting, ahead) = tokio::join!(plane.feed(&first.epoch, first.revision, 9), ahead);
    assert_eq!(
        (waiting.kind, waiting.epoch),
        (FeedKind::Snapshot, ahead.epoch)
    );
}

#[tokio::test]
async fn removed_routes_are_forgotten_and_who_does_not_know_gets_everything() {
    let timing = Timing {
        removed_kept: Duration::ZERO,
        ..Timing::default()
    };
    let plane = Plane::start_on(tempfile::tempdir().unwrap(), timing).await;
    let mut asked = new_gitspace();
    asked["start"] = false.into();
    let made = plane.post("/v1/gitspaces", USER, asked).await;
    let gitspace = made.json().await.unwrap();
    let before = plane.feed("", 0, 0).await;
    plane.delete(&gitspace).await;
    let all = eventually("the removal is forgotten", || async {
        let feed = plane.feed_after(&before).await;
        (feed.kind == FeedKind::Snapshot).then_some(feed)
    })
    .await;
    assert_eq!(all.epoch, before.epoch);
    assert!(all.routes.is_empty() && all.removed.is_empty());
    // Who knows it already is told in changes.
    plane.create().await;
    let delta = plane.feed_after(&all).await;
    assert_eq!((delta.kind, delta.routes.len()), (FeedKind::Delta, 1));
}

#[tokio::test]
async fn many_gateways_at_once_get_the_same_bytes_with_a_digest() {
    let plane = Plane::start().await;
    for _ in 0..20 {
        plane.create().await;
    }
    let all = (0..50).map(|_| async {
        let answer = plane.get("/v1/feed", GATEWAY).await;
        let claimed = answer.headers()["content-digest"]
            .to_str()
            .unwrap()
            .to_owned();
        (claimed, answer.bytes().await.unwrap())
    });
    let answers = futures_util::future::join_all(all).await;
    for (claimed, body) in &answers {
        let found = STANDARD.encode(digest(&SHA256, body));
        assert_eq!(*claimed, format!("sha-256=:{found}:"));
    }
    let asked = plane.raw(Method::GET, "/v1/feed").bearer_auth(GATEWAY);
    let takes = asked.header("accept-encoding", "gzip");
    let answer = takes.send().await.unwrap();
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    let claimed = answer.headers()["content-digest"].clone();
    let packed = answer.bytes().await.unwrap();
    let found = STANDARD.encode(digest(&SHA256, &packed));
    assert_eq!(claimed, format!("sha-256=:{found}:"));
    assert!(packed.len() * 4 < answers[0].1.len(), "{}", packed.len());
    let mut bodies: Vec<_> = answers.iter().map(|(_, body)| body).collect();
    bodies.sort();
    bodies.dedup();
    assert!(bodies.len() < 10, "{} were made for 50", bodies.len());
}
