//! First visits: a page that says whose program is about to be shown, and the links of shares.
//!
//! Between authorize and limit. Whoever goes to somebody else's port for the first time is told whose it is and has to go on by a
//! button, so that no page of a stranger can pass for one that the browser's user knows. A share's link is accepted by such a
//! button too: programs that only look at links use up none.
//!
//! Not here: whether a share counts (`share`), how long a visitor's session is (`auth`).

use std::{sync::Arc, time::SystemTime};

use http::{HeaderValue, Method, Response, StatusCode, Uri, header, request::Parts};

use super::{
    Gateway, Rejection,
    auth::{Invitation, VISITED_COOKIE, cookie, parameter, set_cookie},
    authorize::Allowed,
    forward::Body,
    http::{Destination, Head},
    identity::Identity,
    own::{Asked, encode, from_here, redirect, target},
    page::{Icon, Page},
    route::Entry,
    share::{Grants, Open, ShareError},
};
use crate::{api::access::Port, config::Timeout};

/// Whoever sends it has read what a page would say. No page of another origin can make a browser send it with a navigation.
const SKIP: &str = "x-gitspace-skip-warning";

/// What a request says of a first visit. Looked at before everything of ours is taken out of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visit {
    /// A browser goes there, as the page that its user sees, and was not told whose it is.
    is_first: bool,
}

impl Visit {
    pub(crate) fn of(request: &Parts, head: &Head) -> Self {
        let headers = &request.headers;
        Self {
            is_first: head.top
                && request.method == Method::GET
                && !headers.contains_key(SKIP)
                && cookie(headers, VISITED_COOKIE).is_none(),
        }
    }
}

impl Gateway {
    /// The page in front of somebody else's port.
    pub(crate) fn first_visit(
        &self,
        visit: Visit,
        identity: &Identity,
        allowed: &Allowed<'_>,
        (request, head): (&Parts, &Head),
    ) -> Option<Response<Body>> {
        let owner = allowed.entry.owner.as_deref()?;
        let principal = identity.principal();
        let mine = principal.is_some_and(|principal| *principal.name == *owner);
        // A token that a program put there itself is no browser's.
        let program = principal.is_some() && !identity.is_by_cookie();
        let left_to_app = allowed.entry.leaves_to_app(&head.destination);
        if !visit.is_first || self.first_visits == Timeout::Off || mine || program || left_to_app {
            return None;
        }
        let action = format!("/_gitspace/visit?to={}", encode(target(&request.uri)));
        Some(whose(owner, allowed.entry, allowed.endpoint.port, &action))
    }

    /// The button of that page: it is remembered, and the browser goes on.
    pub(crate) fn go_on(&self, asked: &Asked<'_>) -> Result<Response<Body>, Rejection> {
        from_here(asked)?;
        let location = way_on(&asked.parts.uri, "/")?;
        let mut response = redirect(StatusCode::SEE_OTHER, &location)?;
        response
            .headers_mut()
            .append(header::SET_COOKIE, self.visited());
        Ok(response)
    }

    /// A share's link: shown, and accepted.
    pub(crate) async fn share_link(&self, asked: &Asked<'_>) -> Result<Response<Body>, Rejection> {
        let &Asked {
            parts,
            head,
            network,
            now,
            ..
        } = asked;
        let accepts = match parts.method {
            Method::GET => false,
            Method::POST => true,
            _ => return Err(Rejection::MethodNotAllowed),
        };
        if accepts {
            from_here(asked)?;
        }
        self.limits.may_log_in(network)?;
        let link = parameter(parts.uri.query().unwrap_or_default(), "link").unwrap_or_default();
        let invitation = self.auth.open_link(&link).map_err(|error| {
            self.limits.failed_login(network);
            Rejection::from(error)
        })?;
        let entry = self
            .invited_to(&invitation, head)
            .ok_or_else(|| Rejection::InvalidToken("the link is for another host".into()))?;
        let open = self.grants(now).open(&invitation, &entry)?;
        if accepts {
            let location = way_on(&parts.uri, &first_page(&entry, head))?;
            return self.accept(&invitation, open, &location, head, now).await;
        }
        let action = parts
            .uri
            .path_and_query()
            .map_or("", |target| target.as_str());
        let owner = entry.owner.as_deref().unwrap_or_default();
        Ok(whose(owner, &entry, invitation.port, action))
    }

    /// What a link is for, if it is at this host.
    fn invited_to(&self, invitation: &Invitation, head: &Head) -> Option<Arc<Entry>> {
        let meant = Destination::Gitspace(invitation.gitspace.clone(), invitation.port);
        let (entry, port) = self.routes.find(&meant, "", "")?;
        let is_here = match &head.destination {
            Destination::Gitspace(..) => head.destination == meant,
            Destination::Host => {
                let place = entry.place.as_ref();
                port == Port::Ide && place.is_some_and(|place| *place.host == *head.host)
            }
        };
        is_here.then_some(entry)
    }

    async fn accept(
        &self,
        invitation: &Invitation,
        open: Open,
        location: &str,
        head: &Head,
        now: SystemTime,
    ) -> Result<Response<Body>, Rejection> {
        let mut response = redirect(StatusCode::SEE_OTHER, location)?;
        if open.made_here {
            let (shares, used) = (self.shares.clone(), invitation.clone());
            let count = move || shares.use_once(&used);
            let counted = self.exchanges.background.spawn_blocking(count).await;
            counted.map_err(|_| Rejection::ShuttingDown)??;
        }
        let session = self.auth.visit(invitation, open.until, &head.host, now);
        let session = session.ok_or(Rejection::Overloaded)?;
        let headers = response.headers_mut();
        headers.append(header::SET_COOKIE, session);
        headers.append(header::SET_COOKIE, self.visited());
        Ok(response)
    }

    /// What shares grant now.
    pub(crate) fn grants(&self, now: SystemTime) -> Grants<'_> {
        Grants::new(&self.shares, &self.auth, now)
    }

    fn visited(&self) -> HeaderValue {
        let seconds = match self.first_visits {
            Timeout::After(time) => i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            Timeout::Off => 0,
        };
        set_cookie(VISITED_COOKIE, "1", seconds)
    }
}

impl From<ShareError> for Rejection {
    fn from(error: ShareError) -> Self {
        match error {
            ShareError::UsedUp => Self::TicketUsed,
            ShareError::Gone => Self::RevokedToken,
            error => {
                tracing::error!(%error, "a share cannot be used");
                Self::Overloaded
            }
        }
    }
}

/// The first page of what a route leads to at this host.
fn first_page(entry: &Entry, head: &Head) -> String {
    let place = entry.place.as_ref();
    let path = place.and_then(|place| place.path.as_ref());
    match (&head.destination, path) {
        (Destination::Host, Some(path)) => format!("{path}/"),
        _ => "/".to_owned(),
    }
}

/// Where a browser goes on to: a path of the same host, whatever the query says; `first` if it says nothing.
pub(crate) fn way_on(uri: &Uri, first: &str) -> Result<String, Rejection> {
    let to = parameter(uri.query().unwrap_or_default(), "to").unwrap_or_default();
    let to = match to.first() {
        Some(_) => to,
        None => first.into(),
    };
    let location = Uri::try_from(to)
        .ok()
        .filter(|to| to.authority().is_none())
        .map(|to| super::auth::location(&to));
    location
        .filter(|location| location.is_ascii())
        .ok_or(Rejection::BadRequest(
            "`to` must be a path with or without a query",
        ))
}

/// The page that says whose a port is.
fn whose(owner: &str, entry: &Entry, port: Port, action: &str) -> Response<Body> {
    let what = match port {
        Port::Ide => "This is a development environment".to_owned(),
        Port::App(number) => {
            format!("This is a program on port {number} of a development environment")
        }
        Port::Ssh => "This is a terminal of a development environment".to_owned(),
    };
    let owner = match owner {
        "" => String::new(),
        owner => format!(" of {owner}"),
    };
    let mut response = Page::new("You are about to open somebody else's page")
        .marked(
            Icon::Gitspace,
            &format!("{what}{owner}."),
            &format!(
                "Its name is {}. Whoever runs this gateway has neither made nor checked it.",
                entry.gitspace
            ),
        )
        .text("Go on only if you trust its owner. Never type the password of another service into it.")
        .form(action, &[], "Go on")
        .answer(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
