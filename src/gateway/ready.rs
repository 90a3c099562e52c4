//! Ready: whether this gateway should get traffic now, and if not, why.
//!
//! Asked by `GET /readyz` (`admin`). Beside the path: no request looks here.
//!
//! Not here: whether the process is alive at all (`/healthz`), what a single request is told.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde::Serialize;

use super::{Gateway, route::feed::Lack};

/// What runs of what should run.
#[derive(Debug)]
pub(crate) struct Running {
    workers: usize,
    running: Arc<AtomicUsize>,
    listening: Arc<AtomicUsize>,
}

/// Something runs for as long as this lives.
pub(crate) struct Runs(Arc<AtomicUsize>);

impl Runs {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Running {
    /// Of so many workers none runs yet.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            running: Arc::default(),
            listening: Arc::default(),
        }
    }

    /// A worker runs.
    pub(crate) fn worker(&self) -> Runs {
        Runs::new(&self.running)
    }

    /// A worker accepts on one of its listeners.
    pub(crate) fn listener(&self) -> Runs {
        Runs::new(&self.listening)
    }
}

/// Why a gateway should get no traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Draining,
    Workers,
    Listener,
    Feed(Lack),
}

impl Why {
    fn reason(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Workers => "workers-not-running",
            Self::Listener => "no-listener",
            Self::Feed(Lack::NeverAnswered) => "feed-never-answered",
            Self::Feed(Lack::Stale) => "feed-stale",
        }
    }

    fn detail(self) -> &'static str {
        match self {
            Self::Draining => "the gateway is stopping and accepts nothing new",
            Self::Workers => {
                "not all threads of the data path run; if it lasts, the operating log says why"
            }
            Self::Listener => {
                "nothing accepts connections; if it lasts, the operating log says why"
            }
            Self::Feed(Lack::NeverAnswered) => {
                "the control plane has not answered and no routes were kept; see `gateway.control_plane`"
            }
            Self::Feed(Lack::Stale) => {
                "the control plane was silent for longer than its lease, and `gateway.control_plane.fail_mode` is \"closed\""
            }
        }
    }
}

/// The answer to whoever asks.
#[derive(Debug, Serialize)]
pub(crate) struct Readiness {
    /// Whether traffic should come.
    pub(crate) ready: bool,
    reasons: Vec<Reason>,
}

#[derive(Debug, Serialize)]
struct Reason {
    reason: &'static str,
    detail: &'static str,
}

impl Gateway {
    /// Whether it should get traffic now.
    pub(crate) fn readiness(&self) -> Readiness {
        let reasons: Vec<_> = self
            .why_not_ready()
            .into_iter()
            .map(|why| Reason {
                reason: why.reason(),
                detail: why.detail(),
            })
            .collect();
        Readiness {
            ready: reasons.is_empty(),
            reasons,
        }
    }

    /// The reasons why it should get no traffic.
    pub(crate) fn lacks(&self) -> Vec<&'static str> {
        self.why_not_ready().into_iter().map(Why::reason).collect()
    }

    fn why_not_ready(&self) -> Vec<Why> {
        if self.drain.has_begun() || self.drain.is_handed_over() {
            // All else follows from it.
            return vec![Why::Draining];
        }
        let runs = &self.running;
        let lacks = |count: &AtomicUsize, least| count.load(Ordering::Relaxed) < least;
        [
            lacks(&runs.running, runs.workers).then_some(Why::Workers),
            lacks(&runs.listening, 1).then_some(Why::Listener),
            self.feed.lacks().map(Why::Feed),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
