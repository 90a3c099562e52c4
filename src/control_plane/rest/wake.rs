//! `/v1/feed/wake`: starts for gateways, as server-sent events.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State as With,
    http::{HeaderMap, StatusCode},
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::{Stream, StreamExt};
use serde::Serialize;

use super::{Body, Shared};
use crate::{
    api::{
        problem::Problem,
        wake::{Cancel, Wake},
    },
    control_plane::{
        refusal::Refusal,
        wake::{self, Told},
    },
};

/// A silent connection says so often that it is there.
const ALIVE: Duration = Duration::from_secs(15);

/// Start a gitspace for who opened it, and watch. Committed before the answer; one that runs or starts stays as it is. With a
/// gateway's token. The answer is `text/event-stream`: `usual` (milliseconds by step, what the last starts took), `step` (an Event, `id` for Last-Event-ID) and `state` (a WakeState); any
/// state but `starting` ends it.
#[utoipa::path(post, path = "/v1/feed/wake", request_body = Wake, tag = "gateways",
    params(("Last-Event-ID" = Option<i64>, Header, description = "Only what came after this")),
    responses((status = 200, content_type = "text/event-stream", body = String), (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn wake(
    With(state): With<Shared>,
    headers: HeaderMap,
    Body(asked): Body<Wake>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>> + use<>>, Refusal> {
    let after = headers
        .get("last-event-id")
        .map(|id| id.to_str().unwrap_or_default().parse())
        .transpose()
        .map_err(|_| Refusal::BadRequest("Last-Event-ID: the id of an event is a number".into()))?;
    let told = wake::wake(&state, &asked, after.unwrap_or(0)).await?;
    let events = told.map(|told| Ok(event(&told)));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE)))
}

/// Cancel a start that is under way. Committed before the answer; what has begun of it is stopped. With a gateway's token.
#[utoipa::path(post, path = "/v1/feed/wake/cancel", request_body = Cancel, tag = "gateways",
    responses((status = 204), (status = 400, body = Problem), (status = 401, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn cancel(
    With(state): With<Shared>,
    Body(asked): Body<Cancel>,
) -> Result<StatusCode, Refusal> {
    wake::cancel(&state, &asked).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn event(told: &Told) -> Event {
    match told {
        Told::Usual(usual) => named("usual", usual),
        Told::Step(id, event) => named("step", event).id(id.to_string()),
        Told::State(state) => named("state", state),
    }
}

/// JSON has no line break of its own, so it is one line of `data`.
fn named(name: &str, value: &impl Serialize) -> Event {
    let data = serde_json::to_string(value).unwrap_or_default();
    Event::default().event(name).data(data)
}
