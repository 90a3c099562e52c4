//! One client connection: TLS, then HTTP/1.1 or HTTP/2 by ALPN, under one deadline.
//!
//! Second step of the path and the frame of the third. From accept to the first complete head there is one deadline, handshake
//! included; later a connection without a request under way may rest for `keep_alive`. The deadline is moved lazily: a request
//! costs two atomic writes, no timer. A client that takes nothing of its answers for `body_idle` is let go.
//!
//! Not here: what happens to a request (`Worker::serve`).

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::server::TlsStream;

use crate::config::Timeouts;

use super::{
    Worker,
    account::Sink,
    forward::Body,
    limit::ConnectionPermit,
    tls::{Names, Tls},
};

/// Streams that one HTTP/2 connection may have open.
const H2_STREAMS: u32 = 128;

/// What the steps know of the connection that a request came on.
pub(crate) struct Peer {
    /// The client's address.
    pub(crate) client: SocketAddr,
    /// The address that it came to.
    pub(crate) local: SocketAddr,
    /// Whether it came over TLS.
    pub(crate) secure: bool,
    /// Answer everything with a redirect to https.
    pub(crate) redirect: bool,
    /// The names of the certificate served, if any.
    pub(crate) names: Option<Arc<Names>>,
    /// Its connection's place among those that are counted.
    pub(crate) counted: Arc<Counted>,
}

/// Serves a connection until it ends.
pub(crate) async fn serve(
    worker: Arc<Worker>,
    stream: TcpStream,
    mut peer: Peer,
    tls: Option<Arc<Tls>>,
) {
    let pace = Arc::new(Pace::new(&worker.gateway.timeouts));
    let _ = stream.set_nodelay(true);
    let (stream, h2) = match tls {
        None => (ClientStream::Plain(stream), false),
        Some(tls) => {
            // Boxed: a task keeps the size of its largest state for ever.
            let handshake = Box::pin(tls.acceptor().accept(stream));
            let Ok(Ok(stream)) = tokio::time::timeout_at(pace.deadline(), handshake).await else {
                worker.gateway.sink.metrics.failed_handshakes.inc();
                return;
            };
            let session = stream.get_ref().1;
            peer.names = Some(tls.names(session.server_name()));
            let h2 = session.alpn_protocol() == Some(b"h2");
            (ClientStream::Tls(Box::new(stream)), h2)
        }
    };
    let io = ClientIo {
        stream,
        pace: Arc::clone(&pace),
    };
    http(worker, io, h2, Arc::new(peer), pace).await;
}

/// A connection is counted for as long as this lives. An upgrade takes it along.
pub(crate) struct Counted {
    _permit: ConnectionPermit,
    sink: Arc<Sink>,
}

impl Counted {
    /// Counts a connection that has its permit.
    pub(crate) fn new(permit: ConnectionPermit, sink: &Arc<Sink>) -> Arc<Self> {
        sink.metrics.connections.inc();
        Arc::new(Self {
            _permit: permit,
            sink: Arc::clone(sink),
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.sink.metrics.connections.dec();
    }
}

/// Runs hyper's connection, boxed so that the task around it stays small.
async fn http(worker: Arc<Worker>, io: ClientIo, h2: bool, peer: Arc<Peer>, pace: Arc<Pace>) {
    let limits = worker.gateway.head_limits;
    let service = {
        let (worker, pace) = (Arc::clone(&worker), Arc::clone(&pace));
        service_fn(move |request: Request<Incoming>| {
            let (worker, peer, in_flight) =
                (Arc::clone(&worker), Arc::clone(&peer), Pace::begin(&pace));
            async move {
                let response: Response<Body> = worker.serve(request, &peer).await;
                Ok::<_, Infallible>(response.map(|body| Tracked {
                    body,
                    _in_flight: in_flight,
                }))
            }
        })
    };
    let drain = &worker.gateway.drain;
    if h2 {
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(H2_STREAMS)
            .max_header_list_size(u32::try_from(limits.bytes).unwrap_or(u32::MAX))
            .serve_connection(TokioIo::new(io), service);
        let mut connection = Box::pin(connection);
        tokio::select! {
            _ = connection.as_mut() => return,
            () = pace.expired() => return,
            () = drain.begun() => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            _ = connection => {}
            () = pace.expired() => {}
            () = drain.over() => {}
        }
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        // Head and small body go out in one buffer.
        builder.writev(false).max_buf_size(limits.bytes);
        if limits.fields != HYPER_FIELDS {
            builder.max_headers(limits.fields);
        }
        let mut connection = Box::pin(
            builder
                .serve_connection(TokioIo::new(io), service)
                .with_upgrades(),
        );
        tokio::select! {
            _ = connection.as_mut() => return,
            () = pace.expired() => return,
            () = drain.begun() => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            _ = connection => {}
            () = pace.expired() => {}
            () = drain.over() => {}
        }
    }
}

/// With its own number of fields hyper parses on the stack.
const HYPER_FIELDS: usize = 100;

/// How large a head may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    pub(crate) bytes: usize,
    pub(crate) fields: usize,
}

/// Not blocked.
const FLOWING: u64 = u64::MAX;

/// The deadlines of a connection: at rest, and while its client takes nothing.
struct Pace {
    start: Instant,
    deadline_micros: AtomicU64,
    active: AtomicU32,
    keep_alive: Duration,
    /// Since when the client has taken nothing, or `FLOWING`.
    blocked_micros: AtomicU64,
    body_idle: Option<Duration>,
}

impl Pace {
    fn new(timeouts: &Timeouts) -> Self {
        Self {
            start: Instant::now(),
            deadline_micros: AtomicU64::new(timeouts.head.as_micros() as u64),
            active: AtomicU32::new(0),
            keep_alive: timeouts.keep_alive,
            blocked_micros: AtomicU64::new(FLOWING),
            body_idle: timeouts.body_idle.duration(),
        }
    }

    fn at(&self, micros: u64) -> Instant {
        self.start + Duration::from_micros(micros)
    }

    fn deadline(&self) -> Instant {
        self.at(self.deadline_micros.load(Ordering::Relaxed))
    }

    fn begin(pace: &Arc<Self>) -> InFlight {
        pace.active.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(pace))
    }

    /// Notes whether the client took what was written.
    fn written(&self, blocked: bool) {
        let since = self.blocked_micros.load(Ordering::Relaxed);
        if blocked && since == FLOWING {
            let now = self.start.elapsed().as_micros() as u64;
            self.blocked_micros.store(now, Ordering::Relaxed);
        } else if !blocked && since != FLOWING {
            self.blocked_micros.store(FLOWING, Ordering::Relaxed);
        }
    }

    /// When a client that takes nothing is let go; never too early for one that does not take from now on.
    fn patience(&self) -> Option<Instant> {
        let idle = self.body_idle?;
        match self.blocked_micros.load(Ordering::Relaxed) {
            FLOWING => Some(Instant::now() + idle),
            since => Some(self.at(since) + idle),
        }
    }

    /// Resolves when the connection has rested too long, or its client has taken nothing for too long.
    async fn expired(&self) {
        let mut next = self.deadline();
        loop {
            tokio::time::sleep_until(next).await;
            let patience = self.patience();
            next = self.deadline();
            if self.active.load(Ordering::Relaxed) > 0 {
                next = Instant::now() + self.keep_alive;
            } else if next <= Instant::now() {
                return;
            }
            if let Some(patience) = patience {
                if patience <= Instant::now() {
                    return;
                }
                next = next.min(patience);
            }
        }
    }
}

/// A request under way, until its answer's last byte.
struct InFlight(Arc<Pace>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let rest = self.0.start.elapsed() + self.0.keep_alive;
        self.0
            .deadline_micros
            .store(rest.as_micros() as u64, Ordering::Relaxed);
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer's body that keeps its connection awake.
struct Tracked {
    body: Body,
    _in_flight: InFlight,
}

impl http_body::Body for Tracked {
    type Data = bytes::Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A client's byte stream.
pub(crate) struct ClientIo {
    stream: ClientStream,
    pace: Arc<Pace>,
}

enum ClientStream {
    /// In the clear.
    Plain(TcpStream),
    /// Over TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for ClientIo {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            ClientStream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            ClientStream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.stream {
            ClientStream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            ClientStream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        };
        this.pace.written(written.is_pending());
        written
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = match &mut this.stream {
            ClientStream::Plain(stream) => Pin::new(stream).poll_flush(context),
            ClientStream::Tls(stream) => Pin::new(stream).poll_flush(context),
        };
        this.pace.written(flushed.is_pending());
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            ClientStream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            ClientStream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
