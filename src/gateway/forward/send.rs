//! Sending: on a connection that is there or a new one, within the deadlines, and once more where that is safe.
//!
//! Safe is what was not sent at all, and an idempotent request without a body on a connection that had served others and died
//! before a byte of an answer came (RFC 9110 §9.2.2): then its end was none of this request's doing. Everything else is sent
//! once.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use http::{Request, Response, request::Parts};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{
    Exchange,
    body::{Progress, RequestBody},
    pool::{Lease, Pool, Sent, Wanted},
    spare::Spare,
    version,
};
use crate::{
    config::Timeouts,
    gateway::{
        live::Live,
        rejection::{Break, Late, Rejection},
        route::Target,
    },
};

/// Sends on a pooled connection or a new one; tries once more where that is safe.
pub(super) async fn send(
    pool: &Arc<Pool>,
    parts: &mut Parts,
    body: RequestBody,
    progress: Option<&Arc<Progress>>,
    (exchange, live): (&Exchange<'_>, &Live),
    upgrade: bool,
) -> Result<(Response<Incoming>, Lease), Rejection> {
    let wanted = Wanted {
        target: exchange.target,
        upgrade,
        within: exchange.timeouts.connect,
    };
    let mut request = request(parts, body);
    let mut fresh = false;
    loop {
        let taken = if fresh { None } else { pool.take(wanted).await };
        let mut lease = match taken {
            Some(lease) => lease,
            // Boxed: most requests need none of what is kept while a connection is made.
            None => Box::pin(pool.connect(wanted, fresh)).await?,
        };
        version::fit(&mut request, lease.is_http2(), exchange.target)?;
        let spare = spare(&request, progress.is_some(), &lease);
        let sent = pin!(lease.send(request));
        match attempt(&mut lease, sent, progress, (exchange, live)).await {
            Ok(response) => return Ok((response, lease)),
            // The pool loses a connection with every turn; one that served nobody is not tried twice.
            Err(Failed {
                unsent: Some(unsent),
                ..
            }) if lease.reused() => request = unsent,
            Err(Failed {
                rejection, silent, ..
            }) => {
                let spare = spare.filter(|_| silent).and_then(Spare::request);
                let Some(spare) = spare else {
                    return Err(rejection);
                };
                (request, fresh) = (spare, true);
            }
        }
    }
}

/// What is sent: the head's parts are taken out of where they lie.
fn request(parts: &mut Parts, body: RequestBody) -> Request<RequestBody> {
    let mut request = Request::new(body);
    *request.method_mut() = std::mem::take(&mut parts.method);
    *request.uri_mut() = std::mem::take(&mut parts.uri);
    *request.version_mut() = parts.version;
    *request.headers_mut() = std::mem::take(&mut parts.headers);
    request
}

/// A copy to send again, where a second sending changes nothing and the connection may have died on its own.
fn spare(request: &Request<RequestBody>, has_body: bool, lease: &Lease) -> Option<Spare> {
    let safe = request.method().is_idempotent() && !has_body && lease.rested();
    safe.then(|| Spare::of(request))
}

/// A failed attempt.
struct Failed {
    rejection: Rejection,
    /// The request, if not a byte of it was written.
    unsent: Option<Request<RequestBody>>,
    /// Whether nothing came back.
    silent: bool,
}

/// Waits for the answer to what was sent.
async fn attempt(
    lease: &mut Lease,
    sent: Pin<&mut impl Future<Output = Sent>>,
    progress: Option<&Arc<Progress>>,
    (exchange, live): (&Exchange<'_>, &Live),
) -> Result<Response<Incoming>, Failed> {
    let outcome = tokio::select! {
        biased;
        outcome = sent => outcome,
        late = overdue(exchange.timeouts, progress) => {
            lease.late();
            return Err(Failed { rejection: Rejection::Timeout(late), unsent: None, silent: false });
        }
        ending = live.must_end() => {
            let rejection = Rejection::AccessEnded(ending.detail.clone());
            return Err(Failed { rejection, unsent: None, silent: false });
        }
    };
    outcome.map_err(|mut error| {
        let unsent = error.take_message();
        let error = error.into_error();
        let silent = lease.died_silently(&error);
        let rejection = match live.ending() {
            Some(ending) => Rejection::AccessEnded(ending.detail.clone()),
            None => why(error, lease, progress, exchange.target),
        };
        Failed {
            rejection,
            unsent,
            silent,
        }
    })
}

/// Whose fault a failed sending was.
fn why(
    error: hyper::Error,
    lease: &Lease,
    progress: Option<&Arc<Progress>>,
    target: &Target,
) -> Rejection {
    if target.fenced().is_cancelled() {
        return Rejection::TargetChanged;
    }
    if progress.is_some_and(|progress| progress.stalled()) {
        return Rejection::BodyTimeout;
    }
    if progress.is_some_and(|progress| progress.too_large()) {
        return Rejection::BodyTooLarge;
    }
    if let Some(why) = progress.and_then(|progress| progress.malformed()) {
        return Rejection::BadRequest(why);
    }
    if progress.is_some() && lease.body_failed(&error) {
        return Rejection::ClientGone;
    }
    let how = if error.is_parse_too_large() {
        Break::HeadTooLarge
    } else if error.is_parse() {
        Break::Protocol
    } else {
        lease.broken().unwrap_or(Break::Terminated)
    };
    Rejection::Broke(how, Box::new(error))
}

/// Resolves when the head of the answer is overdue: so long after the last byte of the request. An upload that its upstream does
/// not take is overdue as well; one whose client sends nothing has a deadline of its own (`RequestBody`).
async fn overdue(timeouts: &Timeouts, progress: Option<&Arc<Progress>>) -> Late {
    let head = timeouts.response_head.duration();
    let stuck = [head, timeouts.body_idle.duration()];
    let stuck = stuck.into_iter().flatten().min();
    let start = Instant::now();
    loop {
        let upload = progress.filter(|progress| !progress.done());
        let patience = if upload.is_some() { stuck } else { head };
        let Some(patience) = patience else {
            return std::future::pending().await;
        };
        let now = Instant::now();
        let last = match upload {
            Some(upload) if upload.waiting() => now,
            _ => progress.map_or(start, |progress| progress.last().max(start)),
        };
        if last + patience <= now {
            return upload.map_or(Late::Answer, |_| Late::Request);
        }
        tokio::time::sleep_until(last + patience + Duration::from_millis(1)).await;
    }
}
