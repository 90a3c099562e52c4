//! Waking: a start for who opened a gitspace, told as it goes, taken up again where it was.

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::support::*;
use cde_gateway::api::gitspace::{Gitspace, State};

async fn ask(plane: &Plane, body: &Value, after: Option<&str>) -> Response {
    let mut request = plane
        .raw(Method::POST, "/v1/feed/wake")
        .bearer_auth(GATEWAY)
        .json(body);
    if let Some(after) = after {
        request = request.header("last-event-id", after);
    }
    request.send().await.unwrap()
}

fn body(gitspace: &Gitspace, principal: &str, start: bool) -> Value {
    json!({ "gitspace": gitspace.id, "principal": principal, "start": start })
}

/// Events as they come.
struct Events {
    response: Response,
    text: String,
    usual: Option<Value>,
}

/// Name, id and data of an event.
type Event = (String, String, Value);

impl Events {
    fn of(response: Response) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let text = String::new();
        let usual = None;
        Self {
            response,
            text,
            usual,
        }
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let mut lines = event.lines();
                    let found = lines.find_map(|line| line.strip_prefix(name));
                    found.unwrap_or_default().to_owned()
                };
                let event = (field("event: "), field("id: "), field("data: "));
                self.text = rest.to_owned();
                if event.0.is_empty() {
                    continue;
                }
                let data = serde_json::from_str(&event.2).unwrap();
                return Some((event.0, event.1, data));
            }
            let chunk = tokio::time::timeout(DEADLINE, self.response.chunk()).await;
            let chunk = chunk.expect("an event in time").unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// What is told until a state is.
    async fn until_state(&mut self) -> (Vec<Event>, Value) {
        let mut steps = Vec::new();
        loop {
            let event = self.next().await.expect("a state");
            match &*event.0 {
                "state" => return (steps, event.2),
                "usual" => self.usual = Some(event.2),
                _ => steps.push(event),
            }
        }
    }
}

fn kinds(steps: &[Event]) -> Vec<&str> {
    steps
        .iter()
        .map(|(_, _, step)| step["kind"].as_str().unwrap())
        .collect()
}

async fn stopped(plane: &Plane, delegate: &Delegate) -> Gitspace {
    let gitspace = plane.running(delegate).await;
    plane.act(&gitspace, "stop").await;
    delegate.perform(plane, "agent.stop").await;
    delegate.perform(plane, "vm.suspend").await;
    gitspace
}

#[tokio::test]
async fn opening_it_starts_it_and_tells_every_step_until_it_runs() {
    let plane = Plane::start().await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    let gitspace = stopped(&plane, &delegate).await;
    let mut events = Events::of(ask(&plane, &body(&gitspace, "alice", true), None).await);
    // Committed before the first word.
    assert_eq!(plane.show(&gitspace).await.state, State::Starting);
    let (steps, state) = events.until_state().await;
    assert_eq!(kinds(&steps), ["gitspace_action_start", "vm_setup_queued"]);
    assert_eq!(state, json!({ "state": "starting" }));
    delegate.perform(&plane, "vm.setup").await;
    let task = delegate.expect(&plane, "agent.start").await;
    let lines = json!({ "lease": task.lease, "seq": 1, "lines": ["cloning"] });
    let path = format!("/v1/tasks/{}/progress", task.id);
    plane.post(&path, DELEGATE, lines).await;
    result(&plane, &task, done(&task)).await;
    let (steps, state) = events.until_state().await;
    assert_eq!(
        kinds(&steps),
        [
            "vm_setup_started",
            "vm_setup_completed",
            "agent_start_queued",
            "agent_start_started",
            "agent_start_progress",
            "agent_start_completed",
            "gitspace_action_start_completed"
        ]
    );
    assert_eq!(steps[4].2["message"], "cloning");
    assert_eq!(state, json!({ "state": "running" }));
    assert_eq!(events.next().await, None, "it is over");
}

#[tokio::test]
async fn what_the_last_starts_took_is_told_first() {
    let plane = Plane::start().await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    let gitspace = plane.create().await;
    let mut events = Events::of(ask(&plane, &body(&gitspace, "alice", false), None).await);
    events.until_state().await;
    assert_eq!(events.usual, None, "it was never started before");
    delegate.bring_up(&plane).await;
    plane.act(&gitspace, "stop").await;
    delegate.perform(&plane, "agent.stop").await;
    delegate.perform(&plane, "vm.suspend").await;
    let mut events = Events::of(ask(&plane, &body(&gitspace, "alice", true), None).await);
    let (name, id, usual) = events.next().await.unwrap();
    assert_eq!((&*name, &*id), ("usual", ""), "nothing to go on behind");
    let steps: Vec<_> = usual.as_object().unwrap().keys().collect();
    assert_eq!(steps, ["agent_start", "vm_setup"]);
    assert!(usual.as_object().unwrap().values().all(Value::is_u64));
}

#[tokio::test]
async fn asking_twice_starts_once_and_goes_on_where_it_was() {
    let plane = Plane::start().await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    let gitspace = stopped(&plane, &delegate).await;
    let mut first = Events::of(ask(&plane, &body(&gitspace, "alice", true), None).await);
    let (steps, _) = first.until_state().await;
    let last = steps.last().unwrap().1.clone();
    drop(first);
    // Again, by another tab and by the same that lost its connection.
    let again = Events::of(ask(&plane, &body(&gitspace, "alice", true), None).await)
        .until_state()
        .await;
    assert_eq!(kinds(&again.0), kinds(&steps));
    let mut resumed = Events::of(ask(&plane, &body(&gitspace, "alice", false), Some(&last)).await);
    assert_eq!(resumed.until_state().await.0, []);
    delegate.bring_up(&plane).await;
    let (steps, state) = resumed.until_state().await;
    assert_eq!(kinds(&steps)[0], "vm_setup_started");
    assert_eq!(state["state"], "running");
    assert!(
        delegate.acquire(&plane, 0).await.is_none(),
        "one start, one task of each kind"
    );
}

#[tokio::test]
async fn a_start_that_fails_says_why_and_looking_at_it_starts_nothing() {
    let plane = Plane::start().await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    let gitspace = stopped(&plane, &delegate).await;
    let mut events = Events::of(ask(&plane, &body(&gitspace, "alice", true), None).await);
    events.until_state().await;
    let task = delegate.expect(&plane, "vm.setup").await;
    result(&plane, &task, failed("no room on this host")).await;
    let (steps, state) = events.until_state().await;
    assert_eq!(kinds(&steps).last(), Some(&"vm_setup_failed"));
    let told = json!({ "state": "error", "message": "no room on this host" });
    assert_eq!(state, told);
    let mut look = Events::of(ask(&plane, &body(&gitspace, "alice", false), None).await);
    assert_eq!(look.until_state().await.1, told);
    assert_eq!(look.next().await, None);
    assert_eq!(plane.show(&gitspace).await.state, State::Error);
}

async fn cancel(plane: &Plane, gitspace: &Gitspace, principal: &str) -> Response {
    let asked = json!({ "gitspace": gitspace.id, "principal": principal });
    plane.post("/v1/feed/wake/cancel", GATEWAY, asked).await
}

#[tokio::test]
async fn a_start_that_is_cancelled_stops_what_had_begun_and_can_be_started_again() {
    let plane = Plane::start().await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    let gitspace = stopped(&plane, &delegate).await;
    for step in ["vm.setup", "agent.start"] {
        let mut events = Events::of(ask(&plane, &body(&gitspace, "alice", true), None).await);
        events.until_state().await;
        if step == "agent.start" {
            delegate.perform(&plane, "vm.setup").await;
        }
        let task = delegate.expect(&plane, step).await;
        let stranger = cancel(&plane, &gitspace, "bob").await;
        assert_eq!(refusal(stranger).await.0, 404);
        let answer = cancel(&plane, &gitspace, "alice").await;
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        let (_, state) = events.until_state().await;
        assert_eq!(state, json!({ "state": "stopping" }));
        assert_eq!(events.next().await, None, "it is over");
        // Once more changes nothing; nor does what the delegate says of it now.
        let again = refusal(cancel(&plane, &gitspace, "alice").await).await;
        assert_eq!((again.0, &*again.1), (409, "wrong-state"));
        let path = format!("/v1/tasks/{}/result", task.id);
        let late = json!({ "lease": task.lease, "outcome": "failed", "message": "taken back" });
        assert_eq!(
            refusal(plane.post(&path, DELEGATE, late).await).await.0,
            409
        );
        if step == "agent.start" {
            delegate.perform(&plane, "agent.stop").await;
        }
        delegate.perform(&plane, "vm.suspend").await;
        assert_eq!(plane.show(&gitspace).await.state, State::Stopped);
    }
    // Nothing is left of it.
    plane.act(&gitspace, "start").await;
    delegate.bring_up(&plane).await;
    assert_eq!(plane.show(&gitspace).await.state, State::Running);
    let late = refusal(cancel(&plane, &gitspace, "alice").await).await;
    assert!(
        late.2.ends_with("is running: no start is under way"),
        "{}",
        late.2
    );
    assert_eq!(plane.show(&gitspace).await.state, State::Running);
}

#[tokio::test]
async fn who_does_not_own_it_what_is_being_deleted_and_what_is_malformed_are_refused() {
    let plane = Plane::start().await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    let gitspace = stopped(&plane, &delegate).await;
    for start in [true, false] {
        let refused = refusal(ask(&plane, &body(&gitspace, "bob", start), None).await).await;
        assert_eq!((refused.0, &*refused.1), (404, "no-such-gitspace"));
    }
    let bad = ask(&plane, &body(&gitspace, "alice", false), Some("x")).await;
    assert_eq!(refusal(bad).await.1, "bad-request");
    let user = plane.post("/v1/feed/wake", USER, body(&gitspace, "alice", true));
    assert_eq!(refusal(user.await).await.1, "invalid-token");
    assert_eq!(plane.show(&gitspace).await.state, State::Stopped);
    plane.delete(&gitspace).await;
    let (status, reason, detail) =
        refusal(ask(&plane, &body(&gitspace, "alice", true), None).await).await;
    assert_eq!((status, &*reason), (409, "wrong-state"));
    assert!(detail.contains("being deleted"), "{detail}");
}

#[tokio::test]
async fn a_port_that_was_known_before_is_still_told_while_a_new_instance_starts() {
    let plane = Plane::start().await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    let gitspace = plane.create().await;
    delegate.perform(&plane, "vm.setup").await;
    let task = delegate.expect(&plane, "agent.start").await;
    let mut told = done(&task);
    // One that devcontainer.json names.
    told["ports"]["5173"] = 15_173.into();
    result(&plane, &task, told).await;
    plane.act(&gitspace, "stop").await;
    let task = delegate.expect(&plane, "agent.stop").await;
    result(&plane, &task, failed("it hangs")).await;
    plane.act(&gitspace, "start").await;
    let feed = plane.feed("", 0, 0).await;
    assert!(
        feed.routes[0].ports.contains_key(&5173),
        "{:?}",
        feed.routes
    );
}
