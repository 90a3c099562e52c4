//! `/v1/streams`: what is under way at this gateway, also in processes that it has taken over from, and its end.
//!
//! What is ended may come again, unless it is revoked too: a revocation ends what it covers by itself.

use std::time::Instant;

use axum::{
    Json,
    extract::{Query, State, rejection::JsonRejection, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::{Api, problem};
use crate::{
    api::stream::{EndStreams, Ended, MESSAGE_MAX, Stream, Which},
    gateway::{
        Elsewhere, Gateway,
        account::End,
        limit::Way,
        live::{Ending, Live},
    },
};

const MESSAGE: &str = "an operator ended the connection";
/// The longest name of an operator, in bytes.
const BY_MAX: usize = 256;

pub(super) async fn list(
    State(api): State<Api>,
    which: Result<Query<Which>, QueryRejection>,
) -> Response {
    let Query(which) = match which {
        Ok(which) => which,
        Err(error) => return problem(StatusCode::BAD_REQUEST, "bad-request", error.body_text()),
    };
    let mut streams = streams_of(&api.gateway, &which);
    let elsewhere = api.elsewhere(|answer| Elsewhere::List(which, answer));
    streams.extend(elsewhere.await.unwrap_or_default());
    let order = |one: &Stream| (one.principal.clone(), one.gitspace.clone(), one.since);
    streams.sort_by_cached_key(order);
    Json(streams).into_response()
}

/// The streams of this process that fit.
pub(crate) fn streams_of(gateway: &Gateway, which: &Which) -> Vec<Stream> {
    let all = gateway.lives.all();
    let fitting = all.iter().filter(|live| fits(live, which));
    fitting.map(|live| shown(live)).collect()
}

pub(super) async fn end(
    State(api): State<Api>,
    body: Result<Json<EndStreams>, JsonRejection>,
) -> Response {
    let bad = |detail: String| problem(StatusCode::BAD_REQUEST, "bad-request", detail);
    let asked = match body {
        Ok(Json(asked)) => asked,
        Err(error) => return bad(error.body_text()),
    };
    if asked.which.is_all() {
        return bad("`which` is empty, which would end everything; name a principal, login, share, gitspace, port or id".into());
    }
    for (name, text, max) in [
        ("message", &asked.message, MESSAGE_MAX),
        ("by", &asked.by, BY_MAX),
    ] {
        let good =
            |text: &String| (1..=max).contains(&text.len()) && !text.contains(char::is_control);
        if !text.as_ref().is_none_or(good) {
            return bad(format!(
                "`{name}` must have 1 to {max} bytes and no control characters"
            ));
        }
    }
    let here = end_streams_of(&api.gateway, &asked);
    let elsewhere = api.elsewhere(|answer| Elsewhere::End(asked, answer));
    let ended = here + elsewhere.await.unwrap_or_default();
    Json(Ended { ended }).into_response()
}

/// Ends the streams of this process that fit; how many.
pub(crate) fn end_streams_of(gateway: &Gateway, asked: &EndStreams) -> usize {
    let by = asked.by.as_deref().unwrap_or("an operator");
    let message = asked.message.as_deref().unwrap_or(MESSAGE);
    let ending = Ending {
        end: End::AccessEnded,
        detail: format!("ended by {by}: {message}").into(),
        message: message.into(),
    };
    let all = gateway.lives.all();
    let fitting = all.iter().filter(|live| fits(live, &asked.which));
    let ended = fitting.filter(|live| live.end(ending.clone())).count();
    tracing::info!(ended, by, which = ?asked.which, "ended streams");
    ended
}

fn fits(live: &Live, which: &Which) -> bool {
    let about = &live.about;
    let principal = about.principal.as_deref();
    let is = |wanted: &Option<String>, found: Option<&str>| {
        wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
    };
    // What was ended may still be taking its leave.
    live.ending().is_none()
        && is(&which.id, Some(&about.id))
        && is(
            &which.principal,
            principal.map(|principal| &*principal.name),
        )
        && is(
            &which.login,
            principal.and_then(|principal| principal.sid.as_deref()),
        )
        && is(&which.share, about.share.as_deref())
        && which
            .gitspace
            .as_ref()
            .is_none_or(|wanted| *wanted == about.gitspace)
        && which.port.is_none_or(|wanted| wanted == about.port)
}

fn shown(live: &Live) -> Stream {
    let about = &live.about;
    let principal = about.principal.as_deref();
    let login = principal.and_then(|principal| principal.sid.as_deref());
    Stream {
        id: about.id.as_ref().into(),
        principal: principal.map(|principal| principal.name.as_ref().into()),
        login: login.map(str::to_owned),
        share: about.share.as_deref().map(str::to_owned),
        gitspace: about.gitspace.clone(),
        port: about.port,
        client: about.client,
        protocol: live.protocol().to_owned(),
        since: i64::try_from(live.since).unwrap_or(i64::MAX),
        idle: live.idle(Instant::now()).as_secs(),
        typed: live.typed_at(),
        received: live.bytes(Way::Up),
        sent: live.bytes(Way::Down),
    }
}
