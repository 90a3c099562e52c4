//! What each key has used: rates and what runs at once, for a bounded number of keys.
//!
//! Not here: which keys there are, and how much each may use (`limit`).

use std::{
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use dashmap::{DashMap, Entry as Slot};
use governor::{
    Quota, RateLimiter,
    clock::{Clock, Reference},
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};

use crate::gateway::rejection::Rejection;

/// A bucket that nobody used for so long is full again and can be forgotten.
pub(super) const FORGET_AFTER: Duration = Duration::from_secs(120);

/// One of a bounded number at once.
#[derive(Debug)]
pub(super) struct Count(Arc<AtomicUsize>);

impl Count {
    pub(super) fn take(counter: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        let taken = Self(Arc::clone(counter));
        // `taken` gives back on drop also when there were too many.
        (counter.fetch_add(1, Ordering::Relaxed) < max).then_some(taken)
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

type Rate<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// What one key has used.
pub(super) struct Bucket<C: Clock> {
    pub(super) rate: Rate<C>,
    pub(super) streams: Arc<AtomicUsize>,
    seen: AtomicU64,
    pub(super) blocked_until: AtomicU64,
}

/// Buckets by key, bounded in number.
pub(super) struct Buckets<K, C: Clock> {
    pub(super) map: DashMap<K, Arc<Bucket<C>>>,
    known: AtomicUsize,
    keys_max: usize,
    overflow: Arc<Bucket<C>>,
    quota: Quota,
    pub(super) streams_max: usize,
    pub(super) clock: C,
    start: C::Instant,
}

impl<K: Eq + Hash + Clone, C: Clock + Clone> Buckets<K, C> {
    pub(super) fn new(quota: Quota, streams_max: usize, keys_max: usize, clock: &C) -> Self {
        Self {
            map: DashMap::new(),
            known: AtomicUsize::new(0),
            keys_max,
            overflow: Arc::new(Bucket::new(quota, clock, 0)),
            quota,
            streams_max,
            start: clock.now(),
            clock: clock.clone(),
        }
    }

    /// Nanoseconds since the start.
    pub(super) fn now(&self) -> u64 {
        self.clock.now().duration_since(self.start).as_u64()
    }

    pub(super) fn peek(&self, key: &K) -> Option<Arc<Bucket<C>>> {
        self.map.get(key).map(|bucket| Arc::clone(&bucket))
    }

    pub(super) fn bucket(&self, key: &K) -> Arc<Bucket<C>> {
        let now = self.now();
        if let Some(bucket) = self.peek(key) {
            bucket.seen.store(now, Ordering::Relaxed);
            return bucket;
        }
        if self.known.fetch_add(1, Ordering::Relaxed) >= self.keys_max {
            self.known.fetch_sub(1, Ordering::Relaxed);
            return Arc::clone(&self.overflow);
        }
        match self.map.entry(key.clone()) {
            Slot::Occupied(slot) => {
                self.known.fetch_sub(1, Ordering::Relaxed);
                Arc::clone(slot.get())
            }
            Slot::Vacant(slot) => {
                let bucket = Arc::new(Bucket::new(self.quota, &self.clock, now));
                slot.insert(Arc::clone(&bucket));
                bucket
            }
        }
    }

    pub(super) fn limited(&self, wait: Duration) -> Rejection {
        let per_second = 1_000_000_000 / self.quota.replenish_interval().as_nanos().max(1);
        Rejection::RateLimited {
            retry_after: wait,
            limit: u32::try_from(per_second.max(1)).unwrap_or(u32::MAX),
        }
    }

    pub(super) fn sweep(&self) {
        let now = self.now();
        let forget = FORGET_AFTER.as_nanos() as u64;
        self.map.retain(|_, bucket| {
            let keep = bucket.streams.load(Ordering::Relaxed) > 0
                || now.saturating_sub(bucket.seen.load(Ordering::Relaxed)) < forget;
            if !keep {
                self.known.fetch_sub(1, Ordering::Relaxed);
            }
            keep
        });
    }
}

impl<C: Clock + Clone> Bucket<C> {
    fn new(quota: Quota, clock: &C, now: u64) -> Self {
        Self {
            rate: RateLimiter::direct_with_clock(quota, clock.clone()),
            streams: Arc::default(),
            seen: AtomicU64::new(now),
            blocked_until: AtomicU64::new(0),
        }
    }
}
