//! The admin API: health, metrics, routes, revocations, shares, streams, activity, reload. On a listener of its own and on the background runtime.
//!
//! `/healthz` and `/readyz` are open; everything else needs the bearer token. Routes, revocations and shares written here are kept over a
//! restart. `/api/routes` is the API of configurable-http-proxy, with a token of its own (`chp`).

mod activity;
mod chp;
mod kept;
mod shares;
mod streams;

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Request, State, rejection::JsonRejection},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

use kept::Kept;
pub(crate) use streams::{end_streams_of, streams_of};

use super::{
    Elsewhere, Gateway, ReloadRequest, Settings,
    auth::RevokeError,
    ready::Readiness,
    route::{Entry, RouteError, Source},
    turns::Turn,
};
use crate::api::{
    GitspaceId, Secret,
    path::RoutePath,
    problem::{MEDIA_TYPE, Problem},
    revocation::{Reach, Revocation, RevocationKind, Revoked},
    route::{Route, RouteState},
};

const BODY_MAX: usize = 1024 * 1024;
const RELOAD_WITHIN: Duration = Duration::from_secs(30);
/// How often another process' routes are looked for.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);
/// How long processes that were taken over from have to tell of their streams.
const ELSEWHERE_WITHIN: Duration = Duration::from_secs(5);

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Api {
    gateway: Arc<Gateway>,
    token: Secret,
    registry: Arc<Registry>,
    reload: Option<mpsc::Sender<ReloadRequest>>,
    elsewhere: Option<mpsc::Sender<Elsewhere>>,
    /// Where browsers come in, as far as is known here.
    https_port: Option<u16>,
    kept: Arc<Mutex<Kept>>,
    chp: Option<Arc<chp::Routes>>,
}

impl Api {
    pub(crate) fn new(
        gateway: Arc<Gateway>,
        settings: &Settings,
        registry: Registry,
        https_port: Option<u16>,
    ) -> io::Result<Self> {
        let mut kept = Kept::new(settings.state_dir.join("api-routes.json"));
        kept.catch_up(&gateway.routes)?;
        let chp = chp::Routes::load(&gateway, settings)?;
        Ok(Self {
            chp: chp.map(Arc::new),
            gateway,
            token: settings.admin_token.clone(),
            registry: Arc::new(registry),
            reload: settings.reload.clone(),
            elsewhere: settings.elsewhere.clone(),
            https_port,
            kept: Arc::new(Mutex::new(kept)),
        })
    }

    /// Asks the processes that were taken over from. None: there is nobody to ask, or no answer.
    async fn elsewhere<T>(&self, asked: impl FnOnce(oneshot::Sender<T>) -> Elsewhere) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let asking = async {
            self.elsewhere.as_ref()?.send(asked(answer)).await.ok()?;
            answered.await.ok()
        };
        let answered = tokio::time::timeout(ELSEWHERE_WITHIN, asking).await;
        answered.ok().flatten()
    }
}

/// Takes in what another process writes with its API, until the stop.
pub(crate) async fn follow(api: Api, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(FOLLOW_EVERY) => {}
        }
        let mut kept = api.kept.lock().await;
        if kept.is_behind()
            && let Err(error) = kept.catch_up(&api.gateway.routes)
        {
            tracing::error!(%error, "cannot follow the routes of the admin API");
        }
        drop(kept);
        if let Some(chp) = &api.chp
            && let Err(error) = chp.follow(&api.gateway).await
        {
            tracing::error!(%error, "cannot follow the routes of CHP");
        }
    }
}

/// Serves the API until the stop.
pub(crate) async fn serve(listener: TcpListener, api: Api, stop: CancellationToken) {
    let guarded = Router::new()
        .route("/metrics", get(metrics))
        .route("/v1/routes", get(routes))
        .route("/v1/routes/{gitspace}", put(put_route).delete(delete_route))
        .route("/v1/reload", post(reload))
        .route("/v1/revocations", get(revocations).post(revoke))
        .route("/v1/revocations/{kind}/{*id}", delete(unrevoke))
        .route("/v1/shares", get(shares::list).post(shares::make))
        .route("/v1/shares/{id}", delete(shares::remove))
        .route("/v1/activity", get(activity::list).post(activity::tell))
        .route("/v1/streams", get(streams::list))
        .route("/v1/streams/end", post(streams::end))
        .layer(middleware::from_fn_with_state(api.clone(), guard));
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .merge(guarded)
        .merge(chp::router(&api))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(api);
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "the admin listener failed");
    }
}

async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    match given.and_then(|value| value.strip_prefix("Bearer ")) {
        Some(token) if api.token.is(token) => next.run(request).await,
        Some(_) => problem(
            StatusCode::UNAUTHORIZED,
            "invalid-token",
            "the token is not the one in `gateway.admin.token_file`",
        ),
        None => problem(
            StatusCode::UNAUTHORIZED,
            "no-token",
            "send `Authorization: Bearer` with the token in `gateway.admin.token_file`",
        ),
    }
}

fn problem(status: StatusCode, reason: &str, detail: impl Into<String>) -> Response {
    let body = Problem {
        status: status.as_u16(),
        title: status.canonical_reason().unwrap_or("Error").to_owned(),
        reason: reason.to_owned(),
        detail: Some(detail.into()),
        request_id: None,
    };
    (
        status,
        [(header::CONTENT_TYPE, MEDIA_TYPE)],
        serde_json::to_string(&body).unwrap_or_default(),
    )
        .into_response()
}

async fn ready(State(api): State<Api>) -> (StatusCode, Json<Readiness>) {
    let readiness = api.gateway.readiness();
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(readiness))
}

async fn metrics(State(api): State<Api>) -> Response {
    let tasks = i64::try_from(api.gateway.drain.tasks()).unwrap_or(i64::MAX);
    api.gateway.sink.metrics.tasks.set(tasks);
    let mut text = String::new();
    let _ = prometheus_client::encoding::text::encode(&mut text, &api.registry);
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, media_type)], text).into_response()
}

/// A route as the API shows it.
#[derive(Serialize)]
struct Shown {
    gitspace: GitspaceId,
    source: Source,
    generation: u64,
    state: RouteState,
    owner: Option<Arc<str>>,
    host: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<RoutePath>,
    ports: Vec<ShownPort>,
}

#[derive(Serialize)]
struct ShownPort {
    port: String,
    upstream: String,
    visibility: crate::api::access::Visibility,
}

impl From<&Entry> for Shown {
    fn from(entry: &Entry) -> Self {
        let ports = entry.endpoints.iter().map(|endpoint| ShownPort {
            port: endpoint.port.to_string(),
            upstream: endpoint.target.address.to_string(),
            visibility: endpoint.visibility,
        });
        Self {
            gitspace: entry.gitspace.clone(),
            source: entry.source,
            generation: entry.generation,
            state: entry.state,
            owner: entry.owner.clone(),
            host: entry.place.as_ref().map(|place| Arc::clone(&place.host)),
            path: entry.place.as_ref().and_then(|place| place.path.clone()),
            ports: ports.collect(),
        }
    }
}

async fn routes(State(api): State<Api>) -> Json<Vec<Shown>> {
    let mut shown: Vec<Shown> = api
        .gateway
        .routes
        .all()
        .iter()
        .map(|entry| Shown::from(&**entry))
        .collect();
    shown.sort_by(|a, b| a.gitspace.cmp(&b.gitspace));
    Json(shown)
}

async fn put_route(
    State(api): State<Api>,
    Path(gitspace): Path<String>,
    body: Result<Json<Route>, JsonRejection>,
) -> Response {
    let route = match body {
        Ok(Json(route)) if route.gitspace.as_str() == gitspace => route,
        Ok(Json(route)) => {
            let detail = format!(
                "the path names {gitspace} and the body {}; they must be the same",
                route.gitspace
            );
            return problem(StatusCode::BAD_REQUEST, "bad-request", detail);
        }
        Err(error) => return problem(StatusCode::BAD_REQUEST, "bad-request", error.body_text()),
    };
    let mut kept = api.kept.lock().await;
    let turn = kept.turn(&api.gateway.routes);
    if let Err(error) = api.gateway.routes.apply(Source::Api, &route) {
        return refused(&error);
    }
    kept.put(route);
    saved(&mut kept, turn)
}

async fn delete_route(State(api): State<Api>, Path(gitspace): Path<String>) -> Response {
    let unknown = || {
        problem(
            StatusCode::NOT_FOUND,
            "no-such-route",
            format!("there is no route {gitspace}"),
        )
    };
    let Ok(gitspace) = gitspace.parse::<GitspaceId>() else {
        return unknown();
    };
    let mut kept = api.kept.lock().await;
    let turn = kept.turn(&api.gateway.routes);
    match api.gateway.routes.remove(Source::Api, &gitspace) {
        Ok(true) => {
            kept.remove(&gitspace);
            saved(&mut kept, turn)
        }
        Ok(false) => unknown(),
        Err(error) => refused(&error),
    }
}

fn saved(kept: &mut Kept, turn: io::Result<Turn>) -> Response {
    match turn.and_then(|turn| kept.save(&turn)) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "not-kept",
            format!(
                "the change holds until a restart; it cannot be written to {}: {error}",
                kept.path().display()
            ),
        ),
    }
}

fn refused(error: &RouteError) -> Response {
    let (status, reason) = match error {
        RouteError::OtherSource { .. } | RouteError::HostTaken { .. } => {
            (StatusCode::CONFLICT, "conflict")
        }
        RouteError::Forbidden { .. } | RouteError::Invalid { .. } => {
            (StatusCode::UNPROCESSABLE_ENTITY, "bad-route")
        }
    };
    problem(status, reason, error.to_string())
}

async fn revocations(State(api): State<Api>) -> Json<Revoked> {
    let mut revocations = api.gateway.auth.revocations();
    revocations.sort_by(|a, b| a.id.cmp(&b.id));
    Json(Revoked {
        reaches: Reach::One,
        problem: None,
        revocations,
    })
}

async fn revoke(State(api): State<Api>, body: Result<Json<Revocation>, JsonRejection>) -> Response {
    let revocation = match body {
        Ok(Json(revocation)) => revocation,
        Err(error) => return problem(StatusCode::BAD_REQUEST, "bad-request", error.body_text()),
    };
    if let Err(error) = revocation.check() {
        return problem(
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad-revocation",
            error.to_string(),
        );
    }
    let (kind, id, by) = (
        revocation.kind,
        revocation.id.clone(),
        revocation.by.clone(),
    );
    match api.gateway.revoke(revocation, SystemTime::now()).await {
        Ok(revoked) => {
            tracing::info!(?kind, id, by, reaches = ?revoked.reaches, "revoked");
            (StatusCode::CREATED, Json(revoked)).into_response()
        }
        Err(error) => not_revoked(&error),
    }
}

async fn unrevoke(
    State(api): State<Api>,
    Path((kind, id)): Path<(RevocationKind, String)>,
) -> Response {
    match api.gateway.auth.unrevoke(kind, id).await {
        Ok(true) => StatusCode::NO_CONTENT.into_response(),
        Ok(false) => problem(
            StatusCode::NOT_FOUND,
            "no-such-revocation",
            "there is no revocation of this kind and id",
        ),
        Err(error) => not_revoked(&error),
    }
}

fn not_revoked(error: &RevokeError) -> Response {
    let (status, reason) = match error {
        RevokeError::Full => (StatusCode::INSUFFICIENT_STORAGE, "too-many-revocations"),
        RevokeError::NotKept(_) => (StatusCode::INTERNAL_SERVER_ERROR, "not-kept"),
    };
    problem(status, reason, error.to_string())
}

async fn reload(State(api): State<Api>) -> Response {
    let Some(sender) = &api.reload else {
        return problem(
            StatusCode::NOT_IMPLEMENTED,
            "no-configuration",
            "this gateway was started without a file",
        );
    };
    let (answer, answered) = oneshot::channel();
    if sender.send(answer).await.is_err() {
        return problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "shutting-down",
            "the program is stopping",
        );
    }
    match tokio::time::timeout(RELOAD_WITHIN, answered).await {
        Ok(Ok(Ok(()))) => StatusCode::NO_CONTENT.into_response(),
        Ok(Ok(Err(why))) => problem(StatusCode::UNPROCESSABLE_ENTITY, "bad-configuration", why),
        _ => problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "shutting-down",
            "the reload was not answered",
        ),
    }
}
