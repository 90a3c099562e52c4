//! The gateway: the data path, and what feeds it.
//!
//! `accept → tls → parse → authenticate → route → authorize → limit → forward → relay → account`. The life of a request is
//! [`Worker::steps`]: each step is a file or folder of that name, uses the results of earlier ones and calls no later one. Only
//! this file knows the order. Whatever happens, exactly one account is closed, and one place turns a rejection into an answer.
//!
//! Not here: lifecycle of gitspaces; routes reach this role only as [`crate::api`] values.

mod accept;
mod account;
mod activity;
mod admin;
pub mod auth;
mod authorize;
mod chp;
pub mod client;
mod connection;
mod cors;
mod drain;
mod ended;
mod forward;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod identity;
mod limit;
mod live;
mod own;
mod page;
pub mod proxy_protocol;
mod ready;
mod rejection;
mod relay;
mod request_id;
mod revoke;
mod role;
pub mod route;
mod share;
pub mod tls;
mod turns;
mod unread;
mod visit;
mod wake;

use std::{ops::ControlFlow, sync::Arc, time::SystemTime};

use ::http::{HeaderValue, Method, Request, Response, StatusCode, Version, request::Parts};
use hyper::body::{Body as _, Incoming};

use crate::{
    api::{access::Port, route::RouteState},
    config,
};

use account::{Account, End, Sink, Step};
use auth::{Authenticator, Principal};
use authorize::Allowed;
use chp::Chp;
use client::Client;
use connection::{HeadLimits, Peer, Refusal};
use drain::Drain;
use ended::Ended;
use forward::{Body, Exchange, Forwarding, Names, Pool, Prefix, Upstreams, forward};
use http::{Destination, Head, Transport};
use identity::Identity;
use limit::{Limits, Network};
use live::{About, Lives, Shard};
use rejection::{Form, answer};
use request_id::RequestIds;
use route::{Entry, Table};
use share::Shares;
use tls::Tls;
use unread::Unread;
use visit::Visit;
use wake::{Opened, Wakes};

pub use accept::{BindError, Named, Sockets};
pub use activity::Acted;
pub use limit::Carried;
pub use rejection::{Break, Late, Policy, Rejection, TlsFault};
pub use role::{Bound, ControlPlane, Elsewhere, Error, Handle, ReloadRequest, Settings, bind};

/// What all workers share.
pub(crate) struct Gateway {
    domains: Vec<Box<str>>,
    auth: Authenticator,
    routes: Arc<Table>,
    shares: Shares,
    first_visits: config::Timeout,
    chp: Option<Chp>,
    wakes: Arc<Wakes>,
    limits: Limits,
    names: Arc<Names>,
    upstreams: Arc<Upstreams>,
    timeouts: config::Timeouts,
    head_limits: HeadLimits,
    login_url: String,
    websockets_over_http2: bool,
    tls: Option<Arc<Tls>>,
    exchanges: own::Exchanges,
    feed: route::feed::Lease,
    running: ready::Running,
    sink: Arc<Sink>,
    lives: Lives,
    drain: Drain,
    request_ids: RequestIds,
}

/// A thread of the data path.
pub(crate) struct Worker {
    gateway: Arc<Gateway>,
    pool: Arc<Pool>,
    live: Arc<Shard>,
}

impl Worker {
    /// Serves one request. Whatever happens, exactly one account is closed.
    async fn serve(&self, request: Request<Incoming>, peer: &Peer) -> Response<Body> {
        let gateway = &*self.gateway;
        // Lent from step to step: a request that is handed on by value is copied each time.
        let (mut request, body) = request.into_parts();
        let protocol = protocol(request.version);
        let mut client = Client::of(peer, &request.headers);
        let id = client.request_id.take();
        let id = id.unwrap_or_else(|| gateway.request_ids.next());
        let target = http::for_the_log(&request);
        let mut account = Some(Account::open(
            &gateway.sink,
            id,
            client.ip,
            protocol,
            target,
        ));
        note(&mut account, |account| account.trace(&request.headers));
        let unread = Unread::of(&request, &body);
        let mut body = Some(body);
        let mut response = match self
            .steps(&mut request, &mut body, peer, &client, &mut account)
            .await
        {
            // The account of a forwarded request travels with the answer's body.
            Ok(mut response) => {
                if let Some(mut account) = account {
                    account.answered(response.status());
                    account.sent_own(response.body());
                    account.close(End::Done);
                    unread.discard(body, &mut response);
                }
                response
            }
            Err(ended) => {
                let mut response = ended.answer(gateway, &request, account).await;
                unread.discard(body, &mut response);
                if peer.shed && protocol == "http/1.1" {
                    close_behind(&mut response);
                }
                response
            }
        };
        // Another process takes over: a client that is told so behind an answer comes again there, and loses no request.
        if gateway.drain.is_handed_over()
            && protocol == "http/1.1"
            && response.status() != StatusCode::SWITCHING_PROTOCOLS
        {
            close_behind(&mut response);
        }
        gateway.names.secure(&mut response, client.secure);
        response
    }

    /// Answers a head that the guard refused: it is accounted like any request.
    fn refuse(&self, refusal: Refusal, peer: &Peer) -> Response<Body> {
        let gateway = &*self.gateway;
        let id = gateway.request_ids.next();
        // What its method and path were is not for sure.
        let method = Method::from_bytes(b"-").unwrap_or_default();
        let client = peer.client.ip();
        let mut account = Account::open(&gateway.sink, id, client, "http/1.1", (method, "".into()));
        let rejection = Rejection::from(refusal);
        let mut response = answer(&rejection, Form::Problem, account.id(), None);
        gateway.names.secure(&mut response, peer.secure);
        account.sent_own(response.body());
        account.reject(&rejection);
        response
    }

    /// The path of one request; each step may end it.
    async fn steps(
        &self,
        request: &mut Parts,
        body: &mut Option<Incoming>,
        peer: &Peer,
        client: &Client,
        account: &mut Option<Account>,
    ) -> Result<Response<Body>, Ended> {
        let gateway = &self.gateway;
        let now = SystemTime::now();

        let head = gateway.read(request, peer, client)?;
        let in_form = |rejection| Ended::at(gateway, &head, rejection);
        note(account, |account| account.host(&head.host));
        if !peer.is_for(&head.host) {
            return Err(in_form(Rejection::Misdirected));
        }
        if let Some(port) = peer.listener.redirect.filter(|_| !client.secure) {
            return gateway
                .redirect_to_https(&head, port, &request.uri)
                .map_err(in_form);
        }

        note(account, |account| account.step(Step::Authenticate));
        let network = Network::from(client.ip);
        if head.top && own::comes_back(request) {
            let back = gateway.back_from_login(request, &head, network, now);
            return Box::pin(back).await.map_err(in_form);
        }
        let visit = Visit::of(request, &head);
        // Who tells who is asking may be a matter of the route, where that has a host of its own.
        let claimed = gateway.claimed(&head, request);
        if claimed.is_none() && gateway.is_chps(&head) && own::path(request.uri.path()).is_none() {
            // Nobody logs in at the gateway there, and whose a path is does not depend on who asks.
            note(account, |account| account.step(Step::Route));
            return Err(in_form(Rejection::NoSuchGitspace));
        }
        let claims = claimed.as_ref();
        let leave = claims.is_some_and(|(entry, _)| entry.leaves_to_app(&head.destination));
        let identity = gateway.identify(request, &head, peer, network, leave, now);
        let identity = match identity.await.map_err(in_form)? {
            ControlFlow::Continue(identity) => identity,
            ControlFlow::Break(exchanged) => return Ok(exchanged),
        };
        if let Some(principal) = identity.principal() {
            note(account, |account| account.principal(&principal.name));
        }

        note(account, |account| account.step(Step::Route));
        let found = match head.destination {
            Destination::Host => claimed,
            Destination::Gitspace(..) => gateway.routes.find(&head.destination, "", ""),
        };
        if let Some(path) = own::path(request.uri.path()) {
            let asked = own::Asked {
                path,
                parts: request,
                head: &head,
                secure: client.secure,
                network,
                now,
            };
            let answer = gateway.own(asked, &identity, found.as_ref());
            return Box::pin(answer).await.map_err(in_form);
        }

        note(account, |account| account.step(Step::Authorize));
        let port = found.as_ref();
        let port = port.map(|(entry, port)| (&**entry, entry.endpoint(*port)));
        if identity.principal().is_none()
            && let Some(answer) =
                cors::preflight(request, &head, port, client.secure, &gateway.domains)
        {
            return Ok(answer);
        }
        let asked = authorize::Asked {
            request,
            head: &head,
            secure: client.secure,
        };
        let allowed = match gateway.authorize(&identity, port, &asked, now) {
            Ok(allowed) => allowed,
            Err(rejection) => {
                return gateway
                    .to_login(rejection, &head, request, now)
                    .map_err(in_form);
            }
        };
        if allowed.entry.state != RouteState::Running {
            let opened = Opened {
                request,
                head: &head,
                principal: identity.principal(),
                entry: allowed.entry,
                endpoint: allowed.endpoint,
                now,
            };
            let (rejection, page) = Box::pin(gateway.not_running(opened)).await;
            return Err(in_form(rejection).with(page));
        }
        if let Some(page) = gateway.first_visit(visit, &identity, &allowed, (request, &head)) {
            return Ok(page);
        }
        let Allowed {
            entry,
            endpoint,
            share,
        } = allowed;
        gateway.feed.fresh(entry.source).map_err(in_form)?;
        note(account, |account| {
            account.route(&entry.gitspace, endpoint.port)
        });

        note(account, |account| account.step(Step::Limit));
        let asker = identity.asker(network);
        let permit = gateway
            .limits
            .admit(asker, &entry.gitspace, share.as_deref(), head.upgrade)
            .map_err(in_form)?;

        let known = body.as_ref().map_or(0, |body| body.size_hint().lower());
        let body_max = gateway.limits.body(known).map_err(in_form)?;

        if let Some(answer) = own::last_hop(request) {
            return Ok(answer);
        }
        let prefix = Prefix::of(entry, &head, request.uri.path());
        if let Some(folder) = prefix.and_then(|prefix| prefix.folder(&head, &request.uri)) {
            return own::into_folder(&folder).map_err(in_form);
        }

        note(account, |account| account.step(Step::Forward));
        let about = About {
            id: account
                .as_ref()
                .and_then(Account::shared_id)
                .unwrap_or_default(),
            principal: identity.principal().cloned(),
            gitspace: entry.gitspace.clone(),
            port: endpoint.port,
            share,
            client: client.ip,
            protocol: protocol(request.version),
            activity: Arc::clone(&entry.activity),
        };
        let seat = self.live.enter(about, now);
        let deed = activity::deed(request, &head);
        let request_id = Arc::clone(&seat.live().about.id);
        let forwarding = gateway.forwarding(
            client,
            &head,
            entry,
            endpoint,
            identity.principal().map(|principal| &**principal),
            prefix,
            &request_id,
            account.as_ref().and_then(Account::traceparent),
            now,
        );
        let exchange = Exchange {
            head: &head,
            target: &endpoint.target,
            upgrades: &endpoint.upgrades,
            forwarding: &forwarding,
            timeouts: &gateway.timeouts,
            body_max,
            drain: &gateway.drain,
            connection: &peer.counted,
        };
        let Some(body) = body.take() else {
            return Err(in_form(Rejection::ClientGone));
        };
        let readers = cors::Policy::of(
            &request.headers,
            &head,
            (entry, endpoint),
            client.secure,
            &gateway.domains,
        );
        let request = (request, body);
        let mut response = forward(&self.pool, request, &exchange, (permit, seat), account)
            .await
            .map_err(|rejection| in_form(rejection.at(endpoint.port)))?;
        entry
            .activity
            .answered(response.status(), endpoint.port, deed, now);
        readers.apply(response.headers_mut());
        if let Identity::Principal {
            renewed: Some(session),
            ..
        } = identity
        {
            own::hold_longer(*session, response.headers_mut());
        }
        Ok(response)
    }
}

impl Gateway {
    /// What a request asks for, if there is room for it and it can be read in one way only.
    fn read(&self, request: &mut Parts, peer: &Peer, client: &Client) -> Result<Head, Rejection> {
        if peer.shed || !self.limits.has_room(self.sink.metrics.streams.get()) {
            return Err(Rejection::Overloaded);
        }
        if request.version == Version::HTTP_2 {
            connection::h2::check(request, self.head_limits.fields)?;
            connection::h2::websocket::read(request)?;
        }
        let transport = Transport::of(peer.secure, client.secure);
        http::parse(request, &self.domains, transport)
    }

    /// The route that claims the host, or the path of it, where the host is no gitspace's.
    fn claimed(&self, head: &Head, request: &Parts) -> Option<(Arc<Entry>, Port)> {
        match head.destination {
            Destination::Host => {
                let path = request.uri.path();
                self.routes.find(&head.destination, &head.host, path)
            }
            Destination::Gitspace(..) => None,
        }
    }

    /// Whether the routes of the host come by the API of configurable-http-proxy.
    fn is_chps(&self, head: &Head) -> bool {
        let chp = self.chp.as_ref();
        chp.is_some_and(|chp| head.destination == Destination::Host && chp.serves(&head.host))
    }

    /// What the upstream is told of this request.
    #[expect(
        clippy::too_many_arguments,
        reason = "the results of the earlier steps, once"
    )]
    fn forwarding<'a>(
        &'a self,
        client: &Client,
        head: &Head,
        entry: &'a Entry,
        endpoint: &route::Endpoint,
        principal: Option<&'a Principal>,
        prefix: Option<Prefix<'a>>,
        request_id: &'a str,
        traceparent: Option<HeaderValue>,
        now: SystemTime,
    ) -> Forwarding<'a> {
        let number = match endpoint.port {
            Port::App(number) => number,
            Port::Ide | Port::Ssh => endpoint.target.port(),
        };
        let wanted = principal.filter(|_| self.names.wants_assertion());
        let assertion = wanted.and_then(|principal| {
            self.auth
                .assertion(principal, &head.host, entry.gitspace.as_str(), now)
        });
        Forwarding {
            names: &self.names,
            client: client.ip,
            secure: client.secure,
            port: client.port(head),
            request_id,
            traceparent,
            gitspace: &entry.gitspace,
            principal: principal.map(|principal| &*principal.name),
            assertion,
            prefix,
            host_header: endpoint.host_header,
            origin: endpoint.origin,
            number,
        }
    }
}

/// Tells an HTTP/1.1 client that its connection ends behind the answer.
fn close_behind(response: &mut Response<Body>) {
    let close = HeaderValue::from_static("close");
    response
        .headers_mut()
        .insert(::http::header::CONNECTION, close);
}

/// What a version of HTTP is called in the log.
fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "h2",
        _ => "http/1.1",
    }
}

fn note(account: &mut Option<Account>, tell: impl FnOnce(&mut Account)) {
    if let Some(account) = account {
        tell(account);
    }
}

/// The destination's gitspace and port, where the host names one.
fn named(head: &Head) -> Option<(&crate::api::GitspaceId, Port)> {
    match &head.destination {
        Destination::Gitspace(gitspace, port) => Some((gitspace, *port)),
        Destination::Host => None,
    }
}

/// An answer without a body.
fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
