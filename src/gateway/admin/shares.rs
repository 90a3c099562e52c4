//! Shares in the admin API: made, listed, taken back.

use std::{sync::Arc, time::SystemTime};

use axum::{
    Json,
    extract::{Path, Query, State, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use super::{Api, problem};
use crate::{
    api::{
        GitspaceId,
        access::Port,
        share::{Audience, Share},
    },
    gateway::{
        auth::{Invitation, seconds},
        http::Destination,
        route::Entry,
        share::{Made, ShareError},
    },
};

/// What `POST /v1/shares` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    gitspace: GitspaceId,
    port: Port,
    to: Audience,
    #[serde(default)]
    until: Option<i64>,
    #[serde(default)]
    uses: Option<u32>,
    #[serde(default)]
    by: Option<String>,
}

/// Whose shares are listed.
#[derive(Deserialize)]
pub(super) struct Of {
    gitspace: Option<GitspaceId>,
}

/// A share as the API shows it.
#[derive(Serialize)]
pub(super) struct Shown {
    gitspace: GitspaceId,
    #[serde(flatten)]
    share: Share,
    #[serde(skip_serializing_if = "Option::is_none")]
    uses: Option<u32>,
    used: u32,
    made: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    /// What to give to whoever may come.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<String>,
}

pub(super) async fn list(State(api): State<Api>, Query(of): Query<Of>) -> Json<Vec<Shown>> {
    let mut made = api.gateway.shares.all();
    made.retain(|made| of.gitspace.as_ref().is_none_or(|of| made.gitspace == *of));
    made.sort_by(|a, b| (&a.gitspace, a.made).cmp(&(&b.gitspace, b.made)));
    Json(made.into_iter().map(|made| api.shown(made)).collect())
}

pub(super) async fn make(
    State(api): State<Api>,
    body: Result<Json<Wanted>, JsonRejection>,
) -> Response {
    let wanted = match body {
        Ok(Json(wanted)) => wanted,
        Err(error) => return problem(StatusCode::BAD_REQUEST, "bad-request", error.body_text()),
    };
    let now = seconds(SystemTime::now());
    if api.entry(&wanted.gitspace).is_none() {
        return problem(
            StatusCode::NOT_FOUND,
            "no-such-route",
            format!("there is no route {}", wanted.gitspace),
        );
    }
    if let Err(problem) = api.check(&wanted, now) {
        return bad(problem);
    }
    let Some(id) = new_id() else {
        return problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "no-randomness",
            "the system gave no random bytes for an identifier",
        );
    };
    let share = Share {
        id,
        port: wanted.port,
        to: wanted.to,
        until: wanted.until,
    };
    if let Err(error) = share.check() {
        return bad(error.to_string());
    }
    let made = Made {
        gitspace: wanted.gitspace,
        share,
        uses: wanted.uses,
        used: 0,
        made: now,
        by: wanted.by,
    };
    let (shares, kept) = (api.gateway.shares.clone(), made.clone());
    match tokio::task::spawn_blocking(move || shares.add(kept, now)).await {
        Ok(Ok(())) => {
            tracing::info!(id = %made.share.id, gitspace = %made.gitspace, port = %made.share.port, by = made.by, "shared");
            (StatusCode::CREATED, Json(api.shown(made))).into_response()
        }
        Ok(Err(error)) => refused(&error),
        Err(_) => stopping(),
    }
}

pub(super) async fn remove(State(api): State<Api>, Path(id): Path<String>) -> Response {
    let shares = api.gateway.shares.clone();
    match tokio::task::spawn_blocking(move || shares.remove(&id)).await {
        Ok(Ok(true)) => StatusCode::NO_CONTENT.into_response(),
        Ok(Ok(false)) => problem(
            StatusCode::NOT_FOUND,
            "no-such-share",
            "there is no share with this id that was made here; one of a route is taken back where the route comes from",
        ),
        Ok(Err(error)) => refused(&error),
        Err(_) => stopping(),
    }
}

impl Api {
    /// What is wrong with a share for a gitspace that is there.
    fn check(&self, wanted: &Wanted, now: i64) -> Result<(), String> {
        let entry = self.entry(&wanted.gitspace);
        if entry.is_none_or(|entry| entry.endpoint(wanted.port).is_none()) {
            return Err(format!("{} has no port {}", wanted.gitspace, wanted.port));
        }
        let is_text = |text: &String| text.len() <= 256 && !text.contains(char::is_control);
        let problem = if wanted.until.is_some_and(|until| until <= now) {
            "`until` is over; it is a time in seconds since 1970"
        } else if wanted.uses == Some(0) {
            "`uses` is 0; leave it out for a link that may be used any number of times"
        } else if wanted.uses.is_some() && wanted.to != Audience::Link {
            "`uses` counts how often a link is accepted; it goes with `\"to\": \"link\"` only"
        } else if !wanted.by.as_ref().is_none_or(is_text) {
            "`by` must have at most 256 bytes and no control characters"
        } else {
            return Ok(());
        };
        Err(problem.into())
    }

    fn entry(&self, gitspace: &GitspaceId) -> Option<Arc<Entry>> {
        let destination = Destination::Gitspace(gitspace.clone(), Port::Ide);
        let found = self.gateway.routes.find(&destination, "", "");
        found.map(|(entry, _)| entry)
    }

    fn shown(&self, made: Made) -> Shown {
        let link = (made.share.to == Audience::Link).then(|| self.link(&made));
        Shown {
            gitspace: made.gitspace,
            share: made.share,
            uses: made.uses,
            used: made.used,
            made: made.made,
            by: made.by,
            link,
        }
    }

    /// Signed anew each time, with the current key.
    fn link(&self, made: &Made) -> String {
        let link = self.gateway.auth.link(&Invitation {
            share: Arc::clone(&made.share.id),
            gitspace: made.gitspace.clone(),
            port: made.share.port,
        });
        let own = self
            .entry(&made.gitspace)
            .and_then(|entry| entry.place.as_ref().map(|place| Arc::clone(&place.host)));
        let domain = self.gateway.domains.first().map_or("", |domain| &**domain);
        let host = match (made.share.port, own) {
            (Port::Ide, Some(host)) => host.to_string(),
            (Port::App(number), _) => format!("{}-{number}.{domain}", made.gitspace),
            (Port::Ide | Port::Ssh, _) => format!("{}.{domain}", made.gitspace),
        };
        let port = match self.https_port {
            None | Some(443) => String::new(),
            Some(port) => format!(":{port}"),
        };
        format!("https://{host}{port}/_gitspace/share?link={link}")
    }
}

/// 128 bits that nobody guesses: whoever knows only an identifier has no link, but it stands in logs.
fn new_id() -> Option<Arc<str>> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).ok()?;
    Some(format!("{:032x}", u128::from_ne_bytes(random)).into())
}

fn bad(detail: impl Into<String>) -> Response {
    problem(StatusCode::UNPROCESSABLE_ENTITY, "bad-share", detail)
}

fn refused(error: &ShareError) -> Response {
    let (status, reason) = match error {
        ShareError::Full => (StatusCode::INSUFFICIENT_STORAGE, "too-many-shares"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "not-kept"),
    };
    problem(status, reason, error.to_string())
}

fn stopping() -> Response {
    problem(
        StatusCode::SERVICE_UNAVAILABLE,
        "shutting-down",
        "the program is stopping",
    )
}
