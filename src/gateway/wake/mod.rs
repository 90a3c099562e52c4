//! Waking: a gitspace that does not run, opened by somebody who may use it.
//!
//! Behind authorize: whoever gets here may know the state. A browser that goes there because its user wants to gets a page that starts
//! it, where the route comes from a control plane and says that this principal wakes it; what comes by itself (fetches, WebSockets,
//! previews, pages that are loaded again) starts nothing. The page shows how the start goes and then opens what was wanted.
//!
//! Not here: what a start is (the control plane), the answers to programs (`rejection`).

mod buttons;
mod call;
mod events;
mod page;
mod progress;
mod watch;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderValue, Method, Response, header, request::Parts};
use tokio::sync::watch::Receiver;

use super::{
    Gateway, Rejection,
    auth::Principal,
    authorize::{Candidate, known, wakes},
    forward::Body,
    http::{Head, is_ahead},
    identity::Identity,
    limit::Asker,
    own::{Asked, target},
    page::Page,
    rejection::Form,
    route::{Endpoint, Entry, Source},
};
use crate::api::{access::Port, gitspace::State, route::RouteState};

pub(crate) use {call::Link, watch::Wakes};

use {buttons::Buttons, call::CallError, events::Watching, progress::Progress};

/// A page waits so long for the first word of how a start goes.
const FIRST_WORD: Duration = Duration::from_secs(1);

/// A gitspace that was opened and does not run.
#[derive(Clone, Copy)]
pub(crate) struct Opened<'a> {
    pub(crate) request: &'a Parts,
    pub(crate) head: &'a Head,
    pub(crate) principal: Option<&'a Arc<Principal>>,
    pub(crate) entry: &'a Entry,
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) now: SystemTime,
}

/// Whether a request is a navigation that its user wants: of the whole window, by a click, a typed address or a bookmark. One that a
/// page makes by itself has no activation behind it (Fetch Metadata): a tab left open that loads itself again, or a page of a stranger
/// that leads here. A preview is none either.
fn is_wanted(request: &Parts) -> bool {
    let headers = &request.headers;
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|found| found == value);
    let by_user = is("sec-fetch-user", "?1")
        || headers
            .get("sec-fetch-site")
            .is_none_or(|site| site == "none");
    request.method == Method::GET
        && is("sec-fetch-mode", "navigate")
        && is("sec-fetch-dest", "document")
        && by_user
        && !is_ahead(headers)
}

impl Gateway {
    /// What is answered where a gitspace does not run, and the page for people.
    pub(crate) async fn not_running(&self, opened: Opened<'_>) -> (Rejection, Option<Page>) {
        let Opened {
            request,
            head,
            entry,
            endpoint,
            now,
            ..
        } = opened;
        if let Err(stale) = self.feed.fresh(entry.source) {
            return (stale, None);
        }
        let told = match entry.state {
            RouteState::Starting => Rejection::Starting,
            _ => Rejection::Stopped,
        };
        if head.form != Form::Page || request.method != Method::GET {
            return (told, None);
        }
        let can = self.can_wake(entry);
        let waker = opened
            .principal
            .filter(|principal| can && self.may_wake(principal, entry, endpoint, now));
        let Some(principal) = waker else {
            return (told, Some(page::others(entry, can)));
        };
        let asker = Asker::Principal(&principal.name);
        if let Err(limited) = self.limits.admit(asker, &entry.gitspace, None, false) {
            return (limited, None);
        }
        let buttons = Buttons::to(target(&request.uri));
        match entry.state {
            RouteState::Stopped if is_wanted(request) => {
                self.woken(principal, entry, &buttons, now).await
            }
            RouteState::Starting | RouteState::Error => {
                self.looked_at(principal, entry, &buttons, now).await
            }
            _ => (told, Some(page::stopped(entry, &buttons, None))),
        }
    }

    /// Starts it.
    async fn woken(
        &self,
        principal: &Principal,
        entry: &Entry,
        buttons: &Buttons,
        now: SystemTime,
    ) -> (Rejection, Option<Page>) {
        match self.wake(principal, entry).await {
            Ok(told) => shown(entry, &first_word(told).await, buttons, now),
            Err(error) => {
                let why = error.sentence("could not be started");
                (
                    Rejection::Stopped,
                    Some(page::stopped(entry, buttons, Some(&why))),
                )
            }
        }
    }

    /// It starts, or failed to: how that goes.
    async fn looked_at(
        &self,
        principal: &Principal,
        entry: &Entry,
        buttons: &Buttons,
        now: SystemTime,
    ) -> (Rejection, Option<Page>) {
        let progress = match self.wakes.look(&entry.gitspace, &principal.name) {
            Ok(told) => first_word(told).await,
            Err(_) => Progress::default(),
        };
        shown(entry, &progress, buttons, now)
    }

    /// Asks the control plane, away from the data path's threads.
    async fn wake(
        &self,
        principal: &Principal,
        entry: &Entry,
    ) -> Result<Receiver<Progress>, CallError> {
        let woken = self.wakes.wake(&entry.gitspace, &principal.name).await;
        match &woken {
            Ok(_) => {
                tracing::info!(gitspace = %entry.gitspace, principal = %principal.name, "a gitspace is started for who opened it");
            }
            Err(error) => {
                tracing::warn!(gitspace = %entry.gitspace, %error, "a gitspace that was opened is not started");
            }
        }
        woken
    }

    /// Whether it can be started from here at all.
    fn can_wake(&self, entry: &Entry) -> bool {
        self.wakes.can() && entry.source == Source::Feed
    }

    /// Whether somebody who opens it starts it.
    pub(crate) fn may_wake(
        &self,
        principal: &Principal,
        entry: &Entry,
        endpoint: &Endpoint,
        now: SystemTime,
    ) -> bool {
        let (gitspace, port) = (&entry.gitspace, endpoint.port);
        wakes(principal, entry, endpoint, &self.grants(now))
            && !self.auth.revoked_for(principal, gitspace, port, now)
    }

    /// Who asks below `/_gitspace/wake`, if it is somebody who wakes what this host leads to.
    fn waker<'f>(
        &self,
        asked: &Asked<'_>,
        identity: &Identity,
        found: Option<&'f (Arc<Entry>, Port)>,
    ) -> Result<(Arc<Principal>, &'f Arc<Entry>, &'f Endpoint), Rejection> {
        let principal = identity.known()?;
        // As everywhere: who may not use it does not learn that it exists.
        let entry = found.map(|(entry, _)| &**entry);
        let candidate = Candidate::of(entry, asked.head);
        known(principal, candidate, entry, &self.grants(asked.now))
            .ok_or(Rejection::NoSuchGitspace)?;
        let (entry, port) = found.ok_or(Rejection::NoSuchGitspace)?;
        let endpoint = entry.endpoint(*port).ok_or(Rejection::PortClosed)?;
        if !self.can_wake(entry) || !self.may_wake(principal, entry, endpoint, asked.now) {
            return Err(Rejection::NotAllowed);
        }
        self.feed.fresh(entry.source)?;
        Ok((Arc::clone(principal), entry, endpoint))
    }

    /// How a start goes, for a page of this host that shows it.
    pub(crate) fn wake_events(
        self: &Arc<Self>,
        asked: &Asked<'_>,
        identity: &Identity,
        found: Option<&(Arc<Entry>, Port)>,
    ) -> Result<Response<Body>, Rejection> {
        // Nobody else can read it, and need not be able to hold it open.
        let site = asked.parts.headers.get("sec-fetch-site");
        if site.is_some_and(|site| site != "same-origin") {
            return Err(Rejection::OriginRefused);
        }
        let (principal, entry, endpoint) = self.waker(asked, identity, found)?;
        let asker = Asker::Principal(&principal.name);
        let permit = self.limits.admit(asker, &entry.gitspace, None, true)?;
        let runs = entry.state == RouteState::Running;
        let told = match runs {
            true => None,
            false => self.wakes.look(&entry.gitspace, &principal.name).ok(),
        };
        let watching = Watching {
            gateway: Arc::clone(self),
            gitspace: entry.gitspace.clone(),
            port: endpoint.port,
            principal,
            told,
            _permit: permit,
        };
        let mut response = Response::new(Body::stream(events::events(watching)));
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        Ok(response)
    }
}

/// The page that fits how a start goes. The control plane knows it before the route says it.
fn shown(
    entry: &Entry,
    progress: &Progress,
    buttons: &Buttons,
    now: SystemTime,
) -> (Rejection, Option<Page>) {
    let state = progress.state;
    let failed = match state {
        None => entry.state == RouteState::Error,
        Some(state) => state == State::Error,
    };
    if failed {
        let page = page::failed(entry, progress, buttons, now);
        return (Rejection::Stopped, Some(page));
    }
    match state {
        None | Some(State::Starting | State::Running) => (
            Rejection::Starting,
            Some(page::starting(entry, progress, buttons, now)),
        ),
        Some(_) => (
            Rejection::Stopped,
            Some(page::stopped(entry, buttons, None)),
        ),
    }
}

/// How it goes, as soon as that is known; nothing, where it takes too long.
async fn first_word(mut told: Receiver<Progress>) -> Progress {
    let known = told.wait_for(|progress| progress.state.is_some());
    match tokio::time::timeout(FIRST_WORD, known).await {
        Ok(Ok(progress)) => progress.clone(),
        _ => Progress::default(),
    }
}

#[cfg(test)]
pub(super) use page::tests::pages;

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const CLICK: [(&str, &str); 4] = [
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-user", "?1"),
    ];

    fn wanted(method: &str, fields: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().method(method);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        is_wanted(&request.body(()).unwrap().into_parts().0)
    }

    /// A click with one field set to something else; "" takes it out.
    fn but(name: &str, value: &str) -> bool {
        let mut fields: Vec<_> = CLICK
            .into_iter()
            .filter(|(known, _)| *known != name)
            .collect();
        if !value.is_empty() {
            fields.push((name, value));
        }
        wanted("GET", &fields)
    }

    #[test]
    fn what_a_user_does_wakes() {
        assert!(wanted("GET", &CLICK));
        // A typed address, a bookmark.
        let typed = [CLICK[0], CLICK[1], ("sec-fetch-site", "none")];
        assert!(wanted("GET", &typed));
    }

    #[test]
    fn what_comes_by_itself_does_not() {
        assert!(!wanted("HEAD", &CLICK) && !wanted("POST", &CLICK) && !wanted("GET", &[]));
        // A page of a stranger, or one of its own that loads itself again.
        assert!(!but("sec-fetch-user", ""));
        let again = [CLICK[0], CLICK[1], ("sec-fetch-site", "same-origin")];
        assert!(!wanted("GET", &again));
        for mode in ["cors", "no-cors", "same-origin", "websocket", ""] {
            assert!(!but("sec-fetch-mode", mode), "{mode}");
        }
        for place in ["iframe", "frame", "object", "embed", "empty", ""] {
            assert!(!but("sec-fetch-dest", place), "{place}");
        }
        assert!(!but("sec-purpose", "prefetch;prerender"));
    }
}
