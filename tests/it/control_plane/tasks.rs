//! Delegates: leases, lost ones, repeated results, host-bound tasks, order within a gitspace.

use std::time::Duration;

use cde_gateway::{
    api::{gitspace::State, route::RouteState, task::Registered},
    control_plane::Timing,
};
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::support::*;

/// Leases that are lost within a test.
fn short_leases() -> Timing {
    Timing {
        lease: Duration::from_millis(50),
        ..Timing::default()
    }
}

#[tokio::test]
async fn a_waiting_delegate_gets_a_task_when_it_is_committed() {
    let plane = Plane::start().await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    let (task, gitspace) = tokio::join!(delegate.acquire(&plane, 9), plane.create());
    let task = task.expect("the task of the new gitspace");
    assert_eq!((kind(&task), task.attempt), ("vm.setup", 1));
    assert_eq!(plane.show(&gitspace).await.state, State::Starting);
}

#[tokio::test]
async fn a_lost_lease_is_handed_out_again_and_its_late_result_is_refused() {
    let plane = Plane::start_on(tempfile::tempdir().unwrap(), short_leases()).await;
    let lost = Delegate::register(&plane, "lost", "r").await;
    let other = Delegate::register(&plane, "other", "r").await;
    let gitspace = plane.create().await;
    let first = lost.expect(&plane, "vm.setup").await;
    let second = other.expect(&plane, "vm.setup").await;
    assert_eq!((&second.id, second.attempt), (&first.id, 2));
    assert_ne!(second.lease, first.lease);
    let (status, reason, _) = refusal(result(&plane, &first, failed("late")).await).await;
    assert_eq!((status, reason.as_str()), (409, "lost-lease"));
    assert_eq!(plane.show(&gitspace).await.state, State::Starting);
    let progress = json!({"lease": first.lease, "seq": 1, "lines": ["late"]});
    let late = plane
        .post(
            &format!("/v1/tasks/{}/progress", first.id),
            DELEGATE,
            progress,
        )
        .await;
    assert_eq!(late.status(), StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_task_whose_delegates_are_lost_five_times_fails() {
    let plane = Plane::start_on(tempfile::tempdir().unwrap(), short_leases()).await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    let gitspace = plane.create().await;
    for attempt in 1..=5 {
        assert_eq!(delegate.expect(&plane, "vm.setup").await.attempt, attempt);
    }
    let gateway = plane.feed("", 0, 0).await;
    let mut feed = gateway;
    while feed
        .routes
        .iter()
        .all(|route| route.state != RouteState::Error)
    {
        feed = plane.feed(&feed.epoch, feed.revision, 9).await;
        assert!(!feed.routes.is_empty(), "the route turns to error in time");
    }
    let shown = plane.show(&gitspace).await;
    assert_eq!(shown.state, State::Error);
    assert!(shown.message.unwrap().contains("5 times"));
}

#[tokio::test]
async fn a_heartbeat_keeps_a_lease() {
    let timing = Timing {
        lease: Duration::from_millis(400),
        ..Timing::default()
    };
    let plane = Plane::start_on(tempfile::tempdir().unwrap(), timing).await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    plane.create().await;
    let task = delegate.expect(&plane, "vm.setup").await;
    let path = format!("/v1/delegates/{}/heartbeat", delegate.id);
    let begin = tokio::time::Instant::now();
    while begin.elapsed() < Duration::from_millis(1200) {
        let beat = plane
            .post(&path, DELEGATE, json!({"tasks": [task.id]}))
            .await;
        assert_eq!(beat.status(), StatusCode::NO_CONTENT);
        assert!(delegate.acquire(&plane, 0).await.is_none());
    }
    assert_eq!(
        result(&plane, &task, done(&task)).await.status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn the_same_result_may_be_sent_twice_and_another_one_may_not() {
    let plane = Plane::start().await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    plane.create().await;
    let task = delegate.perform(&plane, "vm.setup").await;
    let again = result(&plane, &task, done(&task)).await;
    assert_eq!(again.status(), StatusCode::OK);
    let (status, reason, _) = refusal(result(&plane, &task, failed("no")).await).await;
    assert_eq!((status, reason.as_str()), (409, "lost-lease"));
    delegate.perform(&plane, "agent.start").await;
    assert!(
        delegate.acquire(&plane, 0).await.is_none(),
        "the second result did nothing"
    );
}

#[tokio::test]
async fn tasks_of_an_instance_go_to_the_runner_that_has_it() {
    let plane = Plane::start().await;
    let here = Delegate::register(&plane, "here", "runner-1").await;
    let elsewhere = Delegate::register(&plane, "elsewhere", "runner-2").await;
    let gitspace = plane.create().await;
    here.perform(&plane, "vm.setup").await;
    assert!(elsewhere.acquire(&plane, 0).await.is_none());
    let same_host = Delegate::register(&plane, "same-host", "runner-1").await;
    same_host.perform(&plane, "agent.start").await;
    plane.act(&gitspace, "stop").await;
    assert!(elsewhere.acquire(&plane, 0).await.is_none());
    here.perform(&plane, "agent.stop").await;
    here.perform(&plane, "vm.suspend").await;
    plane.create().await;
    elsewhere.expect(&plane, "vm.setup").await;
}

#[tokio::test]
async fn progress_becomes_events_once() {
    let plane = Plane::start().await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    let gitspace = plane.create().await;
    let task = delegate.expect(&plane, "vm.setup").await;
    let path = format!("/v1/tasks/{}/progress", task.id);
    for (seq, line) in [(1, "one"), (1, "one"), (2, "two\u{1b}[31m")] {
        let body = json!({"lease": task.lease, "seq": seq, "lines": [line]});
        assert_eq!(
            plane.post(&path, DELEGATE, body).await.status(),
            StatusCode::NO_CONTENT
        );
    }
    let shown = plane.show(&gitspace).await;
    let lines: Vec<_> = shown
        .events
        .iter()
        .filter(|event| event.kind == "vm_setup_progress")
        .map(|event| event.message.as_str())
        .collect();
    assert_eq!(lines, ["one", "two [31m"]);
}

#[tokio::test]
async fn a_done_task_that_does_not_tell_what_it_should_is_a_failure() {
    let plane = Plane::start().await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    let gitspace = plane.create().await;
    let task = delegate.expect(&plane, "vm.setup").await;
    result(&plane, &task, json!({"outcome": "done"})).await;
    let shown = plane.show(&gitspace).await;
    assert_eq!(shown.state, State::Error);
    assert!(shown.message.unwrap().contains("did not say where"));
}

#[tokio::test]
async fn an_action_that_takes_too_long_ends_in_error() {
    let timing = Timing {
        lease: Duration::from_millis(40),
        orchestration: Duration::from_millis(1),
        ..Timing::default()
    };
    let plane = Plane::start_on(tempfile::tempdir().unwrap(), timing).await;
    let gitspace = plane.create().await;
    let mut feed = plane.feed("", 0, 0).await;
    while feed
        .routes
        .iter()
        .all(|route| route.state != RouteState::Error)
    {
        feed = plane.feed(&feed.epoch, feed.revision, 9).await;
    }
    let shown = plane.show(&gitspace).await;
    assert_eq!(shown.state, State::Error);
    let delegate = Delegate::register(&plane, "d", "r").await;
    assert!(
        delegate.acquire(&plane, 0).await.is_none(),
        "its task was taken back"
    );
}

#[tokio::test]
async fn the_next_task_waits_for_the_delegate_that_is_still_at_a_cancelled_one() {
    let timing = Timing {
        orchestration: Duration::from_millis(200),
        ..Timing::default()
    };
    let plane = Plane::start_on(tempfile::tempdir().unwrap(), timing).await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    let gitspace = plane.create().await;
    let cancelled = delegate.expect(&plane, "vm.setup").await;
    let mut feed = plane.feed("", 0, 0).await;
    while feed
        .routes
        .iter()
        .all(|route| route.state != RouteState::Error)
    {
        feed = plane.feed(&feed.epoch, feed.revision, 9).await;
    }
    let plane = plane.restarted().await;
    assert_eq!(
        plane.act(&gitspace, "start").await.status(),
        StatusCode::ACCEPTED
    );
    assert!(delegate.acquire(&plane, 0).await.is_none());
    let late = result(&plane, &cancelled, done(&cancelled)).await;
    assert_eq!(refusal(late).await.1, "lost-lease");
    delegate.perform(&plane, "vm.destroy").await;
    delegate.bring_up(&plane).await;
    assert_eq!(plane.show(&gitspace).await.state, State::Running);
}

#[tokio::test]
async fn a_delegate_takes_no_more_tasks_at_once_than_it_said() {
    let plane = Plane::start().await;
    let body = json!({"name": "small", "capacity": 1, "runner": "r"});
    let registered = plane.post("/v1/delegates", DELEGATE, body).await;
    let id = registered.json::<Registered>().await.unwrap().id;
    let small = Delegate { id };
    plane.create().await;
    plane.create().await;
    let first = small.expect(&plane, "vm.setup").await;
    assert!(small.acquire(&plane, 0).await.is_none());
    let (next, answer) = tokio::join!(
        small.acquire(&plane, 9),
        result(&plane, &first, failed("no"))
    );
    assert_eq!(answer.status(), StatusCode::OK);
    assert_ne!(next.expect("the other gitspace's task").id, first.id);
}

#[tokio::test]
async fn a_delegate_that_is_unknown_or_unfit_is_refused() {
    let plane = Plane::start().await;
    for call in ["heartbeat", "acquire"] {
        let path = format!("/v1/delegates/nobody/{call}");
        let (status, reason, _) =
            refusal(plane.post(&path, DELEGATE, json!({"tasks": []})).await).await;
        assert_eq!((status, reason.as_str()), (404, "no-such-delegate"));
    }
    let unfit = json!({"name": "", "capacity": 1, "runner": "r"});
    assert_eq!(
        refusal(plane.post("/v1/delegates", DELEGATE, unfit).await)
            .await
            .0,
        400
    );
    let (status, reason, _) = refusal(
        plane
            .post(
                "/v1/tasks/none/result",
                DELEGATE,
                json!({"lease": "x", "outcome": "done"}),
            )
            .await,
    )
    .await;
    assert_eq!((status, reason.as_str()), (404, "no-such-task"));
    let one = Delegate::register(&plane, "d", "r").await;
    let same = Delegate::register(&plane, "d", "r").await;
    assert_eq!(one.id, same.id);
    let bad = plane
        .send(
            Method::POST,
            &format!("/v1/delegates/{}/acquire?wait=x", one.id),
            DELEGATE,
            None,
        )
        .await;
    assert_eq!(refusal(bad).await.0, 400);
}
