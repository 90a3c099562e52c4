//! A connection in use, whichever HTTP it speaks.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use futures_util::future::Either;
use http::{HeaderValue, Method, Request, Response, header};
use hyper::{
    body::{Body as _, Incoming},
    client::conn::{TrySendError, http1, http2},
};

use tokio::task::{AbortHandle, JoinHandle};

use super::{Pool, streams::Stream};
use crate::gateway::{
    forward::{body::RequestBody, connect::Heard, expect, guard::Watch},
    rejection::Break,
    route::Target,
};

/// Shorter than any client takes between two requests, longer than a busy connection rests.
const RESTED: Duration = Duration::from_micros(100);

/// How a sending ended.
pub(crate) type Sent = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

/// A connection of HTTP/1.1 at rest.
pub(super) struct Resting {
    pub(super) connection: Http1,
    pub(super) since: Instant,
}

/// A connection of HTTP/1.1: how to send on it, what came on it, and how to end it.
pub(super) struct Http1 {
    pub(super) sender: http1::SendRequest<RequestBody>,
    pub(super) heard: Heard,
    pub(super) watch: Arc<Watch>,
    pub(super) ending: Ending,
}

/// Ends a connection at once when it is dropped, so that its upstream learns that nobody waits.
pub(super) struct Ending(Option<AbortHandle>);

impl Ending {
    pub(super) fn of(task: &JoinHandle<()>) -> Self {
        Self(Some(task.abort_handle()))
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
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
    Http1(Http1),
    Http2 {
        sender: http2::SendRequest<RequestBody>,
        heard: Heard,
        /// Held until the answer has come.
        stream: Stream,
    },
}

impl Lease {
    /// Sends a request now, and resolves to the head of its answer.
    pub(in crate::gateway::forward) fn send(
        &mut self,
        mut request: Request<RequestBody>,
    ) -> impl Future<Output = Sent> + use<> {
        match &mut self.sender {
            Sender::Http1(connection) => {
                announce(&mut request);
                expect::hold(&mut request);
                connection.heard.forget();
                connection.watch.arm();
                Either::Left(connection.sender.try_send_request(request))
            }
            Sender::Http2 { sender, heard, .. } => {
                heard.forget();
                Either::Right(sender.try_send_request(request))
            }
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
            Sender::Http1(connection) => !connection.heard.anything(),
            Sender::Http2 { .. } => super::streams::is_unprocessed(error),
        }
    }

    /// No answer came in time. If nothing else came either, a connection for many is not given to others any more.
    pub(in crate::gateway::forward) fn late(&self) {
        if let Sender::Http2 { heard, stream, .. } = &self.sender
            && !heard.anything()
        {
            stream.retire();
        }
    }

    /// Whether it was the request's body that could not be read to its end.
    pub(in crate::gateway::forward) fn body_failed(&self, error: &hyper::Error) -> bool {
        match &self.sender {
            Sender::Http1(..) => error.is_user(),
            Sender::Http2 { .. } => super::streams::is_reset_by_us(error),
        }
    }

    /// What the guard has seen go wrong. HTTP/2 has no guard.
    pub(in crate::gateway::forward) fn broken(&self) -> Option<Break> {
        match &self.sender {
            Sender::Http1(connection) => connection.watch.broken(),
            Sender::Http2 { .. } => None,
        }
    }

    /// The answer has come whole: others may use it.
    pub(in crate::gateway::forward) fn give_back(self) {
        let Sender::Http1(connection) = self.sender else {
            return;
        };
        if let Some(pool) = self.pool.upgrade()
            && !connection.sender.is_closed()
        {
            connection.watch.rest();
            let resting = Resting {
                connection,
                since: Instant::now(),
            };
            let settings = &pool.upstreams.settings;
            pool.lock().put(self.target.number, resting, settings);
            self.target.reach.freed();
        }
    }

    /// It becomes a tunnel, and ends with that.
    pub(in crate::gateway::forward) fn let_go(self) {
        if let Sender::Http1(mut connection) = self.sender {
            connection.ending.0 = None;
        }
    }
}

/// hyper leaves out the body of a GET or HEAD whose length it does not know, unless its coding is there already.
fn announce(request: &mut Request<RequestBody>) {
    let rare = matches!(*request.method(), Method::GET | Method::HEAD);
    if rare && !request.body().is_end_stream() && request.body().size_hint().exact().is_none() {
        let chunked = HeaderValue::from_static("chunked");
        request
            .headers_mut()
            .insert(header::TRANSFER_ENCODING, chunked);
    }
}
