//! Forward: the request to its target and the answer back.
//!
//! Eighth step of the path. Everything was decided before; here the header policy is applied, a connection is taken from this
//! worker's pool or made, the request is sent, and the answer's body carries account and permit with it until its last byte.
//! What is retried is only what is safe: nothing was sent, or an idempotent request without a body on a reused connection that
//! died before an answer.
//!
//! Not here: bytes after a 101 (`relay`).

mod body;
mod connect;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod headers;
mod pool;
mod upgrade;

use std::{sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, Version, request::Parts};
use hyper::body::{Body as _, Incoming};
use tokio::time::Instant;

use crate::config::{Timeout, Timeouts};

use super::{
    account::{Account, Step},
    http::Head,
    limit::Permit,
    rejection::Rejection,
    route::Target,
};

pub(crate) use body::Body;
pub(crate) use headers::{Forwarding, Names};
pub(crate) use pool::Pool;

use body::{Progress, RequestBody, ResponseBody};
use pool::Lease;

/// What this step needs of the ones before.
pub(crate) struct Exchange<'a> {
    pub(crate) head: &'a Head,
    pub(crate) target: &'a Arc<Target>,
    pub(crate) forwarding: &'a Forwarding<'a>,
    pub(crate) timeouts: &'a Timeouts,
    pub(crate) drain: &'a super::Drain,
    pub(crate) connection: &'a Arc<super::connection::Counted>,
}

/// Sends the request and gives its answer. The account and permit travel with the answer's body or stream.
pub(crate) async fn forward(
    pool: &Arc<Pool>,
    request: Request<Incoming>,
    exchange: Exchange<'_>,
    permit: Permit,
    account: &mut Option<Account>,
) -> Result<Response<Body>, Rejection> {
    let (mut parts, incoming) = request.into_parts();
    let client_upgrade = exchange
        .head
        .upgrade
        .then(|| parts.extensions.remove::<hyper::upgrade::OnUpgrade>())
        .flatten();
    let asked = upgrade::asked(&parts, client_upgrade.is_some());
    headers::to_upstream(
        &mut parts,
        exchange.head,
        exchange.target,
        exchange.forwarding,
    )?;
    if let Some(asked) = &asked {
        upgrade::ask(&mut parts.headers, asked);
    }
    let method = parts.method.clone();
    let (body, progress) = request_body(incoming, exchange.timeouts, account);
    let (response, lease) = send(pool, parts, body, progress.as_ref(), &exchange).await?;

    let Some(account) = account.take() else {
        return Err(Rejection::ClientGone);
    };
    let (mut response, incoming) = response.into_parts();
    response.version = Version::HTTP_11;
    let carried = Carried {
        account,
        permit,
        target: Arc::clone(exchange.target),
    };
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        let (Some(client), Some(asked)) = (client_upgrade, asked) else {
            carried.account.reject(&unasked_upgrade());
            return Ok(super::rejection::answer(
                &unasked_upgrade(),
                exchange.head.form,
                "",
            ));
        };
        headers::to_client(&mut response.headers, exchange.forwarding.names);
        upgrade::switch(&mut response, client, &asked, carried, &exchange);
        return Ok(Response::from_parts(response, Body::empty()));
    }
    headers::to_client(&mut response.headers, exchange.forwarding.names);
    let mut carried = carried;
    carried.account.answered(response.status);
    carried.account.step(Step::Relay);
    let bodyless = method == Method::HEAD || incoming.is_end_stream();
    let body = ResponseBody::new(
        incoming,
        bodyless,
        lease,
        carried,
        exchange.timeouts.body_idle,
    );
    Ok(Response::from_parts(response, Body::relayed(body)))
}

/// What lives as long as the exchange: who it is counted for, and what it is told of.
pub(crate) struct Carried {
    pub(crate) account: Account,
    pub(crate) permit: Permit,
    pub(crate) target: Arc<Target>,
}

fn unasked_upgrade() -> Rejection {
    Rejection::Broke("the gitspace switched protocols though nobody had asked".into())
}

fn request_body(
    incoming: Incoming,
    timeouts: &Timeouts,
    account: &mut Option<Account>,
) -> (RequestBody, Option<Arc<Progress>>) {
    match account {
        Some(account) if !incoming.is_end_stream() => {
            let progress = Arc::new(Progress::new(account.received()));
            (
                RequestBody::new(incoming, timeouts.body_idle, Arc::clone(&progress)),
                Some(progress),
            )
        }
        _ => (RequestBody::empty(), None),
    }
}

/// Sends on a pooled connection or a new one; tries once more where that is safe.
async fn send(
    pool: &Arc<Pool>,
    parts: Parts,
    body: RequestBody,
    progress: Option<&Arc<Progress>>,
    exchange: &Exchange<'_>,
) -> Result<(Response<Incoming>, Lease), Rejection> {
    let mut request = Request::from_parts(parts, body);
    while let Some(mut lease) = pool.take(exchange.target).await {
        let spare = spare(&request, progress.is_some(), &lease);
        match attempt(&mut lease, request, progress, exchange).await {
            Ok(response) => return Ok((response, lease)),
            Err(Failed { rejection, unsent }) => match unsent.or(spare) {
                Some(again) => request = again,
                None => return Err(rejection),
            },
        }
    }
    let mut lease = pool
        .connect(exchange.target, exchange.timeouts.connect)
        .await?;
    match attempt(&mut lease, request, progress, exchange).await {
        Ok(response) => Ok((response, lease)),
        Err(failed) => Err(failed.rejection),
    }
}

/// A copy to send again, where a second sending changes nothing (RFC 9110 §9.2.2) and the connection has rested so long that
/// its other end may have closed it meanwhile.
fn spare(
    request: &Request<RequestBody>,
    has_body: bool,
    lease: &Lease,
) -> Option<Request<RequestBody>> {
    let safe = request.method().is_idempotent() && !has_body && lease.rested();
    safe.then(|| {
        let mut copy = Request::new(RequestBody::empty());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.headers_mut() = request.headers().clone();
        copy
    })
}

/// A failed attempt; `unsent` holds the request if not a byte of it was written.
struct Failed {
    rejection: Rejection,
    unsent: Option<Request<RequestBody>>,
}

async fn attempt(
    lease: &mut Lease,
    request: Request<RequestBody>,
    progress: Option<&Arc<Progress>>,
    exchange: &Exchange<'_>,
) -> Result<Response<Incoming>, Failed> {
    let sending = lease.send(request);
    let late = response_deadline(exchange.timeouts.response_head, progress);
    tokio::select! {
        biased;
        outcome = sending => outcome.map_err(|mut error| {
            let unsent = error.take_message();
            Failed { rejection: why(error.into_error(), progress, exchange.target), unsent }
        }),
        () = late => Err(Failed { rejection: Rejection::Timeout, unsent: None }),
    }
}

/// Whose fault a failed sending was.
fn why(error: hyper::Error, progress: Option<&Arc<Progress>>, target: &Target) -> Rejection {
    if target.fenced().is_cancelled() {
        return Rejection::Stopped;
    }
    if progress.is_some_and(|progress| progress.stalled()) {
        return Rejection::BodyTimeout;
    }
    if let Some(why) = progress.and_then(|progress| progress.malformed()) {
        return Rejection::BadRequest(why);
    }
    if error.is_user() {
        return Rejection::ClientGone;
    }
    Rejection::Broke(Box::new(error))
}

/// Resolves when the head of the answer is overdue: so long after the last byte of the request.
async fn response_deadline(timeout: Timeout, progress: Option<&Arc<Progress>>) {
    let Some(timeout) = timeout.duration() else {
        return std::future::pending().await;
    };
    let start = Instant::now();
    let mut deadline = start + timeout;
    loop {
        tokio::time::sleep_until(deadline).await;
        // An upload under way has a deadline of its own (`RequestBody`).
        let last = progress.map_or(start, |progress| progress.last().max(start));
        let next = last + timeout;
        if next <= Instant::now() {
            return;
        }
        deadline = next.max(Instant::now() + Duration::from_millis(1));
    }
}
