//! A connection in use, whichever HTTP it speaks.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};

use super::{Pool, streams::Stream};
use crate::gateway::{
    forward::{body::RequestBody, connect::Heard},
    route::Target,
};

/// Shorter than any client takes between two requests, longer than a busy connection rests.
const RESTED: Duration = Duration::from_micros(100);

type Sent = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

/// A connection of HTTP/1.1 at rest.
pub(super) struct Resting {
    pub(super) sender: http1::SendRequest<RequestBody>,
    pub(super) heard: Heard,
    pub(super) since: Instant,
}

/// See the module. Dropped before its answer has come whole, its connection (of HTTP/2: its stream) ends.
pub(crate) struct Lease {
    pub(super) sender: Sender,
    pub(super) target: Arc<Target>,
    pub(super) pool: Weak<Pool>,
    /// For how long it rested before; None: it has served nobody.
    pub(super) rested: Option<Duration>,
}

/// One request at a time, or a stream among many.
pub(super) enum Sender {
    Http1(http1::SendRequest<RequestBody>, Heard),
    Http2 {
        sender: http2::SendRequest<RequestBody>,
        /// Held until the answer has come.
        _stream: Stream,
    },
}

impl Lease {
    /// Sends a request and waits for the head of its answer.
    pub(in crate::gateway::forward) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Sent {
        match &mut self.sender {
            Sender::Http1(sender, heard) => {
                heard.forget();
                sender.try_send_request(request).await
            }
            Sender::Http2 { sender, .. } => sender.try_send_request(request).await,
        }
    }

    /// Whether it speaks HTTP/2.
    pub(in crate::gateway::forward) fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2 { .. })
    }

    /// Whether it has served a request before: only then may its end be none of this request's doing.
    pub(in crate::gateway::forward) fn reused(&self) -> bool {
        self.rested.is_some()
    }

    /// Whether it was used before and then rested, so that the other end may have closed it meanwhile: worth a copy of the
    /// request. One that was given back just now has shown that it stands.
    pub(in crate::gateway::forward) fn rested(&self) -> bool {
        self.rested.is_some_and(|rested| rested >= RESTED)
    }

    /// Whether this failure left the request unanswered and, as far as HTTP can tell, unnoticed.
    pub(in crate::gateway::forward) fn died_silently(&self, error: &hyper::Error) -> bool {
        match &self.sender {
            Sender::Http1(_, heard) => !heard.anything(),
            Sender::Http2 { .. } => super::streams::is_unprocessed(error),
        }
    }

    /// Whether it was the request's body that could not be read to its end.
    pub(in crate::gateway::forward) fn body_failed(&self, error: &hyper::Error) -> bool {
        match &self.sender {
            Sender::Http1(..) => error.is_user(),
            Sender::Http2 { .. } => super::streams::is_reset_by_us(error),
        }
    }

    /// The answer has come whole: others may use it.
    pub(in crate::gateway::forward) fn give_back(self) {
        let Sender::Http1(sender, heard) = self.sender else {
            return;
        };
        if let Some(pool) = self.pool.upgrade()
            && !sender.is_closed()
        {
            let resting = Resting {
                sender,
                heard,
                since: Instant::now(),
            };
            let settings = &pool.upstreams.settings;
            pool.lock().put(self.target.number, resting, settings);
            self.target.reach.freed();
        }
    }
}
