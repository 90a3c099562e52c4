//! `/v1/gitspaces`: the user's API.

use axum::{
    Json,
    extract::State as With,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};

use super::{Body, Id, Shared};
use crate::{
    api::{
        gitspace::{CreateGitspace, Event, Gitspace, Ticket, TicketRequest},
        problem::Problem,
    },
    control_plane::{gitspaces, lifecycle::Trigger, refusal::Refusal},
};

/// Make a gitspace, and start it unless `start` is false. The same Idempotency-Key gives the same gitspace.
#[utoipa::path(post, path = "/v1/gitspaces", request_body = CreateGitspace, tag = "gitspaces",
    params(("Idempotency-Key" = Option<String>, Header, description = "Names this request, so that it may be sent again")),
    responses((status = 201, body = Gitspace), (status = 400, body = Problem), (status = 401, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn create(
    With(state): With<Shared>,
    headers: HeaderMap,
    Body(asked): Body<CreateGitspace>,
) -> Result<(StatusCode, Json<Gitspace>), Refusal> {
    let key = headers
        .get("idempotency-key")
        .map(|key| key.to_str())
        .transpose()
        .map_err(|_| {
            Refusal::BadRequest("Idempotency-Key: only visible ASCII is accepted".into())
        })?;
    let made = gitspaces::create(&state, asked, key).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// All gitspaces of the user, the newest first, without their events.
#[utoipa::path(get, path = "/v1/gitspaces", tag = "gitspaces",
    responses((status = 200, body = Vec<Gitspace>), (status = 401, body = Problem)))]
pub(super) async fn list(With(state): With<Shared>) -> Result<Json<Vec<Gitspace>>, Refusal> {
    gitspaces::list(&state).await.map(Json)
}

/// One gitspace, with the steps of its last action.
#[utoipa::path(get, path = "/v1/gitspaces/{id}", tag = "gitspaces", params(("id" = String, Path)),
    responses((status = 200, body = Gitspace), (status = 401, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn show(With(state): With<Shared>, Id(id): Id) -> Result<Json<Gitspace>, Refusal> {
    gitspaces::show(&state, &id).await.map(Json)
}

/// Start it. One that is running or starting stays as it is.
#[utoipa::path(post, path = "/v1/gitspaces/{id}/start", tag = "gitspaces", params(("id" = String, Path)),
    responses((status = 202, body = Gitspace), (status = 401, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn start(
    state: With<Shared>,
    id: Id,
) -> Result<(StatusCode, Json<Gitspace>), Refusal> {
    act(state, id, Trigger::Start).await
}

/// Stop it and keep everything. One that is stopped or stopping stays as it is.
#[utoipa::path(post, path = "/v1/gitspaces/{id}/stop", tag = "gitspaces", params(("id" = String, Path)),
    responses((status = 202, body = Gitspace), (status = 401, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn stop(
    state: With<Shared>,
    id: Id,
) -> Result<(StatusCode, Json<Gitspace>), Refusal> {
    act(state, id, Trigger::Stop).await
}

async fn act(
    With(state): With<Shared>,
    Id(id): Id,
    trigger: Trigger,
) -> Result<(StatusCode, Json<Gitspace>), Refusal> {
    let shown = gitspaces::act(&state, &id, trigger).await?;
    Ok((StatusCode::ACCEPTED, Json(shown)))
}

/// Delete it with its data: 202 while its instance is destroyed, 204 if there was none.
#[utoipa::path(delete, path = "/v1/gitspaces/{id}", tag = "gitspaces", params(("id" = String, Path)),
    responses((status = 202, body = Gitspace), (status = 204), (status = 401, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn delete(With(state): With<Shared>, Id(id): Id) -> Result<Response, Refusal> {
    Ok(match gitspaces::delete(&state, &id).await? {
        Some(shown) => (StatusCode::ACCEPTED, Json(shown)).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// A URL that opens the IDE or a port once, within a minute.
#[utoipa::path(post, path = "/v1/gitspaces/{id}/ticket", request_body = Option<TicketRequest>, tag = "gitspaces", params(("id" = String, Path)),
    responses((status = 200, body = Ticket), (status = 401, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn ticket(
    With(state): With<Shared>,
    Id(id): Id,
    asked: Option<Body<TicketRequest>>,
) -> Result<Json<Ticket>, Refusal> {
    let asked = asked.map(|Body(asked)| asked).unwrap_or_default();
    gitspaces::ticket(&state, &id, &asked).await.map(Json)
}

/// What it went through, oldest first.
#[utoipa::path(get, path = "/v1/gitspaces/{id}/events", tag = "gitspaces", params(("id" = String, Path)),
    responses((status = 200, body = Vec<Event>), (status = 401, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn events(
    With(state): With<Shared>,
    Id(id): Id,
) -> Result<Json<Vec<Event>>, Refusal> {
    gitspaces::events(&state, &id).await.map(Json)
}
