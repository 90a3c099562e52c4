//! Whether routes of the feed may still be used, by the gateway's monotonic clock.
//!
//! Every answer that is taken renews the lease. It does not outlive the process: one that starts without its control plane has
//! none, since nobody can tell how long the machine was off.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    config::FailMode,
    gateway::{rejection::Rejection, route::Source},
};

/// A longer lease than this is none.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    start: Instant,
    until_millis: AtomicU64,
    closes: bool,
    /// Whether there is a feed to follow.
    followed: bool,
    /// Whether routes of it are known: by an answer, or from the disk.
    known: AtomicBool,
}

/// Why the feed's routes cannot be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lack {
    /// There was no answer, and nothing was kept from before.
    NeverAnswered,
    /// The lease has run out, and that closes them.
    Stale,
}

impl Lease {
    /// Without an answer so far. `followed`: there is a control plane that will answer.
    pub(crate) fn new(mode: FailMode, followed: bool) -> Self {
        let inner = Inner {
            start: Instant::now(),
            until_millis: AtomicU64::new(0),
            closes: mode == FailMode::Closed,
            followed,
            known: AtomicBool::new(false),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// It holds for so many seconds from now on.
    pub(super) fn renew(&self, seconds: u64) {
        let lease = Duration::from_secs(seconds).min(LONGEST);
        let until = self.inner.start.elapsed() + lease;
        self.inner
            .until_millis
            .store(until.as_millis() as u64, Ordering::Relaxed);
        self.restored();
    }

    /// Routes are known, those of an earlier run at least.
    pub(crate) fn restored(&self) {
        self.inner.known.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        let inner = &self.inner;
        inner.start.elapsed().as_millis() as u64 > inner.until_millis.load(Ordering::Relaxed)
    }

    /// Why the feed's routes cannot be relied on now, if they cannot.
    pub(crate) fn lacks(&self) -> Option<Lack> {
        let inner = &self.inner;
        if !inner.followed {
            None
        } else if !inner.known.load(Ordering::Relaxed) {
            Some(Lack::NeverAnswered)
        } else {
            (inner.closes && self.is_over()).then_some(Lack::Stale)
        }
    }

    /// Whether a route of this source may be used now.
    pub(crate) fn fresh(&self, source: Source) -> Result<(), Rejection> {
        let stale = self.inner.closes && source == Source::Feed && self.is_over();
        if stale {
            Err(Rejection::ControlPlaneStale)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_lease_is_too_long_to_count() {
        let lease = Lease::new(FailMode::Closed, true);
        assert_eq!(lease.lacks(), Some(Lack::NeverAnswered));
        lease.restored();
        // A millisecond after it was made.
        while lease.lacks() != Some(Lack::Stale) {
            std::thread::yield_now();
        }
        assert!(lease.fresh(Source::Feed).is_err());
        assert!(lease.fresh(Source::Config).is_ok());
        lease.renew(u64::MAX);
        assert_eq!(lease.lacks(), None);
        assert!(lease.fresh(Source::Feed).is_ok());
    }
}
