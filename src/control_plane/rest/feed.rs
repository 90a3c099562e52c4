//! `/v1/feed`: the gateways' API.

use axum::{
    Json,
    extract::{Query, State as With, rejection::QueryRejection},
    http::StatusCode,
};
use serde::Deserialize;

use super::{Body, Shared, waiting};
use crate::{
    api::feed::{Feed, Redeem, Report},
    control_plane::{feed, refusal::Refusal},
};

/// The query of the feed.
#[derive(Debug, Deserialize)]
pub(super) struct Since {
    epoch: Option<String>,
    /// Also `after=`, as a gateway without a revision may write it.
    after: Option<String>,
    wait: Option<u64>,
}

pub(super) async fn poll(
    With(state): With<Shared>,
    query: Result<Query<Since>, QueryRejection>,
) -> Result<Json<Feed>, Refusal> {
    let Query(since) = query.map_err(|error| Refusal::BadRequest(error.body_text()))?;
    let after = since
        .after
        .filter(|after| !after.is_empty())
        .map(|after| after.parse())
        .transpose()
        .map_err(|_| Refusal::BadRequest("after: a revision is a number".into()))?;
    let known = feed::Known {
        epoch: since.epoch,
        after,
    };
    let wait = waiting(since.wait);
    feed::poll(
        &state.store,
        &state.keys,
        &state.timing,
        &known,
        wait,
        &state.stop,
    )
    .await
    .map(Json)
}

pub(super) async fn redeem(
    With(state): With<Shared>,
    Body(asked): Body<Redeem>,
) -> Result<StatusCode, Refusal> {
    feed::redeem(&state.store, &asked).await?;
    Ok(StatusCode::OK)
}

pub(super) async fn report(
    With(state): With<Shared>,
    Body(sent): Body<Report>,
) -> Result<StatusCode, Refusal> {
    feed::report(&state.store, &sent).await?;
    Ok(StatusCode::NO_CONTENT)
}
