//! The delegate between a control plane and a runner that are played here, over real sockets. With the real ones it is tested in
//! `demo`.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    collections::VecDeque,
    net::SocketAddr,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use cde_gateway::{
    api::Secret,
    delegate::{self, Settings},
};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::support::{Refusing, eventually, secret};

const DEADLINE: Duration = Duration::from_secs(20);
/// What a refusal says.
const TITLE: &str = "it was not to be";
const TOKEN: &str = "delegate-token-for-tests";
const RUNNER_TOKEN: &str = "runner-token-for-tests";

/// Control plane and runner in one server: what they were told, and what they are to answer.
#[derive(Clone)]
struct Fake {
    /// What came, as `path body`, in order.
    seen: watch::Sender<Vec<(String, Value)>>,
    tasks: Arc<Mutex<VecDeque<Value>>>,
    /// Answers to give before the usual ones, by the beginning of a path; `the end`: when a call to the runner ends.
    answers: Arc<Mutex<Vec<(&'static str, StatusCode)>>>,
    /// What the runner knows of typing in terminals.
    typed: Arc<Mutex<Value>>,
    /// What the agent said.
    said: Arc<Mutex<Vec<String>>>,
    /// A permit lets the runner finish one call.
    runner_ends: Arc<Semaphore>,
}

impl Fake {
    fn new() -> Self {
        Self {
            seen: watch::Sender::new(Vec::new()),
            tasks: Arc::default(),
            answers: Arc::default(),
            typed: Arc::new(Mutex::new(json!([]))),
            said: Arc::default(),
            runner_ends: Arc::new(Semaphore::new(1000)),
        }
    }

    fn task(&self, id: &str) {
        let task = json!({
            "id": id, "attempt": 1, "lease": format!("lease-{id}"), "lease_seconds": 60, "kind": "vm.setup",
            "payload": { "gitspace": "api-k3x9q2", "instance": "api-k3x9q2.aaaaaa" }
        });
        self.tasks.lock().unwrap().push_back(task);
    }

    /// A task whose agent works for long.
    fn start(&self, id: &str) {
        let task = json!({
            "id": id, "attempt": 1, "lease": format!("lease-{id}"), "lease_seconds": 60, "kind": "agent.start",
            "payload": {
                "gitspace": "api-k3x9q2", "instance": "api-k3x9q2.aaaaaa", "repository": "/srv/api", "branch": null,
                "ide": "terminal", "ports": [], "trust": false
            }
        });
        self.tasks.lock().unwrap().push_back(task);
    }

    fn say(&self, lines: impl IntoIterator<Item = impl Into<String>>) {
        let lines = lines.into_iter().map(Into::into);
        self.said.lock().unwrap().extend(lines);
    }

    fn answer(&self, path: &'static str, status: StatusCode) {
        self.answers.lock().unwrap().push((path, status));
    }

    /// The answer whose turn it is.
    fn turn(&self, path: &str) -> Option<StatusCode> {
        let mut answers = self.answers.lock().unwrap();
        let turn = answers
            .iter()
            .position(|(start, _)| path.starts_with(start))?;
        Some(answers.remove(turn).1)
    }

    fn saw(&self, path: &str) -> Vec<Value> {
        let seen = self.seen.borrow();
        let of_path = seen.iter().filter(|(seen, _)| seen == path);
        of_path.map(|(_, body)| body.clone()).collect()
    }

    /// Waits until a path was called so often; what it was told.
    async fn wait(&self, path: &str, times: usize) -> Vec<Value> {
        let mut seen = self.seen.subscribe();
        let often = seen.wait_for(|seen| seen.iter().filter(|(at, _)| at == path).count() >= times);
        let came = tokio::time::timeout(DEADLINE, often).await.is_ok();
        assert!(
            came,
            "{path} was not called {times} times: {:?}",
            self.seen.borrow()
        );
        self.saw(path)
    }

    async fn serve(&self, listener: TcpListener) -> JoinHandle<()> {
        let router = Router::new()
            .route(
                "/v1/delegates",
                post(|| async { Json(json!({ "id": "d1", "heartbeat_seconds": 1 })) }),
            )
            .route(
                "/v1/delegates/{id}/heartbeat",
                post(|| async { StatusCode::NO_CONTENT }),
            )
            .route("/v1/delegates/{id}/acquire", post(acquire))
            .route("/v1/tasks/{id}/{what}", post(|| async { StatusCode::OK }))
            .route(
                "/pool_owner",
                get(|| async {
                    Json(json!({ "runner": "r1", "driver": "process", "host_bound": true }))
                }),
            )
            .route(
                "/typed",
                get(async |State(fake): State<Self>| Json(fake.typed.lock().unwrap().clone())),
            )
            .route("/said", post(said))
            .route("/{call}", post(run))
            .layer(middleware::from_fn_with_state(self.clone(), record))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
    }
}

/// Checks tokens, keeps what came, answers out of turn.
async fn record(State(fake): State<Fake>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let token = if path.starts_with("/v1/") {
        TOKEN
    } else {
        RUNNER_TOKEN
    };
    let given = request.headers().get(header::AUTHORIZATION);
    if given.is_none_or(|given| given != &format!("Bearer {token}")) {
        fake.seen
            .send_modify(|seen| seen.push(("refused".into(), Value::Null)));
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let told = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let answer = fake.turn(&path);
    fake.seen.send_modify(|seen| seen.push((path, told)));
    match answer {
        Some(status) => refusal(status),
        None => next.run(Request::from_parts(parts, body.into())).await,
    }
}

fn refusal(status: StatusCode) -> Response {
    let body = json!({ "status": status.as_u16(), "title": TITLE, "reason": "test" });
    (status, Json(body)).into_response()
}

async fn acquire(State(fake): State<Fake>, Path(_): Path<String>) -> Response {
    let task = fake.tasks.lock().unwrap().pop_front();
    match task {
        Some(task) => Json(task).into_response(),
        None => {
            tokio::time::sleep(Duration::from_millis(20)).await;
            StatusCode::NO_CONTENT.into_response()
        }
    }
}

/// As the agent has it: a hundred lines at once.
async fn said(State(fake): State<Fake>, Json(asked): Json<Value>) -> Json<Value> {
    let said = fake.said.lock().unwrap();
    let after = asked["after"]
        .as_u64()
        .map_or(said.len(), |after| after as usize);
    let lines: Vec<_> = said[after..].iter().take(100).collect();
    Json(json!({ "next": after + lines.len(), "lines": lines }))
}

async fn run(State(fake): State<Fake>) -> Response {
    fake.runner_ends.acquire().await.unwrap().forget();
    match fake.turn("the end") {
        Some(status) => refusal(status),
        None => {
            Json(json!({ "address": "127.0.0.1", "lines": ["Instance is up"] })).into_response()
        }
    }
}

struct Delegate {
    stop: CancellationToken,
    task: JoinHandle<Result<(), delegate::Error>>,
}

impl Delegate {
    fn start(peer: SocketAddr, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            name: "test".into(),
            url: format!("http://{peer}/"),
            token: Secret::new(secret(TOKEN)),
            runner: format!("http://{peer}"),
            runner_token: Secret::new(secret(RUNNER_TOKEN)),
            tags: vec!["eu".into()],
            capacity: NonZeroU32::new(2).unwrap(),
        };
        change(&mut settings);
        let stop = CancellationToken::new();
        let task = tokio::spawn(delegate::serve(settings, stop.clone()));
        Self { stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(DEADLINE, self.task).await;
        ended.expect("the delegate stops").unwrap().unwrap();
    }
}

/// Both peers, and a delegate that works.
async fn start(change: impl FnOnce(&mut Settings)) -> (Fake, Delegate) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let fake = Fake::new();
    fake.serve(listener).await;
    (fake, Delegate::start(address, change))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_goes_to_the_runner_and_its_lines_and_result_come_back() {
    let (fake, delegate) = start(|_| {}).await;
    fake.task("t1");
    let result = fake.wait("/v1/tasks/t1/result", 1).await;
    let expected = json!({ "lease": "lease-t1", "outcome": "done", "address": "127.0.0.1" });
    assert_eq!(result, [expected]);
    let register = json!({ "name": "test", "tags": ["eu"], "capacity": 2, "runner": "r1" });
    assert_eq!(fake.saw("/v1/delegates"), [register]);
    let asked = json!({ "gitspace": "api-k3x9q2", "instance": "api-k3x9q2.aaaaaa" });
    assert_eq!(fake.saw("/setup"), [asked]);
    assert_eq!(
        fake.saw("/v1/tasks/t1/progress")[0]["lines"],
        json!(["Instance is up"])
    );
    delegate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_runner_refuses_fails_with_its_sentence() {
    let (fake, delegate) = start(|_| {}).await;
    fake.answer("/setup", StatusCode::UNPROCESSABLE_ENTITY);
    fake.task("t1");
    let result = fake.wait("/v1/tasks/t1/result", 1).await;
    let expected =
        json!({ "lease": "lease-t1", "outcome": "failed", "message": "it was not to be" });
    assert_eq!(result, [expected]);
    delegate.stop().await;
}

fn lines(reports: &[Value]) -> Vec<&str> {
    let lines = reports
        .iter()
        .flat_map(|report| report["lines"].as_array().unwrap());
    lines.map(|line| line.as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_says_is_passed_on_while_it_works_and_not_again() {
    let (fake, delegate) = start(|_| {}).await;
    fake.say(["of before"]);
    let held = fake.runner_ends.acquire_many(1000).await.unwrap();
    fake.start("t1");
    fake.wait("/step", 1).await;
    let path = "/v1/tasks/t1/progress";
    fake.say(["git: Receiving objects:  10%"]);
    let first = fake.wait(path, 1).await;
    assert_eq!(lines(&first), ["git: Receiving objects:  10%"]);
    assert!(fake.saw("/v1/tasks/t1/result").is_empty());
    fake.say(["Repository cloned"]);
    drop(held);
    fake.wait("/v1/tasks/t1/result", 1).await;
    let all = fake.saw(path);
    assert_eq!(
        lines(&all),
        ["git: Receiving objects:  10%", "Repository cloned"]
    );
    let numbers: Vec<_> = all
        .iter()
        .map(|report| report["seq"].as_u64().unwrap())
        .collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    delegate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_says_too_much_is_not_told_to_its_end() {
    let (fake, delegate) = start(|_| {}).await;
    let held = fake.runner_ends.acquire_many(1000).await.unwrap();
    fake.start("t1");
    fake.wait("/step", 1).await;
    fake.say((0..2000).map(|number| format!("line {number}")));
    drop(held);
    fake.wait("/v1/tasks/t1/result", 1).await;
    let all = fake.saw("/v1/tasks/t1/progress");
    let lines = lines(&all);
    assert_eq!((lines.len(), lines[498]), (500, "line 498"));
    assert!(lines[499].contains("log of the instance's agent"));
    assert!(
        all.iter()
            .all(|report| report["lines"].as_array().unwrap().len() <= 100)
    );
    delegate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_said_before_it_failed_is_passed_on() {
    let (fake, delegate) = start(|_| {}).await;
    let held = fake.runner_ends.acquire_many(1000).await.unwrap();
    fake.start("t1");
    fake.wait("/step", 1).await;
    fake.say(["git: remote: no such thing", TITLE]);
    fake.answer("the end", StatusCode::UNPROCESSABLE_ENTITY);
    drop(held);
    let result = fake.wait("/v1/tasks/t1/result", 1).await;
    assert_eq!(result[0]["message"], TITLE);
    let all = fake.saw("/v1/tasks/t1/progress");
    assert_eq!(lines(&all)[0], "git: remote: no such thing");
    delegate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_cannot_tell_what_its_agents_say_hinders_nothing() {
    let (fake, delegate) = start(|_| {}).await;
    fake.answer("/said", StatusCode::UNPROCESSABLE_ENTITY);
    fake.start("t1");
    let result = fake.wait("/v1/tasks/t1/result", 1).await;
    assert_eq!(result[0]["outcome"], "done");
    // Then at its end.
    assert_eq!(
        lines(&fake.saw("/v1/tasks/t1/progress")),
        ["Instance is up"]
    );
    delegate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_name_the_tasks_under_way() {
    let (fake, delegate) = start(|_| {}).await;
    let held = fake.runner_ends.acquire_many(1000).await.unwrap();
    fake.task("t1");
    fake.wait("/setup", 1).await;
    let before = fake.saw("/v1/delegates/d1/heartbeat").len();
    let beats = fake.wait("/v1/delegates/d1/heartbeat", before + 1).await;
    assert_eq!(beats[before], json!({ "tasks": ["t1"] }));
    drop(held);
    fake.wait("/v1/tasks/t1/result", 1).await;
    delegate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_sent_until_it_is_taken() {
    let (fake, delegate) = start(|_| {}).await;
    for status in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::UNAUTHORIZED] {
        fake.answer("/v1/tasks/t1/result", status);
    }
    fake.task("t1");
    let results = fake.wait("/v1/tasks/t1/result", 3).await;
    assert!(results.iter().all(|result| *result == results[0]));
    delegate.stop().await;
    assert_eq!(fake.saw("/v1/tasks/t1/result").len(), 3);
    assert_eq!(fake.saw("/setup").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_nobody_wants_is_dropped() {
    let (fake, delegate) = start(|settings| settings.capacity = NonZeroU32::MIN).await;
    fake.answer("/v1/tasks/t1/result", StatusCode::CONFLICT);
    fake.answer("/v1/tasks/t2/result", StatusCode::BAD_REQUEST);
    for id in ["t1", "t2", "t3"] {
        fake.task(id);
    }
    // The only slot is free again after each.
    fake.wait("/v1/tasks/t3/result", 1).await;
    assert_eq!(fake.saw("/v1/tasks/t1/result").len(), 1);
    assert_eq!(fake.saw("/v1/tasks/t2/result").len(), 1);
    delegate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_was_taken_back_is_let_go_of() {
    let (fake, delegate) = start(|settings| settings.capacity = NonZeroU32::MIN).await;
    let held = fake.runner_ends.acquire_many(1000).await.unwrap();
    fake.answer("/v1/tasks/t1/progress", StatusCode::CONFLICT);
    fake.answer("/v1/tasks/t1/result", StatusCode::CONFLICT);
    fake.task("t1");
    fake.task("t2");
    // The runner is at the first one still.
    fake.wait("/setup", 2).await;
    assert_eq!(fake.saw("/v1/tasks/t1/result")[0]["outcome"], "failed");
    drop(held);
    fake.wait("/v1/tasks/t2/result", 1).await;
    delegate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_tasks_are_taken_than_there_are_slots() {
    let (fake, delegate) = start(|settings| settings.capacity = NonZeroU32::MIN).await;
    let held = fake.runner_ends.acquire_many(1000).await.unwrap();
    fake.task("t1");
    fake.task("t2");
    fake.wait("/setup", 1).await;
    let before = fake.saw("/v1/delegates/d1/heartbeat").len();
    fake.wait("/v1/delegates/d1/heartbeat", before + 2).await;
    assert_eq!(fake.tasks.lock().unwrap().len(), 1);
    drop(held);
    fake.wait("/v1/tasks/t2/result", 1).await;
    delegate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_forgot_or_went_away_is_registered_with_again() {
    // Away when the delegate starts.
    let refusing = Refusing::new();
    let address = refusing.address();
    let delegate = Delegate::start(address, |_| {});
    let fake = Fake::new();
    let server = fake.serve(refusing.listen()).await;
    fake.wait("/v1/delegates", 1).await;
    // It forgot.
    fake.answer("/v1/delegates/d1/acquire", StatusCode::NOT_FOUND);
    fake.wait("/v1/delegates", 2).await;
    // Away while the delegate works, and back.
    server.abort();
    let _ = server.await;
    // A process that another test has just forked may hold the address for a moment.
    let listener = eventually("the address", async || {
        TcpListener::bind(address).await.ok()
    })
    .await;
    let server = fake.serve(listener).await;
    fake.answer("/v1/delegates/d1/heartbeat", StatusCode::NOT_FOUND);
    fake.wait("/v1/delegates", 3).await;
    fake.task("t1");
    fake.wait("/v1/tasks/t1/result", 1).await;
    delegate.stop().await;
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_tried_again_with_pauses() {
    let (fake, delegate) = start(|settings| settings.token = Secret::new("wrong")).await;
    fake.wait("refused", 2).await;
    assert_eq!(fake.saw("/v1/delegates").len(), 0);
    delegate.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_takes_no_new_task_and_waits_for_those_under_way() {
    let (fake, delegate) = start(|settings| settings.capacity = NonZeroU32::MIN).await;
    let held = fake.runner_ends.acquire_many(1000).await.unwrap();
    fake.task("t1");
    fake.wait("/setup", 1).await;
    delegate.stop.cancel();
    fake.task("t2");
    drop(held);
    delegate.stop().await;
    assert_eq!(fake.saw("/v1/tasks/t1/result").len(), 1);
    assert_eq!(fake.saw("/v1/tasks/t2/result").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_say_once_where_somebody_typed_and_do_not_need_it() {
    const BEAT: &str = "/v1/delegates/d1/heartbeat";
    let (fake, delegate) = start(|_| {}).await;
    // A runner that does not know how.
    fake.answer("/typed", StatusCode::NOT_FOUND);
    assert_eq!(fake.wait(BEAT, 1).await[0], json!({ "tasks": [] }));
    let typed = json!([{ "gitspace": "api-k3x9q2", "ago": 7 }]);
    *fake.typed.lock().unwrap() = typed.clone();
    let seen = fake.saw(BEAT).len();
    let beats = fake.wait(BEAT, seen + 3).await;
    let told = beats.iter().filter(|beat| beat["typed"] == typed);
    assert_eq!(told.count(), 1, "{beats:?}");
    // A control plane that forgot is told again.
    fake.answer(BEAT, StatusCode::NOT_FOUND);
    fake.wait("/v1/delegates", 2).await;
    let seen = fake.saw(BEAT).len();
    let beats = fake.wait(BEAT, seen + 1).await;
    assert_eq!(beats[seen]["typed"], typed);
    delegate.stop().await;
}
