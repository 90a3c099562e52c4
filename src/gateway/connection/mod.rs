//! One client connection: TLS, then HTTP/1.1 or HTTP/2 by ALPN (in the clear: by the first bytes), under one deadline.
//!
//! Second step of the path and the frame of the third. From accept to the first complete head there is one deadline, handshake
//! included; later a connection without a request under way may rest for `keep_alive`. The deadline is moved lazily: a request
//! costs two atomic writes, no timer. A client that takes nothing of its answers for `body_idle` is let go.
//!
//! Not here: HTTP/1.1 (`h1`, behind its `guard`), HTTP/2 (`h2`), what happens to a request (`Worker::serve`).

mod guard;
mod h1;
pub(crate) mod h2;
mod io;
mod linger;
mod pace;
mod stall;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{net::TcpStream, time::Instant};

use super::{
    Worker,
    accept::{Listener, speaks_h2},
    account::{Sink, metrics::ConnectionState},
    auth::LastToken,
    limit::ConnectionPermit,
    tls::{Acceptor, Names, Secured},
};

#[cfg(any(test, feature = "fuzzing"))]
pub(super) use guard::fuzzing;
pub(crate) use guard::{Refusal, malformed};
pub(crate) use io::{ClientIo, ClientStream};
pub(crate) use pace::InFlight;

use pace::Pace;

/// What the steps know of the connection that a request came on.
pub(crate) struct Peer {
    /// The client's address: the connection's, or what its PROXY protocol header says.
    pub(crate) client: SocketAddr,
    /// The address that it came to, by the same.
    pub(crate) local: SocketAddr,
    /// Whether it came over TLS.
    pub(crate) secure: bool,
    /// Answer everything with 503: all places were taken when it came.
    pub(crate) shed: bool,
    /// The listener that it came to.
    pub(crate) listener: Arc<Listener>,
    /// Whether it is believed for whom it speaks.
    pub(crate) trusted: bool,
    /// When it was accepted.
    pub(crate) accepted: Instant,
    /// The hosts that may be asked for over TLS.
    pub(crate) names: Option<Arc<Names>>,
    /// Its connection's place among those that are counted.
    pub(crate) counted: Arc<Counted>,
    /// The last token that was verified on it.
    pub(crate) last_token: LastToken,
}

impl Peer {
    /// Whether this host may be asked for on its connection.
    pub(crate) fn is_for(&self, host: &str) -> bool {
        self.names.as_ref().is_none_or(|names| names.cover(host))
    }
}

/// Serves a connection until it ends.
pub(crate) async fn serve(
    worker: Arc<Worker>,
    stream: TcpStream,
    mut peer: Peer,
    tls: Option<Arc<Acceptor>>,
) {
    let pace = Arc::new(Pace::new(&worker.gateway.timeouts, peer.accepted));
    let (stream, is_h2) = match tls {
        None => {
            // What says nothing in time, or at all, is left to HTTP/1.1 to be ended.
            let is_h2 = tokio::select! {
                is_h2 = tokio::time::timeout_at(pace.deadline(), speaks_h2(&stream)) => is_h2.unwrap_or(false),
                () = worker.gateway.drain.begun() => false,
            };
            (ClientStream::Plain(stream), is_h2)
        }
        Some(tls) => {
            // Boxed: a task keeps the size of its largest state for ever.
            let handshake = Box::pin(tls.accept(stream, pace.deadline()));
            match handshake.await {
                Ok(Secured { stream, names, h2 }) => {
                    peer.names = Some(names);
                    (ClientStream::Tls(Box::new(stream)), h2)
                }
                Err(failure) => {
                    worker.gateway.sink.metrics.failed_handshake(failure);
                    return;
                }
            }
        }
    };
    peer.counted.enter(if is_h2 {
        ConnectionState::H2
    } else {
        ConnectionState::Http1
    });
    let io = ClientIo::new(stream, Arc::clone(&pace));
    match is_h2 {
        true => h2::serve(worker, io, Arc::new(peer), pace).await,
        false => h1::serve(worker, io, Arc::new(peer), pace).await,
    }
}

/// A connection is counted for as long as this lives. An upgrade takes it along.
pub(crate) struct Counted {
    _permit: ConnectionPermit,
    sink: Arc<Sink>,
    state: Mutex<ConnectionState>,
}

impl Counted {
    /// Counts a connection that has its permit.
    pub(crate) fn new(permit: ConnectionPermit, sink: &Arc<Sink>) -> Arc<Self> {
        let state = ConnectionState::Opening;
        sink.metrics.connections(state).inc();
        Arc::new(Self {
            _permit: permit,
            sink: Arc::clone(sink),
            state: Mutex::new(state),
        })
    }

    /// The connection has become something else.
    pub(crate) fn enter(&self, state: ConnectionState) {
        let mut known = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.sink.metrics.connections(*known).dec();
        self.sink.metrics.connections(state).inc();
        *known = state;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let state = *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.sink.metrics.connections(state).dec();
    }
}

/// How large a head may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    pub(crate) bytes: usize,
    pub(crate) fields: usize,
}
