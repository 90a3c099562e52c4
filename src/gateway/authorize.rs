//! Authorize: who may use this port.
//!
//! Sixth step of the path, pure but for a look at the shares. It is no oracle: without a valid token, unknown and private look alike; a principal learns that
//! a gitspace exists only where it may use a port of it. What state the gitspace is in is said only to those who may know.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, header, request::Parts};

use crate::api::{
    GitspaceId,
    access::{Port, Visibility},
    route::RouteState,
};

use super::{
    auth::Principal,
    http::{Destination, Head},
    named,
    rejection::Rejection,
    route::{Endpoint, Entry},
    share::Grants,
};

/// Who is asking, and how we know.
#[derive(Debug)]
pub(crate) enum Who<'a> {
    /// Nobody we know; the rejection says why, should a token be needed.
    Anonymous(Rejection),
    /// A principal; `by_cookie`: its browser sent our cookie by itself.
    Principal {
        principal: &'a Principal,
        by_cookie: bool,
    },
}

/// The port that may be used.
#[derive(Debug)]
pub(crate) struct Allowed<'e> {
    pub(crate) entry: &'e Entry,
    pub(crate) endpoint: &'e Endpoint,
    /// By which share, where nothing else lets the principal in.
    pub(crate) share: Option<Arc<str>>,
}

/// The port that may be used, or why not.
pub(crate) fn authorize<'e>(
    who: Who<'_>,
    found: Option<&'e (Arc<Entry>, Port)>,
    request: &Parts,
    head: &Head,
    (secure, domains): (bool, &[Box<str>]),
    grants: &Grants<'_>,
) -> Result<Allowed<'e>, Rejection> {
    let Some((entry, port)) = found else {
        return Err(match who {
            Who::Anonymous(rejection) => rejection,
            Who::Principal { principal, .. } => {
                known(principal, head, None, grants);
                match principal.share {
                    Some(_) => Rejection::RevokedToken,
                    None => Rejection::NoSuchGitspace,
                }
            }
        });
    };
    let endpoint = entry.endpoint(*port);
    if let Some(endpoint) = endpoint.filter(|endpoint| endpoint.visibility == Visibility::Public) {
        check_origin(&who, request, head, (entry, endpoint), secure, domains)?;
        check_state(entry)?;
        return Ok(Allowed {
            entry,
            endpoint,
            share: None,
        });
    }
    let principal = match who {
        Who::Anonymous(rejection) => return Err(rejection),
        Who::Principal { principal, .. } => principal,
    };
    let Some((endpoint, share)) =
        endpoint.and_then(|endpoint| Some((endpoint, may(principal, entry, endpoint, grants)?)))
    else {
        return Err(refusal(principal, head, entry, endpoint, grants));
    };
    check_origin(&who, request, head, (entry, endpoint), secure, domains)?;
    check_state(entry)?;
    Ok(Allowed {
        entry,
        endpoint,
        share: share.id(),
    })
}

/// Why a principal may not use a port, as far as it may know.
fn refusal(
    principal: &Principal,
    head: &Head,
    entry: &Entry,
    endpoint: Option<&Endpoint>,
    grants: &Grants<'_>,
) -> Rejection {
    let known = known(principal, head, Some(entry), grants);
    match (&principal.share, known, endpoint) {
        // A visitor knew of one port, and of nothing else.
        (Some(_), ..) => Rejection::RevokedToken,
        (None, None, _) => Rejection::NoSuchGitspace,
        (None, Some(_), None) => Rejection::PortClosed,
        (None, Some(_), Some(_)) => Rejection::NotAllowed,
    }
}

/// What lets a principal in.
enum Right {
    /// Its own: it is the owner, or named by the route or its token, or of the organization.
    Own,
    /// A share.
    Share(Arc<str>),
}

impl Right {
    fn id(self) -> Option<Arc<str>> {
        match self {
            Self::Own => None,
            Self::Share(id) => Some(id),
        }
    }
}

/// Whether the token is restricted to other gitspaces.
fn within_claims(principal: &Principal, gitspace: &GitspaceId) -> bool {
    principal
        .gitspaces
        .as_ref()
        .is_none_or(|gitspaces| gitspaces.contains(gitspace))
}

/// What a principal is to a gitspace: found out once, not for each port, so that it costs the same for a gitspace with many.
struct Standing {
    /// The owner, or named by the route or by the token.
    named: bool,
    /// Of its organization.
    member: bool,
}

impl Standing {
    fn of(principal: &Principal, entry: &Entry) -> Self {
        Self {
            named: entry.owner.as_ref() == Some(&principal.name)
                || entry.allows(&principal.name)
                || (principal.grants && principal.gitspaces.is_some()),
            // A static route without an organization is open to every principal.
            member: entry.org.is_none() || entry.org == principal.org,
        }
    }

    fn opens(&self, visibility: Visibility) -> bool {
        match visibility {
            Visibility::Public => true,
            Visibility::Private => self.named,
            Visibility::Organization => self.named || self.member,
        }
    }
}

/// What lets a principal use a port of a gitspace, unless its claims exclude it.
fn may(
    principal: &Principal,
    entry: &Entry,
    endpoint: &Endpoint,
    grants: &Grants<'_>,
) -> Option<Right> {
    let ports = principal.ports.as_ref();
    let excluded = ports.is_some_and(|ports| !ports.contains(&endpoint.port));
    if excluded || !within_claims(principal, &entry.gitspace) {
        return None;
    }
    let standing = Standing::of(principal, entry);
    if principal.share.is_none() && standing.opens(endpoint.visibility) {
        return Some(Right::Own);
    }
    let share = grants.grant(principal, entry, endpoint.port)?;
    Some(Right::Share(share))
}

/// Siblings under one domain are same-site, so SameSite does not keep one gitspace's page from using another's cookie: unsafe
/// methods and WebSockets that come with our cookie need an Origin that belongs here.
fn check_origin(
    who: &Who<'_>,
    request: &Parts,
    head: &Head,
    (entry, endpoint): (&Entry, &Endpoint),
    secure: bool,
    domains: &[Box<str>],
) -> Result<(), Rejection> {
    let by_cookie = matches!(
        who,
        Who::Principal {
            by_cookie: true,
            ..
        }
    );
    let method = &request.method;
    let safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) && !head.upgrade;
    if !by_cookie || safe {
        return Ok(());
    }
    let origin = sole_origin(&request.headers);
    let belongs = |origin| belongs(origin, head, Some(entry), Some(endpoint), secure, domains);
    match origin.is_some_and(belongs) {
        true => Ok(()),
        false => Err(Rejection::OriginRefused),
    }
}

/// The origin that a request names. Of two it is not for us to choose one.
pub(crate) fn sole_origin(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let first = origins.next();
    first.filter(|_| origins.next().is_none())
}

/// Whether an origin is the host that is asked itself, another host of the same gitspace, or one that the port names. Our own are
/// served over https wherever their browser came that way: then a page that came in the clear, from whoever is in between, is none.
pub(crate) fn belongs(
    origin: &HeaderValue,
    head: &Head,
    entry: Option<&Entry>,
    endpoint: Option<&Endpoint>,
    secure: bool,
    domains: &[Box<str>],
) -> bool {
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    if endpoint.is_some_and(|endpoint| endpoint.names_origin(origin)) {
        return true;
    }
    let scheme = if secure { "https://" } else { "http" };
    let Some(host) = super::http::origin_host(origin).filter(|_| origin.starts_with(scheme)) else {
        return false;
    };
    if host == &*head.host {
        return true;
    }
    let gitspace = match (entry, &head.destination) {
        (Some(entry), _) => &entry.gitspace,
        (None, Destination::Gitspace(gitspace, _)) => gitspace,
        (None, Destination::Host) => return false,
    };
    matches!(super::http::destination(host, domains), Destination::Gitspace(other, _) if other == *gitspace)
}

fn check_state(entry: &Entry) -> Result<(), Rejection> {
    match entry.state {
        RouteState::Running => Ok(()),
        RouteState::Starting => Err(Rejection::Starting),
        RouteState::Stopping | RouteState::Stopped | RouteState::Error => Err(Rejection::Stopped),
    }
}

/// The gitspace, if the principal may use any port of it, and so may know of it. The look is as long where there is none: it grows with
/// the sender's own claims, and not with what a gitspace has.
pub(crate) fn known<'e>(
    principal: &Principal,
    head: &Head,
    found: Option<&'e Entry>,
    grants: &Grants<'_>,
) -> Option<&'e Entry> {
    let asked = named(head).map(|(gitspace, _)| gitspace);
    let gitspace = found.map(|entry| &entry.gitspace).or(asked);
    let within = gitspace.is_none_or(|gitspace| within_claims(principal, gitspace));
    let by_share = gitspace.is_some_and(|gitspace| grants.any(principal, gitspace, found));
    // They are asked in vain where there is no gitspace, and must be asked all the same.
    let (within, by_share) = std::hint::black_box((within, by_share));
    found.filter(|entry| within && (may_any(principal, entry) || by_share))
}

/// Whether it may use any port without a share.
fn may_any(principal: &Principal, entry: &Entry) -> bool {
    let standing = Standing::of(principal, entry);
    let any = match &principal.ports {
        None => {
            let mut visibilities = entry.visibilities.iter();
            visibilities.any(|visibility| standing.opens(*visibility))
        }
        Some(ports) => {
            let mut endpoints = ports.iter().filter_map(|port| entry.endpoint(*port));
            endpoints.any(|endpoint| standing.opens(endpoint.visibility))
        }
    };
    principal.share.is_none() && any
}
