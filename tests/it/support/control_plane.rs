//! A control plane that answers the feed as a test tells it to.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};

use super::{GITSPACE, Issuer, OWNER, eventually, now};

pub(crate) const TOKEN: &str = "the-gateway-token-of-these-tests";

/// What a gateway asked for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Asked {
    pub(crate) epoch: String,
    pub(crate) after: u64,
}

#[derive(Default)]
struct Told {
    next: Vec<Exactly>,
    away: bool,
    snapshot: Option<(u64, String)>,
    deltas: Vec<(u64, String)>,
    asked: Vec<Asked>,
    redeemed: Vec<String>,
    woken: Vec<Value>,
    cancelled: Vec<Value>,
    /// Why no start is made.
    refuses: Option<String>,
    /// The answer to reports; None: none.
    reported: Option<Value>,
    /// What is told of a start, so far.
    events: Vec<String>,
}

/// An answer as it is: its bytes, and the `Content-Digest` that it claims.
#[derive(Clone)]
pub(crate) struct Exactly {
    pub(crate) body: Vec<u8>,
    pub(crate) digest: Option<String>,
}

#[derive(Clone, Default)]
struct Shared {
    told: Arc<Mutex<Told>>,
    changed: Arc<Notify>,
}

/// A listening control plane. It goes away with this value.
pub(crate) struct ControlPlane {
    pub(crate) issuer: Issuer,
    address: SocketAddr,
    shared: Shared,
    task: JoinHandle<()>,
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ControlPlane {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Shared::default();
        let router = Router::new()
            .route("/v1/feed", get(feed))
            .route("/v1/feed/report", post(report))
            .route("/v1/feed/redeem", post(redeem))
            .route("/v1/feed/wake", post(wake))
            .route("/v1/feed/wake/cancel", post(cancel))
            .with_state(shared.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            issuer: Issuer::new("https://control-plane.test"),
            address,
            shared,
            task,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers the next poll with exactly this.
    pub(crate) fn tell(&self, text: String) {
        self.tell_exactly(Exactly {
            body: text.into_bytes(),
            digest: None,
        });
    }

    pub(crate) fn tell_exactly(&self, answer: Exactly) {
        self.shared.told.lock().unwrap().next.push(answer);
        self.shared.changed.notify_waiters();
    }

    /// Goes away: polls that wait are cut and others are refused, until it comes back.
    pub(crate) fn away(&self, away: bool) {
        self.shared.told.lock().unwrap().away = away;
        self.shared.changed.notify_waiters();
    }

    /// Answers every gateway that has not come so far with a snapshot.
    pub(crate) fn snapshot(&self, revision: u64, lease: u64, routes: &[Value]) {
        let text = self.feed("snapshot", revision, lease, routes, &[]);
        self.shared.told.lock().unwrap().snapshot = Some((revision, text));
        self.shared.changed.notify_waiters();
    }

    /// Answers every gateway that has come so far as to need it with what changed.
    pub(crate) fn delta(&self, revision: u64, routes: &[Value], removed: &[Value]) {
        let text = self.feed("delta", revision, 60, routes, removed);
        let mut told = self.shared.told.lock().unwrap();
        told.deltas.push((revision, text));
        self.shared.changed.notify_waiters();
    }

    /// Answers every gateway that has come so far as to need it with what was revoked.
    pub(crate) fn revoke(&self, revision: u64, revoked: &Value) {
        let text = self.feed("delta", revision, 60, &[], &[]);
        let mut feed: Value = serde_json::from_str(&text).unwrap();
        feed["revoked"] = revoked.clone();
        let mut told = self.shared.told.lock().unwrap();
        told.deltas.push((revision, feed.to_string()));
        self.shared.changed.notify_waiters();
    }

    /// An answer in the wire's form.
    pub(crate) fn feed(
        &self,
        kind: &str,
        revision: u64,
        lease: u64,
        routes: &[Value],
        removed: &[Value],
    ) -> String {
        json!({
            "epoch": "epoch-1", "revision": revision, "time": now(), "lease": lease, "type": kind,
            "routes": routes, "removed": removed, "keys": self.issuer.feed_keys(),
        })
        .to_string()
    }

    /// Waits until a gateway asks for what comes after `revision`.
    pub(crate) async fn asked_after(&self, revision: u64) {
        eventually("the gateway asks again", || async {
            let told = self.shared.told.lock().unwrap();
            let asked = told.asked.iter().any(|asked| asked.after == revision);
            asked.then_some(())
        })
        .await;
    }

    /// Tells all who watch a start, now and later.
    pub(crate) fn tell_step(&self, kind: &str, message: &str) {
        let step = json!({ "time": "2026-01-01T00:00:00Z", "kind": kind, "message": message });
        self.event("step", &step);
    }

    /// What the steps of the last starts took.
    pub(crate) fn tell_usual(&self, usual: &Value) {
        self.event("usual", usual);
    }

    /// How it is; anything but `starting` ends it.
    pub(crate) fn tell_state(&self, state: &str, message: Option<&str>) {
        self.event("state", &json!({ "state": state, "message": message }));
    }

    fn event(&self, name: &str, data: &Value) {
        let mut told = self.shared.told.lock().unwrap();
        let id = told.events.len();
        told.events
            .push(format!("event: {name}\nid: {id}\ndata: {data}\n\n"));
        drop(told);
        self.shared.changed.notify_waiters();
    }

    /// Refuses starts from now on.
    pub(crate) fn refuse_starts(&self, why: &str) {
        self.shared.told.lock().unwrap().refuses = Some(why.to_owned());
    }

    /// For whom starts were cancelled so far.
    pub(crate) fn cancelled(&self) -> Vec<String> {
        let told = self.shared.told.lock().unwrap();
        let cancelled = told.cancelled.iter();
        cancelled
            .map(|asked| {
                assert_eq!(asked["gitspace"], GITSPACE);
                asked["principal"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    /// What was asked of starts so far: for whom, and whether it was to begin.
    pub(crate) fn woken(&self) -> Vec<(String, bool)> {
        let told = self.shared.told.lock().unwrap();
        let woken = told.woken.iter();
        woken
            .map(|asked| {
                assert_eq!(asked["gitspace"], GITSPACE);
                let principal = asked["principal"].as_str().unwrap().to_owned();
                (principal, asked["start"].as_bool().unwrap())
            })
            .collect()
    }

    /// Answers reports with this from now on.
    pub(crate) fn answer_reports(&self, answer: Value) {
        self.shared.told.lock().unwrap().reported = Some(answer);
    }

    /// All polls so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.told.lock().unwrap().asked.clone()
    }
}

/// A route of the gitspace to a local port, as the feed and the admin API carry it.
pub(crate) fn route(generation: u64, upstream: SocketAddr) -> Value {
    json!({
        "gitspace": GITSPACE, "generation": generation, "state": "running", "owner": OWNER,
        "address": upstream.ip(), "ide": { "port": upstream.port(), "upgrades": ["raw"] },
    })
}

async fn feed(
    State(shared): State<Shared>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    let token = format!("Bearer {TOKEN}");
    if headers
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        != Some(&token)
    {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    shared.told.lock().unwrap().asked.push(asked.clone());
    loop {
        let mut changed = std::pin::pin!(shared.changed.notified());
        // What is told from here on wakes it.
        changed.as_mut().enable();
        {
            let mut told = shared.told.lock().unwrap();
            if told.away {
                return StatusCode::BAD_GATEWAY.into_response();
            }
            if let Some(answer) = told.answer(&asked) {
                let digest = answer.digest.map(|digest| ("content-digest", digest));
                return (axum::response::AppendHeaders(digest), answer.body).into_response();
            }
        }
        changed.await;
    }
}

impl Told {
    fn answer(&mut self, asked: &Asked) -> Option<Exactly> {
        if !self.next.is_empty() {
            return Some(self.next.remove(0));
        }
        let deltas = self.deltas.iter().filter(|_| !asked.epoch.is_empty());
        let (_, text) = deltas
            .chain(&self.snapshot)
            .find(|(revision, _)| asked.epoch.is_empty() || *revision > asked.after)?;
        Some(Exactly {
            body: text.clone().into_bytes(),
            digest: None,
        })
    }
}

async fn report(State(shared): State<Shared>) -> Response {
    match &shared.told.lock().unwrap().reported {
        Some(answer) => axum::Json(answer).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn redeem(State(shared): State<Shared>, axum::Json(redeem): axum::Json<Value>) -> StatusCode {
    let jti = redeem["jti"].as_str().unwrap().to_owned();
    let mut told = shared.told.lock().unwrap();
    if told.redeemed.contains(&jti) {
        return StatusCode::CONFLICT;
    }
    told.redeemed.push(jti);
    StatusCode::OK
}

async fn wake(
    State(shared): State<Shared>,
    headers: HeaderMap,
    axum::Json(asked): axum::Json<Value>,
) -> Response {
    assert_eq!(headers["authorization"], format!("Bearer {TOKEN}"));
    let mut told = shared.told.lock().unwrap();
    told.woken.push(asked);
    if let Some(why) = &told.refuses {
        return refusal(why);
    }
    drop(told);
    let after = headers.get("last-event-id");
    let next = after.map_or(0, |id| id.to_str().unwrap().parse::<usize>().unwrap() + 1);
    let events = futures_util::stream::unfold((shared, next), |(shared, next)| async move {
        loop {
            let mut changed = std::pin::pin!(shared.changed.notified());
            changed.as_mut().enable();
            let event = shared.told.lock().unwrap().events.get(next).cloned();
            if let Some(event) = event {
                return Some((Ok::<_, std::io::Error>(event), (shared.clone(), next + 1)));
            }
            changed.await;
        }
    });
    let media_type = [("content-type", "text/event-stream")];
    (media_type, axum::body::Body::from_stream(events)).into_response()
}

fn refusal(why: &str) -> Response {
    let problem = json!({ "status": 409, "title": "no", "reason": "wrong-state", "detail": why });
    (StatusCode::CONFLICT, axum::Json(problem)).into_response()
}

async fn cancel(
    State(shared): State<Shared>,
    headers: HeaderMap,
    axum::Json(asked): axum::Json<Value>,
) -> Response {
    assert_eq!(headers["authorization"], format!("Bearer {TOKEN}"));
    let mut told = shared.told.lock().unwrap();
    if told.away {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    if let Some(why) = &told.refuses {
        return refusal(why);
    }
    told.cancelled.push(asked);
    StatusCode::NO_CONTENT.into_response()
}
