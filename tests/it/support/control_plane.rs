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

use super::{GITSPACE, Issuer, OWNER, eventually};

pub(crate) const TOKEN: &str = "the-gateway-token-of-these-tests";

/// What a gateway asked for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Asked {
    pub(crate) epoch: String,
    pub(crate) after: u64,
}

#[derive(Default)]
struct Told {
    next: Vec<String>,
    snapshot: Option<(u64, String)>,
    deltas: Vec<(u64, String)>,
    asked: Vec<Asked>,
    redeemed: Vec<String>,
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
            .route("/v1/feed/report", post(|| async { StatusCode::NO_CONTENT }))
            .route("/v1/feed/redeem", post(redeem))
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
        self.shared.told.lock().unwrap().next.push(text);
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
            "epoch": "epoch-1", "revision": revision, "time": 0, "lease": lease, "type": kind,
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

    /// All polls so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.told.lock().unwrap().asked.clone()
    }
}

/// A route of the gitspace to a local port, as the feed and the admin API carry it.
pub(crate) fn route(generation: u64, upstream: SocketAddr) -> Value {
    json!({
        "gitspace": GITSPACE, "generation": generation, "state": "running", "owner": OWNER,
        "address": upstream.ip(), "ide": { "port": upstream.port() },
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
        if let Some(text) = shared.told.lock().unwrap().answer(&asked) {
            return text.into_response();
        }
        changed.await;
    }
}

impl Told {
    fn answer(&mut self, asked: &Asked) -> Option<String> {
        if !self.next.is_empty() {
            return Some(self.next.remove(0));
        }
        let deltas = self.deltas.iter().filter(|_| !asked.epoch.is_empty());
        let (_, text) = deltas
            .chain(&self.snapshot)
            .find(|(revision, _)| asked.epoch.is_empty() || *revision > asked.after)?;
        Some(text.clone())
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
