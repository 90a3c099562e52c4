//! `/v1/revocations`: what counts no more at any gateway; and the same from gateways, which pass on what they are told.

use axum::{Json, extract::State as With, http::StatusCode};

use super::{Body, Shared};
use crate::{
    api::{problem::Problem, revocation::Revocation},
    control_plane::{refusal::Refusal, revocations},
};

/// Revoke: what was issued at or before `issued_before` (now) counts no more at any gateway, and what is under way by it ends there
/// within two seconds. `by` is who asks.
#[utoipa::path(post, path = "/v1/revocations", request_body = Revocation, tag = "revocations",
    responses((status = 201, body = Revocation), (status = 400, body = Problem), (status = 401, body = Problem), (status = 507, body = Problem)))]
pub(super) async fn revoke(
    With(state): With<Shared>,
    Body(asked): Body<Revocation>,
) -> Result<(StatusCode, Json<Revocation>), Refusal> {
    let asked = Revocation {
        by: Some(state.user.clone()),
        ..asked
    };
    let counts = revocations::take(&state.store, asked).await?;
    Ok((StatusCode::CREATED, Json(counts)))
}

/// All that count, the oldest first.
#[utoipa::path(get, path = "/v1/revocations", tag = "revocations",
    responses((status = 200, body = Vec<Revocation>), (status = 401, body = Problem)))]
pub(super) async fn list(With(state): With<Shared>) -> Result<Json<Vec<Revocation>>, Refusal> {
    let mut view = state.store.read().await?;
    let now = state.store.clock.wall_seconds();
    revocations::after(&mut view, -1, now).await.map(Json)
}

/// From a gateway, which says by whom.
pub(super) async fn pass_on(
    With(state): With<Shared>,
    Body(asked): Body<Revocation>,
) -> Result<(StatusCode, Json<Revocation>), Refusal> {
    let counts = revocations::take(&state.store, asked).await?;
    Ok((StatusCode::CREATED, Json(counts)))
}
