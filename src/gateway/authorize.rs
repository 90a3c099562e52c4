//! Authorize: who may use this port.
//!
//! Sixth step of the path, pure but for a look at the shares. It is no oracle: without a valid token, unknown and private look alike; a principal learns that
//! a gitspace exists only where it may use a port of it. What state it is in comes after this step (`wake`).

use std::{hint::black_box, sync::Arc, time::SystemTime};

use http::{HeaderMap, HeaderValue, Method, header, request::Parts};

use crate::api::{GitspaceId, access::Visibility, wake::Wakers};

use super::{
    Gateway,
    auth::Principal,
    http::{Destination, Head},
    identity::Identity,
    named,
    rejection::Rejection,
    route::{Endpoint, Entry},
    share::Grants,
};

/// What a request asks.
pub(crate) struct Asked<'a> {
    pub(crate) request: &'a Parts,
    pub(crate) head: &'a Head,
    /// Whether its browser came over https.
    pub(crate) secure: bool,
}

/// The gitspace that a host leads to, and the port of it, if it has that one.
pub(crate) type Found<'e> = (&'e Entry, Option<&'e Endpoint>);

/// The port that may be used.
#[derive(Debug)]
pub(crate) struct Allowed<'e> {
    pub(crate) entry: &'e Entry,
    pub(crate) endpoint: &'e Endpoint,
    /// By which share, where nothing else lets the principal in.
    pub(crate) share: Option<Arc<str>>,
}

impl Gateway {
    /// The port that may be used, or why not.
    pub(crate) fn authorize<'e>(
        &self,
        identity: &Identity,
        found: Option<Found<'e>>,
        asked: &Asked<'_>,
        now: SystemTime,
    ) -> Result<Allowed<'e>, Rejection> {
        let there = found.map(|(entry, _)| entry);
        let endpoint = found.and_then(|(_, endpoint)| endpoint);
        if let (Some(entry), Some(endpoint)) = (there, endpoint)
            && endpoint.visibility == Visibility::Public
        {
            self.check_origin(identity, asked, entry, endpoint)?;
            return Ok(Allowed {
                entry,
                endpoint,
                share: None,
            });
        }
        let principal = identity.known()?;
        let grants = self.grants(now);
        let candidate = Candidate::of(there, asked.head);
        let port = endpoint.unwrap_or(Endpoint::absent());
        let right = black_box(may(principal, candidate, port, &grants));
        let (Some(entry), Some(endpoint), Some(right)) = (there, endpoint, right) else {
            return Err(refusal(principal, candidate, there, endpoint, &grants));
        };
        self.check_origin(identity, asked, entry, endpoint)?;
        let (gitspace, port) = (&entry.gitspace, endpoint.port);
        if self.auth.revoked_for(principal, gitspace, port, now) {
            return Err(Rejection::RevokedToken);
        }
        Ok(Allowed {
            entry,
            endpoint,
            share: right.share(),
        })
    }

    /// Siblings under one domain are same-site, so SameSite does not keep one gitspace's page from using another's cookie: unsafe
    /// methods and WebSockets that come with our cookie need an Origin that belongs here.
    fn check_origin(
        &self,
        identity: &Identity,
        asked: &Asked<'_>,
        entry: &Entry,
        endpoint: &Endpoint,
    ) -> Result<(), Rejection> {
        let &Asked {
            request,
            head,
            secure,
        } = asked;
        let safe =
            matches!(request.method, Method::GET | Method::HEAD | Method::OPTIONS) && !head.upgrade;
        if !identity.is_by_cookie() || safe {
            return Ok(());
        }
        let origin = sole_origin(&request.headers);
        let domains = &self.domains;
        let belongs = |origin| belongs(origin, head, Some(entry), endpoint, secure, domains);
        match origin.is_some_and(belongs) {
            true => Ok(()),
            false => Err(Rejection::OriginRefused),
        }
    }
}

/// Why a principal may not use a port, as far as it may know.
fn refusal(
    principal: &Principal,
    candidate: Candidate<'_>,
    found: Option<&Entry>,
    endpoint: Option<&Endpoint>,
    grants: &Grants<'_>,
) -> Rejection {
    let known = known(principal, candidate, found, grants);
    match (&principal.share, known, endpoint) {
        // A visitor knew of one port, and of nothing else.
        (Some(_), ..) => Rejection::RevokedToken,
        (None, None, _) => Rejection::NoSuchGitspace,
        (None, Some(_), None) => Rejection::PortClosed,
        (None, Some(_), Some(_)) => Rejection::NotAllowed,
    }
}

/// What a principal asked for, and what is looked at to tell whether it may: where there is none, a stand-in. So a look grows with
/// the sender's own claims, and tells nothing of what is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate<'a> {
    pub(crate) gitspace: &'a GitspaceId,
    pub(crate) entry: &'a Entry,
}

impl<'a> Candidate<'a> {
    pub(crate) fn of(found: Option<&'a Entry>, head: &'a Head) -> Self {
        let entry = found.unwrap_or(Entry::absent());
        let gitspace = match (found, named(head)) {
            (None, Some((gitspace, _))) => gitspace,
            _ => &entry.gitspace,
        };
        Self { gitspace, entry }
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
    /// Which share it is by.
    fn share(self) -> Option<Arc<str>> {
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
                || entry.allow.have(&principal.name)
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
    candidate: Candidate<'_>,
    endpoint: &Endpoint,
    grants: &Grants<'_>,
) -> Option<Right> {
    let ports = principal.ports.as_ref();
    let excluded = ports.is_some_and(|ports| !ports.contains(&endpoint.port));
    if excluded || !within_claims(principal, candidate.gitspace) {
        return None;
    }
    let standing = Standing::of(principal, candidate.entry);
    if principal.share.is_none() && standing.opens(endpoint.visibility) {
        return Some(Right::Own);
    }
    let share = grants.grant(principal, candidate, endpoint.port)?;
    Some(Right::Share(share))
}

/// Whether somebody may go on with a port that is not public.
pub(crate) fn still_may(
    principal: Option<&Principal>,
    entry: &Entry,
    endpoint: &Endpoint,
    grants: &Grants<'_>,
) -> bool {
    let gitspace = &entry.gitspace;
    let may = |principal| may(principal, Candidate { gitspace, entry }, endpoint, grants);
    principal.is_some_and(|principal| may(principal).is_some())
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
    endpoint: &Endpoint,
    secure: bool,
    domains: &[Box<str>],
) -> bool {
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    if endpoint.cors.have(origin) {
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

/// Whether somebody who may use a port starts the gitspace by opening it. Never a visitor of a share's link: nobody knows who that is.
pub(crate) fn wakes(
    principal: &Principal,
    entry: &Entry,
    endpoint: &Endpoint,
    grants: &Grants<'_>,
) -> bool {
    let candidate = Candidate {
        gitspace: &entry.gitspace,
        entry,
    };
    let Some(right) = may(principal, candidate, endpoint, grants) else {
        return false;
    };
    let standing = Standing::of(principal, entry);
    let owns = entry.owner.as_ref() == Some(&principal.name);
    let shared = standing.named || matches!(right, Right::Share(_));
    principal.share.is_none()
        && match entry.wake {
            Wakers::Off => false,
            Wakers::Owner => owns,
            Wakers::Shared => shared,
            Wakers::Organization => shared || (entry.org.is_some() && standing.member),
        }
}

/// The gitspace that was found, if the principal may use any port of it, and so may know of it.
pub(crate) fn known<'e>(
    principal: &Principal,
    candidate: Candidate<'_>,
    found: Option<&'e Entry>,
    grants: &Grants<'_>,
) -> Option<&'e Entry> {
    let knows = within_claims(principal, candidate.gitspace)
        && (may_any(principal, candidate.entry) || grants.any(principal, candidate));
    found.filter(|_| black_box(knows))
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
