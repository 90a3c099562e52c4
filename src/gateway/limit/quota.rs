//! Rates: so many in a window, some of them at once, by the generic cell rate algorithm (GCRA).
//!
//! A quota can change while it is used, and is apart from what was used of it, which is one number: the time at which all of it
//! will have come back. So a change counts for every key with the next request.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use crate::gateway::rejection::{Policy, Rejection};

/// How many may come.
pub(super) struct Quota {
    window: Duration,
    number: AtomicU32,
    /// Nanoseconds until one comes back.
    interval: AtomicU64,
    burst: AtomicU32,
}

impl Quota {
    /// So many in a window of so long. Nothing may come until it is set.
    pub(super) fn new(window: Duration) -> Self {
        Self {
            window,
            number: AtomicU32::new(0),
            interval: AtomicU64::new(0),
            burst: AtomicU32::new(0),
        }
    }

    /// From now on.
    pub(super) fn set(&self, number: NonZeroU32, burst: NonZeroU32) {
        let interval = self.window.as_nanos() as u64 / u64::from(number.get());
        self.number.store(number.get(), Ordering::Relaxed);
        self.interval.store(interval.max(1), Ordering::Relaxed);
        self.burst.store(burst.get(), Ordering::Relaxed);
    }

    /// When all has come back of who uses all of it now.
    fn whole(&self, now: u64) -> u64 {
        let interval = self.interval.load(Ordering::Relaxed);
        let burst = self.burst.load(Ordering::Relaxed);
        now.saturating_add(interval.saturating_mul(burst.into()))
    }

    /// What is told when it refuses.
    pub(super) fn refusal(&self, policy: Policy, wait: Duration) -> Rejection {
        Rejection::RateLimited {
            policy,
            limit: self.number.load(Ordering::Relaxed),
            window: self.window,
            retry_after: wait,
        }
    }
}

/// What was used of a quota: when all of it will have come back, in nanoseconds.
#[derive(Default)]
pub(super) struct Used(AtomicU64);

impl Used {
    /// Takes one, or says when one will be there.
    pub(super) fn take(&self, quota: &Quota, now: u64) -> Result<(), Duration> {
        self.fit(quota, now);
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |until| {
                next(until, quota, now).ok()
            });
        match taken {
            Ok(_) => Ok(()),
            Err(until) => next(until, quota, now).map(|_| ()),
        }
    }

    /// Whether one is there.
    pub(super) fn peek(&self, quota: &Quota, now: u64) -> Result<(), Duration> {
        self.fit(quota, now);
        next(self.0.load(Ordering::Relaxed), quota, now).map(|_| ())
    }

    /// How long until all of it has come back, in nanoseconds.
    pub(super) fn left(&self, now: u64) -> u64 {
        self.0.load(Ordering::Relaxed).saturating_sub(now)
    }

    /// All of it will have come back then, and not before.
    pub(super) fn raise(&self, until: u64) {
        self.0.fetch_max(until, Ordering::Relaxed);
    }

    /// Whether all of it has come back.
    pub(super) fn is_nothing(&self, now: u64) -> bool {
        self.0.load(Ordering::Relaxed) <= now
    }

    /// Who has used more than all of it did so under another quota, and begins under this one with one that is there.
    fn fit(&self, quota: &Quota, now: u64) {
        let most = quota.whole(now);
        if self.0.load(Ordering::Relaxed) > most {
            let one = quota.interval.load(Ordering::Relaxed);
            self.0
                .fetch_min(most.saturating_sub(one), Ordering::Relaxed);
        }
    }
}

/// When all has come back after one more, or how long until there is one.
fn next(until: u64, quota: &Quota, now: u64) -> Result<u64, Duration> {
    let interval = quota.interval.load(Ordering::Relaxed);
    let next = until.max(now).saturating_add(interval);
    match next.checked_sub(quota.whole(now)) {
        None | Some(0) => Ok(next),
        Some(wait) => Err(Duration::from_nanos(wait)),
    }
}

#[cfg(test)]
mod tests {
    use governor::{Quota as Known, RateLimiter, clock::FakeRelativeClock};
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn quota(number: u32, burst: u32) -> Quota {
        let quota = Quota::new(SECOND);
        set(&quota, number, burst);
        quota
    }

    fn set(quota: &Quota, number: u32, burst: u32) {
        let some = |n| NonZeroU32::new(n).unwrap();
        quota.set(some(number), some(burst));
    }

    proptest! {
        #[test]
        fn it_decides_as_a_known_one_does(
            number in 1u32..5_000,
            burst in 1u32..50,
            pauses in prop::collection::vec(0u64..3_000_000, 1..200),
        ) {
            let ours = (quota(number, burst), Used::default());
            let known = Known::per_second(NonZeroU32::new(number).unwrap())
                .allow_burst(NonZeroU32::new(burst).unwrap());
            let clock = FakeRelativeClock::default();
            let known = RateLimiter::direct_with_clock(known, clock.clone());
            let mut now = 0;
            for pause in pauses {
                now += pause;
                clock.advance(Duration::from_nanos(pause));
                prop_assert_eq!(ours.1.take(&ours.0, now).is_ok(), known.check().is_ok());
            }
        }
    }

    #[test]
    fn who_waits_as_long_as_told_gets_one_and_not_sooner() {
        let quota = quota(3, 2);
        let used = Used::default();
        for _ in 0..2 {
            used.take(&quota, 0).unwrap();
        }
        let wait = used.take(&quota, 0).unwrap_err().as_nanos() as u64;
        assert_eq!(used.peek(&quota, 0).unwrap_err().as_nanos() as u64, wait);
        used.take(&quota, wait - 1).unwrap_err();
        used.take(&quota, wait).unwrap();
        assert!(!used.is_nothing(wait));
        assert!(used.is_nothing(wait + 2 * 333_333_333));
    }

    #[test]
    fn a_change_counts_at_once_in_both_directions() {
        let quota = quota(1, 100);
        let used = Used::default();
        for _ in 0..100 {
            used.take(&quota, 0).unwrap();
        }
        set(&quota, 1_000, 2_000);
        used.take(&quota, 0).unwrap();
        let wait = used.take(&quota, 0).unwrap_err();
        assert_eq!(wait, Duration::from_millis(1));
        used.take(&quota, 1_000_000).unwrap();
        set(&quota, 1, 1);
        used.take(&quota, 1_000_000).unwrap();
        assert_eq!(used.take(&quota, 1_000_000).unwrap_err(), SECOND);
    }
}
