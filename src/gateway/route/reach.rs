//! What the workers share of reaching a target: how many connections it has, and whether connecting to it succeeds.
//!
//! Counters only: no lock is taken, and nothing here is touched by a request that finds a connection at rest. A waiting
//! request is woken when a connection ends or is given back.
//!
//! Not here: the connections themselves (`forward::pool`).

use std::{
    io,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, futures::Notified};

use super::Target;

/// After so many failures in a row connecting is not tried for everybody any more.
const FAILURES: u32 = 5;
/// After a failure, so long until the next try.
const PAUSE: Duration = Duration::from_millis(500);
/// How often a target is asked at the most whether it speaks TLS.
const TLS_PAUSE: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    connections: AtomicUsize,
    waiting: AtomicUsize,
    freed: Notify,
    failures: AtomicU32,
    /// Whether the last failure was that nothing listens there.
    refused: AtomicBool,
    /// Whether it speaks TLS where nobody expects it, and when that may be asked again.
    tls: AtomicBool,
    next_tls: AtomicU64,
    /// When the next try may be, in milliseconds of this process's clock.
    next_try: AtomicU64,
}

/// Connecting failed so often that it is not tried now.
#[derive(Debug, thiserror::Error)]
#[error("the last {FAILURES} attempts to connect failed; the next one is made shortly")]
pub(crate) struct Unwell {
    refused: bool,
}

impl From<Unwell> for io::Error {
    fn from(unwell: Unwell) -> Self {
        let kind = match unwell.refused {
            true => io::ErrorKind::ConnectionRefused,
            false => io::ErrorKind::Other,
        };
        Self::new(kind, unwell)
    }
}

impl Reach {
    /// Whether a connection may be tried now, which takes at most `within`. While the target does not answer, one at a time.
    pub(crate) fn may_try(&self, within: Duration) -> Result<(), Unwell> {
        if self.failures.load(Ordering::Relaxed) < FAILURES {
            return Ok(());
        }
        let (now, next) = (now(), self.next_try.load(Ordering::Relaxed));
        let busy = now + within.as_millis() as u64;
        let mine = now >= next
            && self
                .next_try
                .compare_exchange(next, busy, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        match mine {
            true => Ok(()),
            false => Err(Unwell {
                refused: self.refused.load(Ordering::Relaxed),
            }),
        }
    }

    /// It was reached.
    pub(crate) fn succeeded(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    /// It was not; `refused`: because nothing listens there.
    pub(crate) fn failed(&self, refused: bool) {
        self.refused.store(refused, Ordering::Relaxed);
        self.next_try
            .store(now() + PAUSE.as_millis() as u64, Ordering::Relaxed);
        // Far below an overflow: while it counts so many, two tries a second are made.
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether it may be asked now whether it speaks TLS: one asks, and not for a while again.
    pub(crate) fn may_ask_for_tls(&self) -> bool {
        let (now, next) = (now(), self.next_tls.load(Ordering::Relaxed));
        let later = now + TLS_PAUSE.as_millis() as u64;
        now >= next
            && self
                .next_tls
                .compare_exchange(next, later, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Whether it did.
    pub(crate) fn speaks_tls(&self, does: bool) {
        self.tls.store(does, Ordering::Relaxed);
    }

    /// Whether it did when it was asked last.
    pub(crate) fn is_known_to_speak_tls(&self) -> bool {
        self.tls.load(Ordering::Relaxed)
    }

    /// Somebody may go on: a connection ended, or has room.
    pub(crate) fn freed(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_one();
        }
    }

    /// Everybody may look again: a connection for many has come up.
    pub(crate) fn opened(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_waiters();
        }
    }

    /// Says that somebody waits, for as long as the value lives.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Waiting(self)
    }
}

/// Somebody who waits for a connection.
pub(crate) struct Waiting<'a>(&'a Reach);

impl Waiting<'_> {
    /// Resolves when there may be one.
    pub(crate) fn freed(&self) -> Notified<'_> {
        self.0.freed.notified()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        // A wake-up that came too late for this one is the next one's.
        self.0.freed();
    }
}

/// The place of one connection among those that a target may have, until it ends.
#[derive(Debug)]
pub(crate) struct Seat(Arc<Target>);

impl Seat {
    /// A place, if one of `most` is left.
    pub(crate) fn take(target: &Arc<Target>, most: usize) -> Option<Self> {
        let taken = target.reach.connections.fetch_update(
            Ordering::SeqCst,
            Ordering::SeqCst,
            |connections| (connections < most).then_some(connections + 1),
        );
        taken.ok().map(|_| Self(Arc::clone(target)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.reach.connections.fetch_sub(1, Ordering::SeqCst);
        self.0.reach.freed();
    }
}

fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::route::Protocol, gateway::route::Address};

    fn target() -> Arc<Target> {
        Arc::new(Target::new(None, Address::Nowhere, Protocol::Http, None))
    }

    #[test]
    fn a_target_has_so_many_seats_and_no_more() {
        let target = target();
        let first = Seat::take(&target, 2).unwrap();
        let _second = Seat::take(&target, 2).unwrap();
        assert!(Seat::take(&target, 2).is_none());
        drop(first);
        assert!(Seat::take(&target, 2).is_some());
    }

    #[test]
    fn after_failures_one_probes_and_the_rest_fail_fast() {
        let reach = Reach::default();
        for _ in 0..FAILURES {
            reach.may_try(PAUSE).unwrap();
            reach.failed(false);
        }
        assert!(reach.may_try(PAUSE).is_err());
        reach.next_try.store(0, Ordering::Relaxed);
        assert!(reach.may_try(PAUSE).is_ok(), "the probe");
        assert!(reach.may_try(PAUSE).is_err(), "only one");
        reach.succeeded();
        assert!(reach.may_try(PAUSE).is_ok());
    }
}
