//! Forward: the request to its target and the answer back.
//!
//! Eighth step of the path. Everything was decided before; here the header policy is applied, a connection is taken from this
//! worker's pool or made, the request is sent, and the answer's body carries account and permit with it until its last byte.
//!
//! Not here: bytes after a 101 (`relay`).

mod body;
mod connect;
mod expect;
mod framing;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod guard;
mod headers;
mod pool;
mod send;
mod spare;
mod speaks;
mod tls;
mod upgrade;
mod version;

use std::sync::Arc;

use crate::config::Timeouts;
use http::{HeaderMap, Method, Response, Version, header, request::Parts};
use hyper::body::{Body as _, Incoming};

use super::{
    account::{Account, Step},
    http::Head,
    limit::Permit,
    live::{Seat, Stream},
    rejection::Rejection,
    route::{self, Target},
};

pub(crate) use body::Body;
pub(crate) use headers::{Forwarding, Names, Prefix};
pub(crate) use pool::{Pool, Upstreams};

use body::{Progress, RequestBody, ResponseBody};
use send::send;
use upgrade::Asked;

/// What this step needs of the ones before.
pub(crate) struct Exchange<'a> {
    pub(crate) head: &'a Head,
    pub(crate) target: &'a Arc<Target>,
    /// What may be switched to beside WebSockets, in lower case.
    pub(crate) upgrades: &'a route::Names,
    pub(crate) forwarding: &'a Forwarding<'a>,
    pub(crate) timeouts: &'a Timeouts,
    /// How many bytes the request's body may have.
    pub(crate) body_max: u64,
    pub(crate) drain: &'a super::Drain,
    pub(crate) connection: &'a Arc<super::connection::Counted>,
}

/// Sends the request and gives its answer. The account and permit travel with the answer's body or stream.
pub(crate) async fn forward(
    pool: &Arc<Pool>,
    (parts, mut incoming): (&mut Parts, Incoming),
    exchange: &Exchange<'_>,
    (permit, seat): (Permit, Seat),
    account: &mut Option<Account>,
) -> Result<Response<Body>, Rejection> {
    let asked = match exchange.head.upgrade {
        true => Asked::of(parts, exchange.upgrades),
        false => None,
    };
    headers::to_upstream(parts, exchange.head, exchange.target, exchange.forwarding)?;
    if let Some(asked) = &asked {
        asked.ask(&mut parts.headers);
    }
    let method = parts.method.clone();
    if body::says_it_is_empty(&incoming) {
        // Boxed: few clients end such a body behind its head.
        Box::pin(body::ended(&mut incoming, exchange.timeouts.body_idle)).await?;
    }
    let (body, progress) = request_body(incoming, exchange, (&permit, &seat), account);
    let sent = send(
        pool,
        parts,
        body,
        progress.as_ref(),
        (exchange, seat.live()),
        asked.is_some(),
    )
    .await;
    let (response, lease) = match sent {
        Ok(sent) => sent,
        // Boxed: most requests are answered.
        Err(rejection) => return Err(Box::pin(speaks::doubt(pool, exchange, rejection)).await),
    };
    version::check(&response, lease.is_http2())?;

    let (mut response, incoming) = response.into_parts();
    let received = std::mem::replace(&mut response.version, Version::HTTP_11);
    framing::check(&mut response)?;
    let switch = upgrade::answered(asked, &response)?;
    headers::to_client(&mut response.headers, received);
    if let Some(prefix) = &exchange.forwarding.prefix {
        let port = exchange.forwarding.port;
        prefix.put_under(&mut response.headers, exchange.head, port);
    }
    if let Some(switch) = &switch {
        switch.tell(&mut response);
    }
    let Some(account) = account.take() else {
        return Err(Rejection::ClientGone);
    };
    let mut carried = Carried {
        account,
        permit,
        seat,
        target: Arc::clone(exchange.target),
    };
    if is_events(&response.headers) {
        carried.seat.live().becomes(Stream::Events);
    }
    carried.account.answered(response.status);
    carried.account.step(Step::Relay);
    if let Some(switch) = switch {
        lease.let_go();
        switch.begin(&mut response, carried, exchange);
        return Ok(Response::from_parts(response, Body::empty()));
    }
    let bodyless = method == Method::HEAD || incoming.is_end_stream();
    let body = ResponseBody::new(
        incoming,
        bodyless,
        (lease, progress),
        carried,
        exchange.timeouts.body_idle,
        exchange.forwarding.names,
    );
    Ok(Response::from_parts(response, Body::relayed(body)))
}

/// Whether an answer is a stream of server-sent events, which has no end.
fn is_events(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE);
    media_type.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}

/// What lives as long as the exchange: who it is counted for, and what it is told of.
pub(crate) struct Carried {
    pub(crate) account: Account,
    pub(crate) permit: Permit,
    pub(crate) seat: Seat,
    pub(crate) target: Arc<Target>,
}

fn request_body(
    incoming: Incoming,
    exchange: &Exchange<'_>,
    (permit, seat): (&Permit, &Seat),
    account: &mut Option<Account>,
) -> (RequestBody, Option<Arc<Progress>>) {
    match account {
        Some(account) if !incoming.is_end_stream() => {
            let progress = Arc::new(Progress::new(account.received()));
            (
                RequestBody::new(
                    (incoming, exchange.body_max),
                    exchange.timeouts.body_idle,
                    (permit.payer(), Arc::clone(seat.live())),
                    Arc::clone(&progress),
                    exchange.forwarding.names,
                ),
                Some(progress),
            )
        }
        _ => (RequestBody::empty(), None),
    }
}
