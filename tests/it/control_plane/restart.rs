//! Nothing is lost when the process is killed between two steps and started again.

use std::os::unix::fs::PermissionsExt;

use cde_gateway::{
    api::{
        feed::FeedKind,
        gitspace::{Gitspace, State},
    },
    control_plane::{self, Timing},
};
use reqwest::{Method, StatusCode};
use tokio_util::sync::CancellationToken;

use super::support::*;

#[tokio::test]
async fn the_lifecycle_goes_on_after_a_kill_between_any_two_steps() {
    let plane = Plane::start().await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    let gitspace = plane.create().await;
    let before = plane.feed("", 0, 0).await;
    let plane = plane.restarted().await;
    let setup = delegate.expect(&plane, "vm.setup").await;
    // Killed while a delegate works: its lease still holds afterwards, and so does its result.
    let plane = plane.restarted().await;
    assert!(delegate.acquire(&plane, 0).await.is_none());
    assert_eq!(
        result(&plane, &setup, done(&setup)).await.status(),
        StatusCode::OK
    );
    let plane = plane.restarted().await;
    // The answer may have been lost: the delegate sends it again.
    assert_eq!(
        result(&plane, &setup, done(&setup)).await.status(),
        StatusCode::OK
    );
    delegate.perform(&plane, "agent.start").await;
    let plane = plane.restarted().await;
    assert_eq!(plane.show(&gitspace).await.state, State::Running);
    let delta = plane.feed(&before.epoch, before.revision, 0).await;
    assert_eq!((delta.kind, delta.routes.len()), (FeedKind::Delta, 1));
    assert_eq!(delta.keys, before.keys);

    plane.act(&gitspace, "stop").await;
    let plane = plane.restarted().await;
    delegate.perform(&plane, "agent.stop").await;
    let plane = plane.restarted().await;
    delegate.perform(&plane, "vm.suspend").await;
    let plane = plane.restarted().await;
    assert_eq!(plane.show(&gitspace).await.state, State::Stopped);
    plane.delete(&gitspace).await;
    let plane = plane.restarted().await;
    delegate.perform(&plane, "vm.destroy").await;
    let plane = plane.restarted().await;
    assert_eq!(
        plane.delete(&gitspace).await.status(),
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn whatever_was_acknowledged_is_there_after_a_kill_amid_requests() {
    let mut plane = Plane::start().await;
    let mut acknowledged = Vec::new();
    for _ in 0..3 {
        let (told, mut hear) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..8 {
            let (request, told) = (plane.raw(Method::POST, "/v1/gitspaces"), told.clone());
            let request = request.bearer_auth(USER).json(&new_gitspace());
            tokio::spawn(async move {
                while let Ok(answer) = request.try_clone().unwrap().send().await {
                    let Ok(gitspace) = answer.json::<Gitspace>().await else {
                        break;
                    };
                    told.send(gitspace).unwrap();
                }
            });
        }
        drop(told);
        for _ in 0..20 {
            acknowledged.push(hear.recv().await.expect("gitspaces are created"));
        }
        let folder = plane.kill().await;
        while let Some(gitspace) = hear.recv().await {
            acknowledged.push(gitspace);
        }
        plane = Plane::start_on(folder, Timing::default()).await;
    }
    for gitspace in &acknowledged {
        assert_eq!(plane.show(gitspace).await.state, State::Starting);
    }
    // Some may have been made without an answer; each has its route and its task.
    let all: Vec<Gitspace> = plane.get("/v1/gitspaces", USER).await.json().await.unwrap();
    assert!(all.len() >= acknowledged.len());
    assert_eq!(plane.feed("", 0, 0).await.routes.len(), all.len());
    let delegate = Delegate::register(&plane, "d", "r").await;
    for _ in &all {
        let task = delegate.expect(&plane, "vm.setup").await;
        assert_eq!(
            result(&plane, &task, failed("enough")).await.status(),
            StatusCode::OK
        );
    }
    assert!(delegate.acquire(&plane, 0).await.is_none());
}

#[tokio::test]
async fn a_stop_ends_long_polls_and_leaves_one_private_file() {
    let plane = Plane::start().await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    let feed = plane.feed("", 0, 0).await;
    let database = settings("".as_ref()).database;
    let (task, feed) = {
        let polls = async {
            tokio::join!(
                delegate.acquire(&plane, 60),
                plane.feed(&feed.epoch, feed.revision, 60)
            )
        };
        let stop = async {
            // Round trips that begin after the polls: those are waiting by then.
            for _ in 0..5 {
                plane.get("/healthz", "").await;
            }
            plane.cancel();
        };
        tokio::join!(polls, stop).0
    };
    assert!(task.is_none() && feed.routes.is_empty());
    let folder = plane.stop().await;
    let path = folder.path().join(database);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert!(!path.with_extension("db-wal").exists(), "the file is whole");
    let plane = Plane::start_on(folder, Timing::default()).await;
    assert_eq!(plane.get("/healthz", "").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_database_that_is_none_or_of_a_newer_version_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let serve = || async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        control_plane::serve(listener, settings(folder.path()), CancellationToken::new()).await
    };
    std::fs::write(
        folder.path().join("control-plane.db"),
        "not a database, but long enough to be taken for one",
    )
    .unwrap();
    let message = serve().await.unwrap_err().to_string();
    assert!(message.contains("control-plane.db"), "{message}");
    std::fs::remove_file(folder.path().join("control-plane.db")).unwrap();
    let plane = Plane::start_on(tempfile::tempdir().unwrap(), Timing::default()).await;
    let newer = plane.stop().await;
    let url = newer.path().join("control-plane.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&url);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'x', 1, x'00', 0)")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused =
        control_plane::serve(listener, settings(newer.path()), CancellationToken::new()).await;
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("newer version"), "{message}");
}
