//! Connections of HTTP/2: how they are set up against a hostile other end, and how many streams they carry.
//!
//! What the other end may make us keep is bounded: heads by `max_header_list_size`, bodies by the window of each stream (the
//! connection's window is that of all its streams, so a slow client cannot starve the others), resets by counters of h2. A
//! connection that dies without a word is found by TCP (`connect`), an end that hangs by the deadlines of each request, and at
//! last by a ping while a stream is open (RFC 9113 §6.7).

use std::{
    error::Error as _,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::gateway::{
    forward::{
        body::RequestBody,
        connect::{Heard, UpstreamIo},
    },
    route::Target,
};

/// Streams of one connection at once, if the other end takes as many.
const STREAMS: u32 = 100;
/// What one stream may send ahead of its client.
const STREAM_WINDOW: u32 = 128 * 1024;
/// What one stream keeps that the other end does not take.
const SEND_BUFFER: usize = 128 * 1024;
/// The head of an answer, and its trailers, as HPACK counts them.
const HEAD_MAX: u32 = 64 * 1024;
/// Without a byte for so long while a stream is open, the other end is asked whether it is there. Servers of gRPC end a
/// connection on which they are asked more than once in five minutes (its keep-alive specification, A8).
const PING_AFTER: Duration = Duration::from_secs(330);
/// How long its answer may take.
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// How connections are set up; everything of one runs in tasks that end with its target.
pub(super) fn builder(fence: CancellationToken) -> Builder<Fenced> {
    let mut builder = Builder::new(Fenced(fence));
    builder
        .timer(TokioTimer::new())
        // None before the other end has said how many.
        .initial_max_send_streams(0)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAMS * STREAM_WINDOW)
        .max_header_list_size(HEAD_MAX)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PONG_WITHIN)
        .keep_alive_while_idle(false);
    builder
}

/// Runs tasks until the fence: then not one more byte, whoever has the address now.
#[derive(Clone)]
pub(super) struct Fenced(CancellationToken);

impl<F> hyper::rt::Executor<F> for Fenced
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let fence = self.0.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = fence.cancelled() => {}
                () = task => {}
            }
        });
    }
}

/// A connection that serves many requests.
pub(super) struct Shared {
    sender: SendRequest<RequestBody>,
    heard: Heard,
    streams: Arc<Streams>,
}

/// Its streams.
pub(super) struct Streams {
    active: AtomicUsize,
    /// How many the other end takes; 0: it has not said.
    most: AtomicUsize,
    settled: Notify,
    used: AtomicBool,
    /// It takes no more requests.
    ended: AtomicBool,
    /// Since when nobody uses it.
    rest: std::sync::Mutex<Instant>,
}

/// Whether a connection has room.
pub(super) enum Room {
    Yes(SendRequest<RequestBody>, Heard, Stream),
    NotYet(Arc<Streams>),
}

/// The place of one request on a connection.
pub(super) struct Stream {
    streams: Arc<Streams>,
    target: Arc<Target>,
}

impl Shared {
    /// Takes a connection that was just made, whose first stream is the caller's.
    pub(super) fn start(
        sender: SendRequest<RequestBody>,
        connection: Connection<TokioIo<UpstreamIo>, RequestBody, Fenced>,
        heard: Heard,
        target: &Arc<Target>,
    ) -> Self {
        let streams = Arc::new(Streams {
            active: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            settled: Notify::new(),
            used: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            rest: std::sync::Mutex::new(Instant::now()),
        });
        let fence = target.fenced().clone();
        tokio::spawn(drive(connection, Arc::clone(&streams), fence));
        Self {
            sender,
            heard,
            streams,
        }
    }

    /// A place on it, if there is one.
    pub(super) fn room(&self, target: &Arc<Target>) -> Option<Room> {
        let streams = &self.streams;
        let most = match streams.most.load(Ordering::Relaxed) {
            0 if streams.used.load(Ordering::Relaxed) => {
                return Some(Room::NotYet(Arc::clone(streams)));
            }
            0 => 1,
            most => most.min(STREAMS as usize),
        };
        let taken = streams
            .active
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |active| {
                (active < most).then_some(active + 1)
            });
        taken.ok()?;
        streams.used.store(true, Ordering::Relaxed);
        let stream = Stream {
            streams: Arc::clone(streams),
            target: Arc::clone(target),
        };
        Some(Room::Yes(self.sender.clone(), self.heard.clone(), stream))
    }

    /// Whether it has ended, or takes no more requests.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed() || self.streams.ended.load(Ordering::Relaxed)
    }

    /// Whether it is to be kept: somebody uses it, or did not long ago.
    pub(super) fn is_wanted(&self, ttl: Duration) -> bool {
        let in_use = self.streams.active.load(Ordering::SeqCst) > 0;
        !self.is_closed() && (in_use || super::lock(&self.streams.rest).elapsed() < ttl)
    }
}

impl Streams {
    /// Resolves when the other end has said how many streams it takes, or is gone.
    pub(super) async fn settled(&self) {
        let mut settled = std::pin::pin!(self.settled.notified());
        settled.as_mut().enable();
        if self.most.load(Ordering::Relaxed) == 0 && !self.ended.load(Ordering::Relaxed) {
            settled.await;
        }
    }
}

impl Stream {
    /// The other end has fallen silent: whoever is on the connection may wait for it, nobody else is sent there.
    pub(super) fn retire(&self) {
        self.streams.ended.store(true, Ordering::Relaxed);
        self.streams.settled.notify_waiters();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.streams.active.fetch_sub(1, Ordering::SeqCst) == 1 {
            *super::lock(&self.streams.rest) = Instant::now();
        }
        self.target.reach.freed();
    }
}

/// Drives a connection and notes how many streams the other end takes.
async fn drive(
    mut connection: Connection<TokioIo<UpstreamIo>, RequestBody, Fenced>,
    streams: Arc<Streams>,
    fence: CancellationToken,
) {
    let driven = poll_fn(|context| {
        let polled = Pin::new(&mut connection).poll(context);
        let most = connection.current_max_send_streams();
        if streams.most.swap(most, Ordering::Relaxed) != most {
            streams.settled.notify_waiters();
        }
        polled
    });
    tokio::select! {
        biased;
        () = fence.cancelled() => {}
        // The requests on it tell what went wrong.
        _ = driven => {}
    }
    streams.ended.store(true, Ordering::Relaxed);
    streams.settled.notify_waiters();
}

/// Whether a failure says that the request was not looked at (RFC 9113 §8.7), or that the connection ended without a word of it.
pub(super) fn is_unprocessed(error: &hyper::Error) -> bool {
    match of_h2(error) {
        Some(error) => {
            error.reason() == Some(h2::Reason::REFUSED_STREAM)
                || error.is_io()
                || (error.is_go_away() && error.is_remote())
        }
        // `is_user`: the connection ended while the request waited for its turn.
        None => error.is_closed() || error.is_canceled() || error.is_timeout() || error.is_user(),
    }
}

/// Whether our side gave the stream up, as it does when the body that it sends fails.
pub(super) fn is_reset_by_us(error: &hyper::Error) -> bool {
    of_h2(error).is_some_and(|error| error.is_reset() && !error.is_remote() && !error.is_library())
}

fn of_h2(error: &hyper::Error) -> Option<&h2::Error> {
    error.source().and_then(|error| error.downcast_ref())
}
