//! `/v1/feed`: the gateways' API.

use axum::{
    Json,
    extract::{Query, State as With, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{Body, Shared, waiting};
use crate::{
    api::feed::{Redeem, Report, Reported},
    control_plane::{feed, history::Known, poll, refusal::Refusal},
};

/// The query of the feed.
#[derive(Debug, Deserialize)]
pub(super) struct Since {
    epoch: Option<String>,
    run: Option<String>,
    /// Also `after=`, as a gateway without a revision may write it.
    after: Option<String>,
    wait: Option<u64>,
}

pub(super) async fn poll(
    With(state): With<Shared>,
    query: Result<Query<Since>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Query(since) = query.map_err(|error| Refusal::BadRequest(error.body_text()))?;
    let after = since
        .after
        .filter(|after| !after.is_empty())
        .map(|after| after.parse())
        .transpose()
        .map_err(|_| Refusal::BadRequest("after: a revision is a number".into()))?;
    let known = Known {
        epoch: since.epoch,
        run: since.run,
        after,
    };
    let answer = poll::poll(&state, &known, waiting(since.wait)).await?;
    let (gzip, encoded) = answer.encoded(takes_gzip(&headers));
    let headers = [
        (header::CONTENT_TYPE.as_str(), "application/json".to_owned()),
        ("content-digest", encoded.digest),
    ];
    let coding = gzip.then_some([(header::CONTENT_ENCODING, "gzip")]);
    Ok((headers, coding, encoded.body).into_response())
}

/// Whether `Accept-Encoding` names it, and not to exclude it (RFC 9110 §12.5.3).
fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT_ENCODING).iter();
    let mut codings = accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    codings.any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().trim_start_matches("q=").parse::<f32>();
        name.trim().eq_ignore_ascii_case("gzip") && weight != Ok(0.0)
    })
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
) -> Result<Json<Reported>, Refusal> {
    feed::report(&state.store, &sent).await?;
    Ok(Json(Reported {
        typed: state.typed.lately(),
    }))
}
