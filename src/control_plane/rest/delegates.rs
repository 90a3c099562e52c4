//! `/v1/delegates` and `/v1/tasks`: the delegates' API.

use axum::{
    Json,
    extract::{Query, State as With, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{Body, Id, Shared, waiting};
use crate::{
    api::task::{Heartbeat, Progress, Register, Registered, TaskResult},
    control_plane::{refusal::Refusal, tasks},
};

/// The query of a long poll.
#[derive(Debug, Deserialize)]
pub(super) struct Wait {
    wait: Option<u64>,
}

pub(super) async fn register(
    With(state): With<Shared>,
    Body(asked): Body<Register>,
) -> Result<Json<Registered>, Refusal> {
    tasks::register(&state.store, &asked).await.map(Json)
}

pub(super) async fn heartbeat(
    With(state): With<Shared>,
    Id(id): Id,
    Body(beat): Body<Heartbeat>,
) -> Result<StatusCode, Refusal> {
    tasks::heartbeat(&state.store, &id, &beat, &state.timing).await?;
    state.typed.learn(&beat.typed);
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn acquire(
    With(state): With<Shared>,
    Id(id): Id,
    query: Result<Query<Wait>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(query) = query.map_err(|error| Refusal::BadRequest(error.body_text()))?;
    let wait = waiting(query.wait);
    let task = tasks::acquire(&state.store, &id, wait, &state.timing, &state.stop).await?;
    Ok(match task {
        Some(task) => Json(task).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

pub(super) async fn progress(
    With(state): With<Shared>,
    Id(id): Id,
    Body(report): Body<Progress>,
) -> Result<StatusCode, Refusal> {
    tasks::progress(&state.store, &id, &report).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn result(
    With(state): With<Shared>,
    Id(id): Id,
    Body(sent): Body<TaskResult>,
) -> Result<StatusCode, Refusal> {
    tasks::result(&state.store, &id, &sent).await?;
    Ok(StatusCode::OK)
}
