//! `/v1/activity`: how gitspaces are used, why each is awake, and what somebody did that the gateway did not see.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use axum::{
    Json,
    extract::{Query, State, rejection::JsonRejection, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{Api, problem};
use crate::{
    api::{
        GitspaceId,
        activity::{Deed, Kind, Last, Tell, Used},
    },
    gateway::{activity::unsigned, route::Entry},
};

/// A clock may be off by so much.
const SKEW: Duration = Duration::from_secs(30);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// This one alone.
    gitspace: Option<GitspaceId>,
}

pub(super) async fn list(
    State(api): State<Api>,
    which: Result<Query<Which>, QueryRejection>,
) -> Response {
    let Query(which) = match which {
        Ok(which) => which,
        Err(error) => return problem(StatusCode::BAD_REQUEST, "bad-request", error.body_text()),
    };
    let routes = &api.gateway.routes;
    let mut entries = match &which.gitspace {
        Some(gitspace) => routes.get(gitspace).into_iter().collect(),
        None => routes.all(),
    };
    if let Some(gitspace) = which.gitspace.filter(|_| entries.is_empty()) {
        return unknown(&gitspace);
    }
    entries.sort_by(|one, other| one.gitspace.cmp(&other.gitspace));
    let mut streams = HashMap::new();
    for live in api.gateway.lives.all() {
        if live.is_stream() {
            *streams.entry(live.about.gitspace.clone()).or_default() += 1;
        }
    }
    let now = unsigned(SystemTime::now());
    let used: Vec<Used> = entries
        .iter()
        .map(|entry| {
            let streams = streams.get(&entry.gitspace).copied().unwrap_or(0);
            used(entry, streams, now)
        })
        .collect();
    Json(used).into_response()
}

pub(super) async fn tell(
    State(api): State<Api>,
    body: Result<Json<Tell>, JsonRejection>,
) -> Response {
    let bad = |detail: String| problem(StatusCode::BAD_REQUEST, "bad-request", detail);
    let told = match body {
        Ok(Json(told)) => told,
        Err(error) => return bad(error.body_text()),
    };
    let now = unsigned(SystemTime::now());
    let at = told.at.unwrap_or(now);
    if at > now + SKEW.as_secs() {
        return bad(format!(
            "`at` is {} seconds in the future; give seconds since 1970, or nothing for now",
            at - now
        ));
    }
    let Some(entry) = api.gateway.routes.get(&told.gitspace) else {
        return unknown(&told.gitspace);
    };
    entry.activity.told(told.kind, at.min(now));
    StatusCode::NO_CONTENT.into_response()
}

fn unknown(gitspace: &GitspaceId) -> Response {
    problem(
        StatusCode::NOT_FOUND,
        "no-such-gitspace",
        format!("there is no route for {gitspace}; see `GET /v1/routes`"),
    )
}

fn used(entry: &Entry, streams: usize, now: u64) -> Used {
    let last: Vec<Last> = entry.activity.last().collect();
    let latest = last.iter().max_by_key(|last| last.at);
    Used {
        gitspace: entry.gitspace.clone(),
        idle_since: latest.map(|last| last.at),
        why: why(latest, streams, now),
        passed: entry.activity.passed(),
        streams,
        last,
    }
}

/// In words, so that nobody has to know what counts.
fn why(latest: Option<&Last>, streams: usize, now: u64) -> String {
    let done = latest.map_or_else(
        || "nobody did anything since the gateway started".to_owned(),
        |last| {
            let ago = span(now.saturating_sub(last.at));
            format!("{} {ago} ago, and nobody did anything since", deed(last))
        },
    );
    match streams {
        0 => done,
        1 => format!("{done}; a connection is open, which does not count by itself"),
        count => format!("{done}; {count} connections are open, which do not count by themselves"),
    }
}

fn deed(last: &Last) -> String {
    let place = match (last.kind, last.port) {
        (Kind::Port, Some(number)) => format!("port {number}"),
        (Kind::Port, None) => "a port".to_owned(),
        (Kind::Ide, _) => "the IDE".to_owned(),
        (Kind::Ssh, _) => "SSH".to_owned(),
        (Kind::Terminal, _) => "a terminal".to_owned(),
        (Kind::Api, _) => "the API".to_owned(),
    };
    match last.deed {
        Deed::Opened => format!("somebody opened {place}"),
        Deed::Typed => format!("somebody typed at {place}"),
        Deed::Saved => format!("somebody saved a file at {place}"),
        Deed::Told => format!("{place} said that it is in use"),
    }
}

/// Seconds for people.
fn span(seconds: u64) -> String {
    let plural = |count: u64, unit: &str| match count {
        1 => format!("1 {unit}"),
        _ => format!("{count} {unit}s"),
    };
    match seconds {
        0..60 => plural(seconds, "second"),
        60..3600 => plural(seconds / 60, "minute"),
        3600..86_400 => plural(seconds / 3600, "hour"),
        _ => plural(seconds / 86_400, "day"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_is_told_in_words() {
        let last = |kind, deed, port| Last {
            kind,
            deed,
            port,
            at: 1000,
        };
        let typed = last(Kind::Ide, Deed::Typed, None);
        assert_eq!(
            why(Some(&typed), 0, 1012),
            "somebody typed at the IDE 12 seconds ago, and nobody did anything since"
        );
        let opened = last(Kind::Port, Deed::Opened, Some(3000));
        assert_eq!(
            why(Some(&opened), 1, 1000 + 2 * 3600),
            "somebody opened port 3000 2 hours ago, and nobody did anything since; a connection is open, which does not count by itself"
        );
        assert_eq!(
            why(None, 3, 1000),
            "nobody did anything since the gateway started; 3 connections are open, which do not count by themselves"
        );
        let terminal = last(Kind::Terminal, Deed::Typed, None);
        assert!(
            why(Some(&terminal), 0, 1009).starts_with("somebody typed at a terminal 9 seconds")
        );
        let told = last(Kind::Ssh, Deed::Told, None);
        assert!(why(Some(&told), 0, 1060).starts_with("SSH said that it is in use 1 minute ago"));
    }
}
