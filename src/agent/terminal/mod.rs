//! The built-in IDE: a page with a shell on a PTY.
//!
//! Runs inside the instance, on a port that only the gateway reaches. A shell survives a cut socket and a reload of the page: its
//! session keeps the PTY and the last of its output. Sessions are bounded in number, and end with their shell, after a time
//! without a viewer, or with the server; with a session ends all that its shell started, but for what left the shell's kernel
//! session (`setsid`): that ends with the agent.
//!
//! Not here: who may come (the gateway), the page itself (`web/`).

mod page;
mod processes;
mod ring;
mod session;
mod sessions;
mod shell;
mod socket;

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::{Json, Router, extract::State, response::IntoResponse, routing::get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use sessions::Sessions;

/// How long answers may take after the stop.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// What a terminal server runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The shell's working directory.
    pub folder: PathBuf,
    /// The shell.
    pub shell: PathBuf,
    /// Its environment beside the usual variables; nothing else is inherited.
    pub environment: Vec<(String, String)>,
    /// What the page calls itself.
    pub title: String,
    /// How long a shell is kept that nobody looks at.
    pub keep_detached: Duration,
    /// How many shells there may be at once.
    pub sessions: usize,
    /// How long a shell's output waits for a viewer that is behind.
    pub wait_for_viewer: Duration,
    /// How often a viewer is asked whether it is still there; three silences in a row, and it is not.
    pub ping: Duration,
}

impl Settings {
    /// With the usual limits: an hour, 32 shells.
    pub fn new(
        folder: PathBuf,
        shell: PathBuf,
        environment: Vec<(String, String)>,
        title: String,
    ) -> Self {
        Self {
            folder,
            shell,
            environment,
            title,
            keep_detached: Duration::from_secs(3600),
            sessions: 32,
            wait_for_viewer: Duration::from_secs(5),
            ping: Duration::from_secs(30),
        }
    }
}

/// Serves until the stop; then every shell and what it started ends.
pub async fn serve(
    listener: TcpListener,
    settings: Settings,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let sessions = Sessions::new(settings, stop.clone());
    let router = Router::new()
        .route("/", get(page::index))
        .route("/assets/{*path}", get(page::asset))
        .route("/session.json", get(about))
        .route("/healthz", get(healthz))
        .route("/ws", get(socket::open))
        .layer(axum::middleware::map_response(page::protect))
        .with_state(Arc::clone(&sessions));
    let overdue = {
        let stop = stop.clone();
        async move {
            stop.cancelled().await;
            tokio::time::sleep(LAST_ANSWERS).await;
        }
    };
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    let served = tokio::select! {
        served = async { serving.await } => served,
        // A request that never becomes whole must not hold up the stop.
        () = overdue => Ok(()),
    };
    sessions.ended().await;
    served
}

async fn healthz() -> impl IntoResponse {
    (page::NO_STORE, "ok\n")
}

/// What the page shows of the gitspace.
async fn about(State(sessions): State<Arc<Sessions>>) -> impl IntoResponse {
    let settings = sessions.settings();
    let about = serde_json::json!({ "title": settings.title, "folder": settings.folder });
    (page::NO_STORE, Json(about))
}
