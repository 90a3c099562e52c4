//! What each key has used: rates, what runs at once, bytes, for a bounded number of keys.
//!
//! Who is swept away was quiet for a while, has nothing under way and has all of its rates back. The sweep holds one small part
//! of the table at a time.
//!
//! Not here: which keys there are, and how much each may use (`limit`).

use std::{
    borrow::Borrow,
    fmt,
    hash::Hash,
    ops::Deref,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use dashmap::{DashMap, Entry as Slot};
use tokio::time::Instant;

use super::{
    bytes::{Meter, Way},
    quota::{Quota, Used},
};
use crate::{
    config::{Allowed, Scope, twice},
    gateway::rejection::{Policy, Rejection},
};

/// Who was quiet for so long can be forgotten.
pub(super) const FORGET_AFTER: Duration = Duration::from_secs(120);
/// Parts of a table, each with its own lock. Full, one has less than a thousand keys, so that a sweep holds it for some
/// microseconds.
const PARTS: usize = 128;

/// What each key of a kind may use, now.
pub(super) struct Allowance {
    scope: Scope,
    pub(super) requests: Quota,
    new_streams: Quota,
    at_once: AtomicUsize,
    /// Bytes per second, each way; 0: as many as there are.
    bytes: AtomicU64,
    /// From when the time of bytes is counted.
    start: Instant,
}

impl Allowance {
    pub(super) fn new(scope: Scope, window: Duration) -> Self {
        Self {
            scope,
            requests: Quota::new(window),
            new_streams: Quota::new(Duration::from_secs(1)),
            at_once: AtomicUsize::new(usize::MAX),
            bytes: AtomicU64::new(0),
            start: Instant::now(),
        }
    }

    pub(super) fn set(&self, allowed: Allowed) {
        self.requests.set(allowed.requests, allowed.burst);
        let streams = allowed.new_streams;
        self.new_streams.set(streams, twice(streams));
        self.at_once.store(allowed.streams, Ordering::Relaxed);
        let bytes = allowed.bytes.map_or(0, u64::from);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Bytes per second, each way; 0: as many as there are.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Nanoseconds, as bytes count them.
    pub(super) fn elapsed(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}

/// What one key has used.
pub(crate) struct Bucket {
    pub(super) allowance: Arc<Allowance>,
    pub(super) requests: Used,
    pub(super) new_streams: Used,
    pub(super) at_once: AtomicUsize,
    /// What runs at once in other processes, while they hand over.
    pub(super) elsewhere: AtomicUsize,
    seen: AtomicU64,
    /// Made when the first byte is counted: most gateways count none.
    meters: OnceLock<Box<[Meter; 2]>>,
}

impl Bucket {
    fn new(allowance: &Arc<Allowance>, now: u64) -> Self {
        Self {
            allowance: Arc::clone(allowance),
            requests: Used::default(),
            new_streams: Used::default(),
            at_once: AtomicUsize::new(0),
            elsewhere: AtomicUsize::new(0),
            seen: AtomicU64::new(now),
            meters: OnceLock::new(),
        }
    }

    /// One more request, and stream if it is one, until what is given back is dropped.
    pub(super) fn enter(self: Arc<Self>, now: u64, stream: bool) -> Result<Held, Rejection> {
        let allowance = &self.allowance;
        let scope = allowance.scope;
        self.requests
            .take(&allowance.requests, now)
            .map_err(|wait| allowance.requests.refusal(Policy::Requests(scope), wait))?;
        if stream {
            let quota = &allowance.new_streams;
            let taken = self.new_streams.take(quota, now);
            taken.map_err(|wait| quota.refusal(Policy::NewStreams(scope), wait))?;
        }
        let limit = allowance.at_once.load(Ordering::Relaxed);
        let elsewhere = self.elsewhere.load(Ordering::Relaxed);
        let policy = Policy::Streams(scope);
        // What is held is given back also when there were too many.
        match self.at_once.fetch_add(1, Ordering::Relaxed) < limit.saturating_sub(elsewhere) {
            true => Ok(Held(self)),
            false => {
                drop(Held(self));
                Err(Rejection::TooManyStreams { policy, limit })
            }
        }
    }

    /// What it has used of its bytes in one direction.
    pub(super) fn meter(&self, way: Way) -> &Meter {
        let [up, down] = &**self.meters.get_or_init(Box::default);
        match way {
            Way::Up => up,
            Way::Down => down,
        }
    }

    fn can_be_forgotten(&self, now: u64) -> bool {
        let quiet = now.saturating_sub(self.seen.load(Ordering::Relaxed));
        quiet >= FORGET_AFTER.as_nanos() as u64
            && self.elsewhere.load(Ordering::Relaxed) == 0
            && self.requests.is_nothing(now)
            && self.new_streams.is_nothing(now)
    }
}

/// One of a bounded number at once of one key.
pub(crate) struct Held(Arc<Bucket>);

impl Held {
    pub(super) fn bucket(&self) -> &Arc<Bucket> {
        &self.0
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}

impl Deref for Held {
    type Target = Bucket;

    fn deref(&self) -> &Bucket {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.at_once.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Buckets by key, bounded in number.
pub(super) struct Buckets<K> {
    pub(super) map: DashMap<K, Arc<Bucket>>,
    pub(super) allowance: Arc<Allowance>,
    known: AtomicUsize,
    keys_max: AtomicUsize,
    overflow: Arc<Bucket>,
}

impl<K: Eq + Hash> Buckets<K> {
    /// With nothing allowed and nobody known until both are set.
    pub(super) fn new(scope: Scope, window: Duration) -> Self {
        let allowance = Arc::new(Allowance::new(scope, window));
        Self {
            map: DashMap::with_shard_amount(PARTS),
            known: AtomicUsize::new(0),
            keys_max: AtomicUsize::new(0),
            overflow: Arc::new(Bucket::new(&allowance, 0)),
            allowance,
        }
    }

    /// From now on. Those who are known stay.
    pub(super) fn set(&self, allowed: Allowed, keys_max: usize) {
        self.allowance.set(allowed);
        self.keys_max.store(keys_max, Ordering::Relaxed);
    }

    /// The bucket of a key, if it was seen.
    pub(super) fn known<Q>(&self, key: &Q) -> Option<Arc<Bucket>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.map.get(key).map(|bucket| Arc::clone(&bucket))
    }

    /// The bucket of a key; beyond so many keys, the one that all others share.
    pub(super) fn bucket<Q>(&self, key: &Q, now: u64, own: impl FnOnce() -> K) -> Arc<Bucket>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if let Some(bucket) = self.known(key) {
            bucket.seen.store(now, Ordering::Relaxed);
            return bucket;
        }
        if self.known.fetch_add(1, Ordering::Relaxed) >= self.keys_max.load(Ordering::Relaxed) {
            self.known.fetch_sub(1, Ordering::Relaxed);
            return Arc::clone(&self.overflow);
        }
        match self.map.entry(own()) {
            Slot::Occupied(slot) => {
                self.known.fetch_sub(1, Ordering::Relaxed);
                Arc::clone(slot.get())
            }
            Slot::Vacant(slot) => {
                let bucket = Arc::new(Bucket::new(&self.allowance, now));
                slot.insert(Arc::clone(&bucket));
                bucket
            }
        }
    }

    pub(super) fn sweep(&self, now: u64) {
        self.map.retain(|_, bucket| {
            // Nobody else has it, and nobody can take it meanwhile: this part of the table is locked.
            let gone = Arc::strong_count(bucket) == 1 && bucket.can_be_forgotten(now);
            if gone {
                self.known.fetch_sub(1, Ordering::Relaxed);
            }
            !gone
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, sync::atomic::AtomicBool};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn buckets(allowed: Allowed, keys: usize) -> Buckets<Arc<str>> {
        let buckets = Buckets::new(Scope::Principal, Duration::from_secs(1));
        buckets.set(allowed, keys);
        buckets
    }

    fn allowed(requests: u32, burst: u32, streams: usize) -> Allowed {
        let some = |n| NonZeroU32::new(n).unwrap();
        Allowed {
            requests: some(requests),
            burst: some(burst),
            new_streams: some(1),
            streams,
            bytes: None,
        }
    }

    fn bucket(buckets: &Buckets<Arc<str>>, key: &str, now: u64) -> Arc<Bucket> {
        buckets.bucket(key, now, || key.into())
    }

    #[test]
    fn who_has_something_under_way_or_not_all_back_is_not_forgotten() {
        let buckets = buckets(allowed(1, 300, 1), 10);
        let held = bucket(&buckets, "holds", 0).enter(0, false).unwrap();
        for _ in 0..300 {
            drop(bucket(&buckets, "used all", 0).enter(0, false).unwrap());
        }
        drop(bucket(&buckets, "quiet", 0).enter(0, false).unwrap());
        let later = 200 * SECOND;
        buckets.sweep(later);
        assert!(buckets.known("holds").is_some());
        assert!(buckets.known("used all").is_some());
        assert!(buckets.known("quiet").is_none());
        drop(held);
        buckets.sweep(2 * later);
        assert_eq!(buckets.map.len(), 0);
        assert_eq!(buckets.known.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn new_streams_have_a_rate_of_their_own_and_requests_do_not_count_for_it() {
        let buckets = buckets(allowed(1_000, 1_000, 100), 10);
        let enter = |stream| bucket(&buckets, "alice", 0).enter(0, stream);
        let _streams = [enter(true).unwrap(), enter(true).unwrap()];
        let refused = enter(true).err().unwrap();
        let Rejection::RateLimited { policy, limit, .. } = refused else {
            panic!("{refused:?}");
        };
        assert_eq!((policy, limit), (Policy::NewStreams(Scope::Principal), 1));
        enter(false).unwrap();
    }

    #[test]
    fn fewer_at_once_end_nothing_and_admit_nothing_new() {
        let buckets = buckets(allowed(1_000, 1_000, 3), 10);
        let enter = || bucket(&buckets, "alice", 0).enter(0, false);
        let mut held: Vec<_> = (0..3).map(|_| enter().unwrap()).collect();
        buckets.set(allowed(1_000, 1_000, 2), 10);
        held.pop();
        assert!(enter().is_err());
        held.pop();
        held.push(enter().unwrap());
        assert_eq!(held[0].at_once.load(Ordering::Relaxed), 2);
    }

    /// Those who come while it sweeps find their bucket, and the count of keys stays right.
    #[test]
    fn a_sweep_under_load_loses_no_count() {
        let buckets = buckets(allowed(1, 1, 1), 1_000);
        let done = AtomicBool::new(false);
        let come = |thread: u64| {
            for n in 0..20_000u64 {
                let key = format!("{thread}-{}", n % 50);
                let _ = bucket(&buckets, &key, n).enter(n, false);
            }
        };
        std::thread::scope(|threads| {
            threads.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    buckets.sweep(u64::MAX / 2);
                }
            });
            let other = threads.spawn(move || come(1));
            come(2);
            other.join().unwrap();
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(buckets.known.load(Ordering::Relaxed), buckets.map.len());
        buckets.sweep(u64::MAX / 2);
        assert_eq!(buckets.map.len(), 0);
    }
}
