//! The buttons of a page: a start, and the end of one that is under way. They work without a script, and from their own page only.
//!
//! Whoever may start it may cancel its start. Not here: the pages (`page`), what a cancelled start leaves (the control plane).

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Response, StatusCode, header};

use super::page;
use crate::{
    api::{access::Port, route::RouteState},
    gateway::{
        Gateway, Rejection,
        auth::Principal,
        forward::Body,
        identity::Identity,
        limit::Asker,
        own::{Asked, encode, from_here, redirect},
        route::Entry,
        visit::way_on,
    },
};

/// The button waits so long for the route to say that it starts.
const STARTS_WITHIN: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);

/// Where they send to.
pub(super) struct Buttons {
    pub(super) start: String,
    pub(super) cancel: String,
}

impl Buttons {
    /// Those of a page that stands at `target`.
    pub(super) fn to(target: &str) -> Self {
        let to = encode(target);
        Self {
            start: format!("/_gitspace/wake?to={to}"),
            cancel: format!("/_gitspace/wake/cancel?to={to}"),
        }
    }
}

/// Who pressed a button, of what, and the page that was wanted before.
struct Pressed<'a> {
    principal: Arc<Principal>,
    entry: &'a Entry,
    location: String,
}

impl Gateway {
    fn pressed<'f>(
        &self,
        asked: &Asked<'_>,
        identity: &Identity,
        found: Option<&'f (Arc<Entry>, Port)>,
    ) -> Result<Pressed<'f>, Rejection> {
        from_here(asked)?;
        let (principal, entry, _) = self.waker(asked, identity, found)?;
        let location = way_on(&asked.parts.uri, "/")?;
        let asker = Asker::Principal(&principal.name);
        self.limits.admit(asker, &entry.gitspace, None, false)?;
        Ok(Pressed {
            principal,
            entry,
            location,
        })
    }

    /// The button of a page: it is started, and the browser goes on to what it wanted.
    pub(crate) async fn wake_by_button(
        &self,
        asked: &Asked<'_>,
        identity: &Identity,
        found: Option<&(Arc<Entry>, Port)>,
    ) -> Result<Response<Body>, Rejection> {
        let pressed = self.pressed(asked, identity, found)?;
        // The page that follows says what hinders it.
        if self.wake(&pressed.principal, pressed.entry).await.is_ok() {
            self.until_it_starts(pressed.entry).await;
        }
        redirect(StatusCode::SEE_OTHER, &pressed.location)
    }

    async fn until_it_starts(&self, entry: &Entry) {
        let starts = async {
            while let Some(entry) = self.routes.get(&entry.gitspace)
                && matches!(entry.state, RouteState::Stopped | RouteState::Error)
            {
                tokio::time::sleep(LOOK).await;
            }
        };
        // The feed may be slow; the page asks again by itself.
        let _ = tokio::time::timeout(STARTS_WITHIN, starts).await;
    }

    /// The other button: its start is cancelled. What follows is no page that was wanted before: to go there would start it again.
    pub(crate) async fn cancel_by_button(
        &self,
        asked: &Asked<'_>,
        identity: &Identity,
        found: Option<&(Arc<Entry>, Port)>,
    ) -> Result<Response<Body>, Rejection> {
        let Pressed {
            principal,
            entry,
            location,
        } = self.pressed(asked, identity, found)?;
        let cancelled = self.wakes.cancel(&entry.gitspace, &principal.name).await;
        let mut response = match cancelled {
            Ok(()) => {
                tracing::info!(gitspace = %entry.gitspace, principal = %principal.name, "a start is cancelled by who opened it");
                page::cancelled(entry, &Buttons::to(&location)).answer(StatusCode::OK)
            }
            Err(error) => {
                tracing::warn!(gitspace = %entry.gitspace, %error, "a start is not cancelled");
                let why = error.sentence("could not be cancelled");
                page::not_cancelled(entry, &location, &why).answer(error.status())
            }
        };
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }
}
