//! `/api/routes`: the API of configurable-http-proxy (CHP), as JupyterHub speaks it.
//!
//! A route is a path of one host, `gateway.chp.host`, and leads to an app that tells itself who is asking. What else is posted with
//! it is given back as it came, with `last_activity` beside it. Statuses are CHP's: 201, 204, 404, and 403 without the token.
//!
//! Not here: what a path may be and where it may lead (`spec`), what is kept (`kept`), pages of errors (`gateway::chp`).

mod kept;
mod spec;

use std::{
    io,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Query, Request, State},
    http::{StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::{Api, problem, refused};
use crate::{
    api::Secret,
    gateway::{
        Gateway, Settings,
        route::{RouteError, Source, Table},
    },
};

use kept::{Kept, Known};
use spec::Spec;

const PATH: &str = "/api/routes";
/// What may be posted with a route, in bytes.
const BODY_MAX: usize = 16 * 1024;
/// So many routes are taken.
const MAX: usize = 20_000;

/// Why a change is not acknowledged.
enum Failed {
    Bad(String),
    Full,
    Unknown(String),
    Refused(RouteError),
    NotKept(io::Error),
}

/// CHP's routes at this gateway.
pub(super) struct Routes {
    token: Option<Secret>,
    kept: Arc<Mutex<Kept>>,
}

impl Routes {
    /// Those of before a restart are there again. None: the gateway has no `[gateway.chp]`.
    pub(super) fn load(gateway: &Gateway, settings: &Settings) -> io::Result<Option<Self>> {
        let Some(chp) = &gateway.chp else {
            return Ok(None);
        };
        let file = settings.state_dir.join("chp-routes.json");
        let mut kept = Kept::new(file, chp.host().into());
        kept.follow(&gateway.routes)?;
        Ok(Some(Self {
            token: settings.chp_token.clone(),
            kept: Arc::new(Mutex::new(kept)),
        }))
    }

    /// Takes in what another process wrote, if it did.
    pub(super) async fn follow(&self, gateway: &Gateway) -> io::Result<()> {
        let mut kept = Arc::clone(&self.kept).lock_owned().await;
        let table = Arc::clone(&gateway.routes);
        let followed = tokio::task::spawn_blocking(move || kept.follow(&table));
        followed.await.map_err(io::Error::other).flatten()
    }

    /// Changes them, behind what another process wrote, and has it on disk before it is acknowledged with `done`.
    async fn change(
        &self,
        gateway: &Gateway,
        done: StatusCode,
        change: impl FnOnce(&mut Kept, &Table) -> Result<(), Failed> + Send + 'static,
    ) -> Response {
        let mut kept = Arc::clone(&self.kept).lock_owned().await;
        let table = Arc::clone(&gateway.routes);
        let changed = tokio::task::spawn_blocking(move || {
            let turn = kept.turn(&table);
            change(&mut kept, &table)?;
            let saved = turn.and_then(|turn| kept.save(&turn));
            saved.map_err(Failed::NotKept)
        });
        let changed = changed.await.map_err(io::Error::other);
        match changed.map_err(Failed::NotKept).flatten() {
            Ok(()) => done.into_response(),
            Err(failed) => failed.into_response(),
        }
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        match self {
            Self::Bad(why) => bad(why),
            Self::Unknown(path) => unknown(&path),
            Self::Refused(error) => refused(&error),
            Self::Full => problem(
                StatusCode::INSUFFICIENT_STORAGE,
                "too-many-routes",
                format!("there are {MAX} routes, and no more are taken"),
            ),
            Self::NotKept(error) => problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "not-kept",
                format!("the change holds until a restart; it cannot be written: {error}"),
            ),
        }
    }
}

/// The routes of the API, each behind the token.
pub(super) fn router(api: &Api) -> Router<Api> {
    let all = || get(list).post(add).delete(remove);
    Router::new()
        .route(PATH, all())
        .route("/api/routes/", all())
        .route("/api/routes/{*spec}", get(show).post(add).delete(remove))
        .layer(middleware::from_fn_with_state(api.clone(), guard))
        .layer(DefaultBodyLimit::max(BODY_MAX))
}

/// CHP's token, or the admin API's: by `Authorization: token`, as CHP's clients send it, or `Bearer`.
async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.to_str().ok()?.split_once(' '));
    let token = given
        .filter(|(scheme, _)| ["token", "bearer"].contains(&&*scheme.to_ascii_lowercase()))
        .map(|(_, token)| token.trim());
    let chp = api.chp.as_ref().and_then(|chp| chp.token.as_ref());
    let tokens = [Some(&api.token), chp];
    let good = |token: &str| tokens.iter().flatten().any(|known| known.is(token));
    if !token.is_some_and(good) {
        return problem(
            StatusCode::FORBIDDEN,
            "no-token",
            "send `Authorization: token` with the token in `gateway.chp.token_file`",
        );
    }
    if api.chp.is_none() {
        return problem(
            StatusCode::NOT_FOUND,
            "not-configured",
            "this gateway takes no routes of configurable-http-proxy; set `gateway.chp.host`",
        );
    }
    next.run(request).await
}

/// Which routes are listed.
#[derive(Deserialize)]
struct Which {
    #[serde(rename = "inactiveSince", alias = "inactive_since")]
    inactive_since: Option<String>,
}

async fn list(State(api): State<Api>, Query(which): Query<Which>) -> Response {
    let Some(chp) = &api.chp else {
        return unknown("");
    };
    let since = match which.inactive_since.as_deref().map(time) {
        None => None,
        Some(Some(time)) => Some(time),
        Some(None) => {
            return bad("`inactiveSince` is no time such as 2030-01-31T12:00:00Z (ISO 8601)");
        }
    };
    let kept = chp.kept.lock().await;
    let all = kept.all().map(|(path, known)| {
        let active = last_activity(&api.gateway, path, known);
        (path, known, active)
    });
    let listed = all.filter(|(_, _, active)| since.is_none_or(|since| *active < since));
    let listed: Map<String, Value> = listed
        .map(|(path, known, active)| (path.to_owned(), shown(known, active)))
        .collect();
    Json(listed).into_response()
}

async fn show(State(api): State<Api>, uri: Uri) -> Response {
    let (Some(chp), Ok(spec)) = (&api.chp, Spec::read(rest(&uri))) else {
        return unknown(rest(&uri));
    };
    let kept = chp.kept.lock().await;
    match kept.get(spec.path()) {
        Some(known) => {
            let active = last_activity(&api.gateway, spec.path(), known);
            Json(shown(known, active)).into_response()
        }
        None => unknown(spec.path()),
    }
}

/// The body is read as JSON whatever its media type is said to be: JupyterHub says nothing.
async fn add(State(api): State<Api>, uri: Uri, body: Bytes) -> Response {
    let Some(chp) = &api.chp else {
        return unknown("");
    };
    let mut data = match serde_json::from_slice::<Value>(&body) {
        Ok(Value::Object(data)) => data,
        Ok(_) => return bad("the body is no JSON object"),
        Err(error) => return bad(format!("the body is no JSON: {error}")),
    };
    data.remove("last_activity");
    let spec = match Spec::read(rest(&uri)) {
        Ok(spec) => spec,
        Err(problem) => return bad(problem),
    };
    let add = move |kept: &mut Kept, table: &Table| put(kept, table, &spec, data);
    chp.change(&api.gateway, StatusCode::CREATED, add).await
}

fn put(
    kept: &mut Kept,
    table: &Table,
    spec: &Spec,
    data: Map<String, Value>,
) -> Result<(), Failed> {
    let route = kept.route(spec, &data).map_err(Failed::Bad)?;
    if kept.get(spec.path()).is_none() && kept.all().len() >= MAX {
        return Err(Failed::Full);
    }
    if let Err(error) = table.apply(Source::Chp, &route) {
        tracing::warn!(path = spec.path(), %error, "a route of CHP is refused");
        return Err(Failed::Refused(error));
    }
    kept.put(spec.path(), data);
    Ok(())
}

async fn remove(State(api): State<Api>, uri: Uri) -> Response {
    let (Some(chp), Ok(spec)) = (&api.chp, Spec::read(rest(&uri))) else {
        return unknown(rest(&uri));
    };
    let remove = move |kept: &mut Kept, table: &Table| {
        if kept.take(spec.path()).is_none() {
            return Err(Failed::Unknown(spec.path().to_owned()));
        }
        // A kept route that could not be used is in no table.
        let removed = table.remove(Source::Chp, spec.gitspace());
        removed.map(|_| ()).map_err(Failed::Refused)
    };
    chp.change(&api.gateway, StatusCode::NO_CONTENT, remove)
        .await
}

/// What is left of the path, still encoded.
fn rest(uri: &Uri) -> &str {
    uri.path().strip_prefix(PATH).unwrap_or_default()
}

fn shown(known: &Known, active: Timestamp) -> Value {
    let mut data = known.data.clone();
    data.insert("last_activity".into(), format!("{active:.3}").into());
    Value::Object(data)
}

/// When a person did something there last; if nobody did, since when it is known here.
fn last_activity(gateway: &Gateway, path: &str, known: &Known) -> Timestamp {
    let entry = Spec::new(path)
        .ok()
        .and_then(|spec| gateway.routes.get(spec.gitspace()));
    let acted = entry.and_then(|entry| entry.activity.acted());
    let acted = acted.and_then(|at| UNIX_EPOCH.checked_add(Duration::from_secs(at)));
    let latest = acted.map_or(known.since, |acted| acted.max(known.since));
    Timestamp::try_from(latest).unwrap_or_default()
}

/// A time of ISO 8601; UTC where it does not say. A `+` that was sent as it is comes as a space.
fn time(text: &str) -> Option<Timestamp> {
    let text = text.trim().replace(' ', "+");
    let local = || {
        let time = text.parse::<DateTime>().ok()?;
        TimeZone::UTC.to_timestamp(time).ok()
    };
    text.parse::<Timestamp>().ok().or_else(local)
}

fn bad(detail: impl Into<String>) -> Response {
    problem(StatusCode::BAD_REQUEST, "bad-request", detail)
}

fn unknown(path: &str) -> Response {
    let detail = format!("there is no route {path}");
    problem(StatusCode::NOT_FOUND, "no-such-route", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_clients_write_them() {
        let second = |text| time(text).map(|time| time.as_second());
        for text in [
            "2023-11-14T22:13:20Z",
            "2023-11-14T22:13:20.000Z",
            "2023-11-14T22:13:20+00:00",
            "2023-11-14T22:13:20 00:00",
            "2023-11-14T23:13:20+01:00",
            "2023-11-14T22:13:20",
        ] {
            assert_eq!(second(text), Some(1_700_000_000), "{text}");
        }
        assert_eq!(second("2023-11-14"), Some(1_699_920_000));
        for bad in ["", "yesterday", "1700000000"] {
            assert_eq!(second(bad), None, "{bad}");
        }
    }
}
