//! The deadlines of one client connection: at rest, and while its client takes nothing.
//!
//! They are moved lazily: a request costs two atomic writes, no timer. A client that takes nothing of its answers for
//! `body_idle` is let go.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use super::stall;
use crate::{config::Timeouts, gateway::forward::Body};

/// Not blocked.
const FLOWING: u64 = u64::MAX;

/// The deadlines of a connection: at rest, and while its client takes nothing.
pub(super) struct Pace {
    start: Instant,
    deadline_micros: AtomicU64,
    active: AtomicU32,
    keep_alive: Duration,
    /// Since when the client has taken nothing, or `FLOWING`.
    blocked_micros: AtomicU64,
    body_idle: Option<Duration>,
}

impl Pace {
    /// Of a connection that was accepted at `start`.
    pub(super) fn new(timeouts: &Timeouts, start: Instant) -> Self {
        Self {
            start,
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

    pub(super) fn deadline(&self) -> Instant {
        self.at(self.deadline_micros.load(Ordering::Relaxed))
    }

    pub(super) fn begin(pace: &Arc<Self>) -> InFlight {
        pace.active.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(pace))
    }

    /// Notes whether the client took what was written.
    pub(super) fn written(&self, blocked: bool) {
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
    pub(super) async fn expired(&self) {
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

/// A request under way, until its answer's last byte: so long its connection does not rest.
pub(crate) struct InFlight(Arc<Pace>);

impl Clone for InFlight {
    fn clone(&self) -> Self {
        Pace::begin(&self.0)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let rest = self.0.start.elapsed() + self.0.keep_alive;
        self.0
            .deadline_micros
            .store(rest.as_micros() as u64, Ordering::Relaxed);
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl InFlight {
    /// Of a connection that is nowhere.
    pub(crate) fn nowhere() -> Self {
        Pace::begin(&Arc::new(Pace::new(&Timeouts::default(), Instant::now())))
    }
}

/// An answer's body that keeps its connection awake.
pub(super) struct Tracked {
    body: Body,
    _in_flight: InFlight,
}

impl Tracked {
    pub(super) fn new(body: Body, in_flight: InFlight) -> Self {
        Self {
            body,
            _in_flight: in_flight,
        }
    }
}

impl http_body::Body for Tracked {
    type Data = bytes::Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        stall::note(matches!(polled, Poll::Ready(Some(Ok(_)))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
