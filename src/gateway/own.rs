//! What the gateway answers itself: `/_gitspace/…` on every host, the exchange of a ticket, redirects to https and to a login.

#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod signed_in;

use std::{borrow::Cow, fmt::Write, sync::Arc, time::SystemTime};

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header, request::Parts};

use super::{
    Gateway, Rejection,
    auth::{Authenticator, Link, Principal, Ticket, TokenError},
    authorize::{Candidate, known, sole_origin},
    forward::Body,
    http::{Destination, Head},
    identity::Identity,
    limit::Network,
    named,
    route::Entry,
    status,
};
use crate::api::{
    GitspaceId,
    access::Port,
    revocation::{Revocation, RevocationKind},
};

const PREFIX: &str = "/_gitspace/";
const LOGIN: &str = "/_gitspace/login";

/// What the exchange of a ticket needs beside the keys: it runs away from the data path's threads.
pub(crate) struct Exchanges {
    pub(crate) link: Option<Link>,
    pub(crate) background: tokio::runtime::Handle,
}

/// A request below `/_gitspace/`.
pub(crate) struct Asked<'a> {
    /// What follows that.
    pub(crate) path: &'a str,
    pub(crate) parts: &'a Parts,
    pub(crate) head: &'a Head,
    /// Whether its browser came over https.
    pub(crate) secure: bool,
    pub(crate) network: Network,
    pub(crate) now: SystemTime,
}

/// Whether a request is the way back from a login.
pub(crate) fn comes_back(parts: &Parts) -> bool {
    path(parts.uri.path()) == Some("login")
        && parts.method == Method::GET
        && Authenticator::comes_back(&parts.uri)
}

/// The rest of a path that is the gateway's.
pub(crate) fn path(path: &str) -> Option<&str> {
    path.strip_prefix(PREFIX)
}

/// The answer to a request whose sender wanted it to end here: OPTIONS with `Max-Forwards: 0` (RFC 9110 §7.6.2).
pub(crate) fn last_hop(parts: &Parts) -> Option<Response<Body>> {
    let spent = |value: &HeaderValue| {
        let digits = value.as_bytes();
        !digits.is_empty() && digits.iter().all(|digit| *digit == b'0')
    };
    if parts.method != Method::OPTIONS
        || !parts.headers.get(header::MAX_FORWARDS).is_some_and(spent)
    {
        return None;
    }
    let mut response = status(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(
        header::ALLOW,
        HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(response)
}

/// The path and query of a target, as they follow a host: nothing for `*`, which is the host as a whole.
pub(crate) fn target(uri: &Uri) -> &str {
    uri.path_and_query()
        .map(|target| target.as_str())
        .filter(|target| target.starts_with(['/', '?']))
        .unwrap_or_default()
}

/// The page that somebody wanted who is sent to the login. Who goes to the login of itself comes back to the first page, or to one
/// that closes its window.
fn wanted(uri: &Uri) -> Cow<'_, str> {
    match (path(uri.path()), target(uri)) {
        (Some(_), _) if asks_for_popup(uri) => signed_in::PATH.into(),
        (Some(_), _) => "/".into(),
        // Of an absolute target with an empty path (RFC 9110 §4.2.3).
        (None, query) if query.starts_with('?') => format!("/{query}").into(),
        (None, target) => target.into(),
    }
}

/// The same target over https.
fn over_https(head: &Head, port: u16, uri: &Uri) -> String {
    let (host, target) = (&head.host, target(uri));
    match port {
        443 => format!("https://{host}{target}"),
        port => format!("https://{host}:{port}{target}"),
    }
}

/// The login, told where to come back to.
fn at_login(login: &str, head: &Head, target: &str, state: &str) -> String {
    let return_to = encode(&url(head, target));
    let separator = if login.contains('?') { '&' } else { '?' };
    format!("{login}{separator}return_to={return_to}&state={state}")
}

/// The answer to a request for the path of an app that has to be asked for by its folder.
pub(crate) fn into_folder(location: &str) -> Result<Response<Body>, Rejection> {
    redirect(StatusCode::TEMPORARY_REDIRECT, location)
}

pub(crate) fn redirect(code: StatusCode, location: &str) -> Result<Response<Body>, Rejection> {
    let mut response = status(code);
    let location = HeaderValue::from_bytes(location.as_bytes())
        .map_err(|_| Rejection::BadRequest("the target cannot be a location"))?;
    response.headers_mut().insert(header::LOCATION, location);
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

impl Gateway {
    /// Whether the host is one of ours: a redirect leads nowhere else, whatever a client writes into Host.
    fn serves(&self, head: &Head) -> bool {
        matches!(head.destination, Destination::Gitspace(..))
            || self.domains.contains(&head.host)
            || self.routes.claims(&head.host)
    }

    /// Sends a plain request to https on the same host: with its method and body, and its target byte for byte.
    pub(crate) fn redirect_to_https(
        &self,
        head: &Head,
        port: u16,
        uri: &Uri,
    ) -> Result<Response<Body>, Rejection> {
        if !self.serves(head) {
            return Err(Rejection::Misdirected);
        }
        redirect(StatusCode::PERMANENT_REDIRECT, &over_https(head, port, uri))
    }

    /// What a ticket must name: the gitspace and port of the page that it leads to.
    fn addressed(&self, head: &Head, page: &str) -> Option<(GitspaceId, Port)> {
        if let Some((gitspace, port)) = named(head) {
            return Some((gitspace.clone(), port));
        }
        let path = page.split('?').next().unwrap_or_default();
        let (entry, port) = self.routes.find(&head.destination, &head.host, path)?;
        Some((entry.gitspace.clone(), port))
    }

    /// Exchanges a ticket for a session: once, and only where it was made for.
    pub(crate) async fn exchange(
        self: &Arc<Self>,
        ticket: Ticket,
        head: &Head,
        network: Network,
        now: SystemTime,
    ) -> Result<Response<Body>, Rejection> {
        let addressed = self.addressed(head, &ticket.location);
        if !addressed.is_some_and(|(gitspace, port)| is_for(&ticket.principal, &gitspace, port)) {
            self.limits.failed_login(network);
            return Err(Rejection::InvalidToken(
                "the ticket is for another gitspace or port".into(),
            ));
        }
        let mut response = redirect(StatusCode::SEE_OTHER, &ticket.location)?;
        response.headers_mut().insert(
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        );
        let (gateway, redeemed) = (Arc::clone(self), ticket.clone());
        let redeem = async move {
            gateway
                .auth
                .redeem(&redeemed, gateway.exchanges.link.as_ref(), now)
                .await
        };
        match self.exchanges.background.spawn(redeem).await {
            Ok(Ok(())) => {
                let cookie = self.auth.session(&ticket, &head.host, now);
                response.headers_mut().insert(header::SET_COOKIE, cookie);
                Ok(response)
            }
            // A reloaded page: its session is there already.
            Ok(Err(TokenError::TicketUsed)) if ticket.otherwise.is_some() => Ok(response),
            Ok(Err(error)) => {
                if !error.was_good() {
                    self.limits.failed_login(network);
                }
                Err(error.into())
            }
            Err(_) => Err(Rejection::ShuttingDown),
        }
    }

    /// A browser comes back from the login: its ticket is exchanged, and it goes on to the page that it wanted.
    pub(crate) async fn back_from_login(
        self: &Arc<Self>,
        parts: &Parts,
        head: &Head,
        network: Network,
        now: SystemTime,
    ) -> Result<Response<Body>, Rejection> {
        self.limits.may_log_in(network)?;
        let ticket = match self.auth.back_from_login(parts, &head.host, now) {
            Ok(ticket) => ticket,
            Err(error) => {
                if !error.was_good() {
                    self.limits.failed_login(network);
                }
                return Err(error.into());
            }
        };
        let mut response = self.exchange(ticket, head, network, now).await?;
        let headers = response.headers_mut();
        headers.append(header::SET_COOKIE, self.auth.end_login());
        Ok(response)
    }

    /// Whether a login may help: where there is one, on our hosts, and whether or not something is there.
    fn offers_login(&self, rejection: &Rejection, head: &Head) -> bool {
        !self.login_url.is_empty()
            && rejection.status() == StatusCode::UNAUTHORIZED
            && self.serves(head)
    }

    /// Where the person behind a refused request can log in.
    pub(crate) fn login_hint(&self, rejection: &Rejection, head: &Head) -> Option<Box<str>> {
        let offered = self.offers_login(rejection, head);
        offered.then(|| url(head, LOGIN).into_boxed_str())
    }

    /// A navigation of the whole window that needs a token goes to the login, where there is one.
    pub(crate) fn to_login(
        &self,
        rejection: Rejection,
        head: &Head,
        parts: &Parts,
        now: SystemTime,
    ) -> Result<Response<Body>, Rejection> {
        if !head.top || !self.offers_login(&rejection, head) {
            return Err(rejection);
        }
        let target = wanted(&parts.uri);
        let Some(begun) = self.auth.begin_login(&head.host, &target, now) else {
            return Err(rejection);
        };
        let location = at_login(&self.login_url, head, &target, &begun.state);
        let mut response = redirect(StatusCode::SEE_OTHER, &location)?;
        response
            .headers_mut()
            .insert(header::SET_COOKIE, begun.cookie);
        Ok(response)
    }

    /// Ends a session: in the browser, and for whoever copied it, at all gateways of a control plane.
    async fn log_out(
        self: &Arc<Self>,
        asked: &Asked<'_>,
        identity: &Identity,
    ) -> Result<Response<Body>, Rejection> {
        from_here(asked)?;
        let revocation = identity
            .principal()
            .and_then(|principal| of_session(principal));
        if let Some(revocation) = revocation {
            let revoked = self.revoke(revocation, asked.now);
            if let Err(error) = revoked.await {
                tracing::error!(%error, "a session that was logged out counts until its end");
            }
        }
        let mut response = status(StatusCode::NO_CONTENT);
        response
            .headers_mut()
            .insert(header::SET_COOKIE, self.auth.end_session());
        Ok(response)
    }

    /// Answers below `/_gitspace/`.
    pub(crate) async fn own(
        self: &Arc<Self>,
        asked: Asked<'_>,
        identity: &Identity,
        found: Option<&(Arc<Entry>, Port)>,
    ) -> Result<Response<Body>, Rejection> {
        let &Asked {
            path,
            parts,
            head,
            now,
            ..
        } = &asked;
        match (path, &parts.method) {
            ("jwks.json", &Method::GET | &Method::HEAD) => {
                Ok(json(self.auth.jwks(), "public, max-age=300"))
            }
            ("whoami", &Method::GET | &Method::HEAD) => {
                let principal = identity.known()?;
                let answer = serde_json::json!({
                    "principal": &*principal.name,
                    "organization": principal.org.as_deref(),
                    "groups": principal.groups.iter().map(|group| &**group).collect::<Vec<_>>(),
                });
                Ok(json(answer.to_string(), "no-store"))
            }
            ("status", &Method::GET | &Method::HEAD) => {
                let principal = identity.known()?;
                // As everywhere: who may not use it does not learn that it exists.
                let found = found.map(|(entry, _)| &**entry);
                let candidate = Candidate::of(found, head);
                let entry = known(principal, candidate, found, &self.grants(now))
                    .ok_or(Rejection::NoSuchGitspace)?;
                let answer =
                    serde_json::json!({ "gitspace": entry.gitspace, "state": entry.state });
                Ok(json(answer.to_string(), "no-store"))
            }
            ("logout", &Method::POST) => self.log_out(&asked, identity).await,
            ("visit", &Method::POST) => self.go_on(&asked),
            ("wake", &Method::GET) => self.wake_events(&asked, identity, found),
            ("wake", &Method::POST) => self.wake_by_button(&asked, identity, found).await,
            ("wake/cancel", &Method::POST) => self.cancel_by_button(&asked, identity, found).await,
            ("share", _) => self.share_link(&asked).await,
            ("login", &Method::GET | &Method::HEAD) => {
                self.to_login(Rejection::NoToken, head, parts, now)
            }
            ("signed-in", &Method::GET | &Method::HEAD) => {
                identity.known().map(|_| signed_in::page())
            }
            (
                "jwks.json" | "whoami" | "status" | "logout" | "login" | "visit" | "wake"
                | "wake/cancel" | "signed-in",
                _,
            ) => Err(Rejection::MethodNotAllowed),
            _ => Err(Rejection::NoSuchPage),
        }
    }
}

/// Refuses what a page of another origin sent. One that came in the clear is another where its browser came over https: whoever is
/// in between may have written it.
pub(crate) fn from_here(asked: &Asked<'_>) -> Result<(), Rejection> {
    let origin = sole_origin(&asked.parts.headers);
    let origin = origin.and_then(|origin| origin.to_str().ok());
    let origin = origin.filter(|origin| !asked.secure || origin.starts_with("https://"));
    match origin.and_then(super::http::origin_host) {
        Some(host) if *host == *asked.head.host => Ok(()),
        _ => Err(Rejection::OriginRefused),
    }
}

/// Lets the browser hold its session longer, where nobody else may keep the answer.
pub(crate) fn hold_longer(session: HeaderValue, headers: &mut HeaderMap) {
    let shared = |value: &HeaderValue| {
        let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        value.contains("public") || value.contains("s-maxage")
    };
    if !headers.get_all(header::CACHE_CONTROL).iter().any(shared) {
        headers.append(header::SET_COOKIE, session);
    }
}

/// What revokes a session: its ticket's identifier, which nothing else has.
fn of_session(principal: &Principal) -> Option<Revocation> {
    Some(Revocation {
        kind: RevocationKind::Jti,
        id: principal.jti.as_deref()?.into(),
        issued_before: principal.issued_at,
        until: Some(principal.session_end?),
        by: Some(principal.name.as_ref().into()),
        reason: Some("logout".into()),
    })
}

/// A path and query of the request's host, as its browser has to ask for it.
fn url(head: &Head, target: &str) -> String {
    let host = &head.host;
    match head.authority_port {
        Some(port) => format!("https://{host}:{port}{target}"),
        None => format!("https://{host}{target}"),
    }
}

/// Whether a login shall end in the window in which it was begun.
fn asks_for_popup(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    query.split('&').any(|parameter| parameter == "popup")
}

/// Whether a ticket's claims name this port of this gitspace.
fn is_for(principal: &Principal, gitspace: &GitspaceId, port: Port) -> bool {
    principal
        .gitspaces
        .as_ref()
        .is_some_and(|gitspaces| gitspaces.contains(gitspace))
        && principal
            .ports
            .as_ref()
            .is_some_and(|ports| ports.contains(&port))
}

fn json(body: String, cache: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// Percent-encoding of everything that is not unreserved (RFC 3986 §2.3).
pub(crate) fn encode(text: &str) -> String {
    text.bytes()
        .fold(String::with_capacity(text.len() + 16), |mut out, byte| {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                out.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
            out
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_raw_prefix_is_the_gateways() {
        assert_eq!(path("/_gitspace/whoami"), Some("whoami"));
        for other in [
            "/_gitspace",
            "/%5fgitspace/whoami",
            "//_gitspace/whoami",
            "/x/_gitspace/whoami",
        ] {
            assert_eq!(path(other), None, "{other}");
        }
    }

    #[test]
    fn the_page_that_was_wanted_is_a_path() {
        for (target, expected) in [
            ("/a//b?c=%2F", "/a//b?c=%2F"),
            ("https://a.test?b=c", "/?b=c"),
            ("https://a.test", "/"),
            ("/_gitspace/login?x", "/"),
        ] {
            assert_eq!(wanted(&target.parse().unwrap()), expected);
        }
    }

    #[test]
    fn locations_are_encoded() {
        assert_eq!(
            encode("https://a.test/?x=1&y= "),
            "https%3A%2F%2Fa.test%2F%3Fx%3D1%26y%3D%20"
        );
    }
}
