//! The control plane's HTTP API: routes, who may use them, bodies in and out.
//!
//! Three bearers: the user (gitspaces), delegates (tasks), gateways (feed). Health and the API's description are open.
//! Every error is `application/problem+json`. What the requests do is elsewhere.

mod delegates;
mod feed;
mod gitspaces;
pub mod openapi;
mod revocations;
mod serve;
mod wake;

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{
        DefaultBodyLimit, FromRequest, FromRequestParts, OptionalFromRequest, Path, Request,
        State as With, rejection::JsonRejection,
    },
    http::{StatusCode, header, request::Parts},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::net::TcpListener;

use super::{State, refusal::Refusal};
use crate::api::Secret;

/// The largest body; a gateway's report of activity may be [`REPORT_MAX`].
const BODY_MAX: usize = 64 * 1024;
const REPORT_MAX: usize = 1024 * 1024;
/// The longest that a long poll waits.
const WAIT_MAX: u64 = 60;

type Shared = Arc<State>;

/// Answers requests until the state's stop signal, and then those under way.
pub(super) async fn serve(listener: TcpListener, state: Shared) {
    let stop = state.stop.clone();
    serve::serve(listener, router(state), stop).await;
}

fn router(state: Shared) -> Router {
    let users = Router::new()
        .route(
            "/v1/gitspaces",
            post(gitspaces::create).get(gitspaces::list),
        )
        .route(
            "/v1/gitspaces/{id}",
            get(gitspaces::show).delete(gitspaces::delete),
        )
        .route("/v1/gitspaces/{id}/start", post(gitspaces::start))
        .route("/v1/gitspaces/{id}/stop", post(gitspaces::stop))
        .route("/v1/gitspaces/{id}/ticket", post(gitspaces::ticket))
        .route("/v1/gitspaces/{id}/events", get(gitspaces::events))
        .route(
            "/v1/revocations",
            post(revocations::revoke).get(revocations::list),
        )
        .route_layer(from_fn_with_state(state.clone(), only_user));
    let delegates = Router::new()
        .route("/v1/delegates", post(delegates::register))
        .route("/v1/delegates/{id}/heartbeat", post(delegates::heartbeat))
        .route("/v1/delegates/{id}/acquire", post(delegates::acquire))
        .route("/v1/tasks/{id}/progress", post(delegates::progress))
        .route("/v1/tasks/{id}/result", post(delegates::result))
        .route_layer(from_fn_with_state(state.clone(), only_delegates));
    let gateways = Router::new()
        .route("/v1/feed", get(feed::poll))
        .route("/v1/feed/redeem", post(feed::redeem))
        .route("/v1/feed/revoke", post(revocations::pass_on))
        .route("/v1/feed/wake", post(wake::wake))
        .route("/v1/feed/wake/cancel", post(wake::cancel))
        .route(
            "/v1/feed/report",
            post(feed::report).layer(DefaultBodyLimit::max(REPORT_MAX)),
        )
        .route_layer(from_fn_with_state(state.clone(), only_gateways));
    Router::new()
        .merge(users)
        .merge(delegates)
        .merge(gateways)
        .route("/healthz", get(healthz))
        .route("/v1/openapi.json", get(openapi::show))
        .fallback(|| async { Refusal::NoSuchPage })
        .method_not_allowed_fallback(|| async { Refusal::MethodNotAllowed })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(state)
}

/// Whether the store answers.
async fn healthz(With(state): With<Shared>) -> Result<StatusCode, Refusal> {
    let mut view = state.store.read().await?;
    sqlx::query("SELECT 1").execute(&mut *view).await?;
    Ok(StatusCode::OK)
}

async fn only_user(With(state): With<Shared>, request: Request, next: Next) -> Response {
    only(&state.user_token, request, next).await
}

async fn only_delegates(With(state): With<Shared>, request: Request, next: Next) -> Response {
    only(&state.delegate_token, request, next).await
}

async fn only_gateways(With(state): With<Shared>, request: Request, next: Next) -> Response {
    only(&state.gateway_token, request, next).await
}

async fn only(token: &Secret, request: Request, next: Next) -> Response {
    match bearer(&request) {
        None => Refusal::NoToken.into_response(),
        Some(found) if token.is(found) => next.run(request).await,
        Some(_) => Refusal::InvalidToken.into_response(),
    }
}

/// The bearer token (RFC 6750 §2.1); the scheme's case does not matter.
fn bearer(request: &Request) -> Option<&str> {
    let value = request
        .headers()
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// How long a long poll is to wait.
fn waiting(asked: Option<u64>) -> Duration {
    Duration::from_secs(asked.unwrap_or(0).min(WAIT_MAX))
}

/// A JSON body whose refusal is a problem that names the field.
struct Body<T>(T);

impl<T, S> FromRequest<S> for Body<T>
where
    Json<T>: FromRequest<S, Rejection = JsonRejection>,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(rejection) => Err(refused_body(&rejection)),
        }
    }
}

/// No Content-Type: no body.
impl<T, S> OptionalFromRequest<S> for Body<T>
where
    Json<T>: OptionalFromRequest<S, Rejection = JsonRejection>,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Refusal> {
        match <Json<T> as OptionalFromRequest<S>>::from_request(request, state).await {
            Ok(body) => Ok(body.map(|Json(body)| Self(body))),
            Err(rejection) => Err(refused_body(&rejection)),
        }
    }
}

/// The identifier in a path. One that is no text leads nowhere.
struct Id(String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(_) => Err(Refusal::NoSuchPage),
        }
    }
}

fn refused_body(rejection: &JsonRejection) -> Refusal {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::BodyTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Refusal::NotJson,
        _ => Refusal::BadRequest(
            rejection
                .body_text()
                .replace("expected u16", "expected a number from 1 to 65535"),
        ),
    }
}
