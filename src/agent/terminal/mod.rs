//! The built-in IDE: a page with a shell on a PTY.
//!
//! Runs inside the instance, on a port that only the gateway reaches. A shell survives a cut socket and a reload of the page: its
//! session keeps the PTY and the last of its output. Sessions are bounded in number, and end with their shell, after a time
//! without a viewer, or with the server.
//!
//! Not here: who may come (the gateway), the page itself (`web/`).

mod page;
mod processes;
mod ring;
mod session;
mod socket;

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderValue, header},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use session::Sessions;

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
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/ws", get(socket::open))
        .with_state(Arc::clone(&sessions));
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await;
    sessions.ended().await;
    served
}

/// What the page shows of the gitspace.
async fn about(State(sessions): State<Arc<Sessions>>) -> impl IntoResponse {
    let settings = sessions.settings();
    let about = serde_json::json!({ "title": settings.title, "folder": settings.folder });
    (
        [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))],
        Json(about),
    )
}
