//! The pool of upstream connections: one per worker, so nothing is shared between threads.
//!
//! A connection is known by its target's number, which no other target ever has; a fenced target's connections end at once.
//! HTTP/1.1 connections serve one request at a time and rest in between; HTTP/2 connections serve many. All connections of a
//! target are bounded ([`Seat`]): who finds none free waits a moment, and only then looks into the other workers' pools.
//!
//! Not here: what is sent and what is sent again (`send`).

mod lease;
mod open;
mod streams;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use super::{tls, tls::Spoken};
use crate::{
    api::route::Protocol,
    config,
    gateway::{account::Sink, route::Target},
};

pub(crate) use lease::{Lease, Sent};

use lease::{Resting, Sender};
use streams::{Room, Shared};

/// Idle connections kept in all.
const IDLE_TOTAL: usize = 4096;
/// How long a connection that was given back may take until it is ready.
const READY_WITHIN: Duration = Duration::from_millis(50);

/// What the pools of all workers share.
pub(crate) struct Upstreams {
    settings: config::Upstreams,
    sink: Arc<Sink>,
    pools: Mutex<Vec<Weak<Pool>>>,
}

impl Upstreams {
    pub(crate) fn new(settings: config::Upstreams, sink: Arc<Sink>) -> Arc<Self> {
        Arc::new(Self {
            settings,
            sink,
            pools: Mutex::default(),
        })
    }

    /// The pool of one more worker.
    pub(crate) fn pool(self: &Arc<Self>) -> Arc<Pool> {
        let pool = Arc::new(Pool {
            targets: Mutex::default(),
            upstreams: Arc::clone(self),
        });
        lock(&self.pools).push(Arc::downgrade(&pool));
        pool
    }
}

/// See the module.
pub(crate) struct Pool {
    targets: Mutex<Targets>,
    upstreams: Arc<Upstreams>,
}

/// What a request needs of a connection.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) target: &'a Arc<Target>,
    /// It may become an upgrade, which is a thing of HTTP/1.1.
    pub(super) upgrade: bool,
    /// How long connecting may take.
    pub(super) within: Duration,
}

impl Wanted<'_> {
    /// HTTP/2 does not serve it.
    fn only_http1(&self) -> bool {
        match self.target.protocol {
            Protocol::Http => true,
            Protocol::Https => self.upgrade,
            Protocol::H2c => false,
        }
    }
}

#[derive(Default)]
struct Targets {
    by_number: HashMap<u64, OfTarget>,
    resting: usize,
}

/// What this worker has of one target.
#[derive(Default)]
struct OfTarget {
    resting: Vec<Resting>,
    shared: Vec<Shared>,
    /// Whoever opens a connection for many holds it, so that many who come at once open one.
    opening: Option<Arc<tokio::sync::Mutex<()>>>,
    tls: Option<Arc<tls::Client>>,
    spoken: Option<Spoken>,
}

impl Pool {
    /// How many connections a target may have.
    pub(in crate::gateway::forward) fn most(&self) -> usize {
        self.upstreams.settings.max_connections
    }

    fn lock(&self) -> MutexGuard<'_, Targets> {
        lock(&self.targets)
    }

    /// A connection that is there: one at rest, or one that serves many and has room.
    pub(super) async fn take(self: &Arc<Self>, wanted: Wanted<'_>) -> Option<Lease> {
        loop {
            if !wanted.only_http1()
                && let Some(lease) = self.share(wanted.target, false).await
            {
                return Some(lease);
            }
            let mut resting = self.lock().take(wanted.target.number, self.ttl())?;
            if resting.ready().await {
                self.upstreams.sink.metrics.upstream_reused.inc();
                return Some(self.lease(resting, wanted.target));
            }
        }
    }

    fn lease(self: &Arc<Self>, resting: Resting, target: &Arc<Target>) -> Lease {
        Lease {
            rested: Some(resting.since.elapsed()),
            sender: Sender::Http1(resting.connection),
            target: Arc::clone(target),
            pool: Arc::downgrade(self),
        }
    }

    /// A place on a connection for many. `patient`: of one that has just been opened its first frame is awaited, which tells
    /// how many it takes.
    async fn share(self: &Arc<Self>, target: &Arc<Target>, patient: bool) -> Option<Lease> {
        loop {
            let found = self.lock().share(target)?;
            match found {
                Room::Yes(sender, heard, stream) => {
                    self.upstreams.sink.metrics.upstream_reused.inc();
                    return Some(Lease {
                        sender: Sender::Http2 {
                            sender,
                            heard,
                            stream,
                        },
                        target: Arc::clone(target),
                        pool: Arc::downgrade(self),
                        // How long its other streams have been quiet is not known.
                        rested: Some(Duration::MAX),
                    });
                }
                Room::NotYet(streams) if patient => streams.settled().await,
                Room::NotYet(_) => return None,
            }
        }
    }

    /// A connection that another worker has and does not use. Asked for only when a target has all that it may have.
    async fn borrow(self: &Arc<Self>, wanted: Wanted<'_>) -> Option<Lease> {
        let pools: Vec<_> = lock(&self.upstreams.pools)
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        for pool in pools {
            if let Some(lease) = pool.take(wanted).await {
                return Some(lease);
            }
        }
        None
    }

    fn ttl(&self) -> Duration {
        self.upstreams.settings.ttl
    }

    /// Closes what has rested too long. To be called now and then.
    pub(crate) fn sweep(&self) {
        let ttl = self.ttl();
        let mut targets = self.lock();
        targets.by_number.retain(|_, of| {
            of.resting
                .retain(|one| !one.connection.sender.is_closed() && one.since.elapsed() < ttl);
            of.shared.retain(|one| one.is_wanted(ttl));
            let opening = of
                .opening
                .as_ref()
                .is_some_and(|it| Arc::strong_count(it) > 1);
            !of.resting.is_empty() || !of.shared.is_empty() || opening
        });
        targets.resting = targets.by_number.values().map(|of| of.resting.len()).sum();
    }
}

impl Targets {
    fn take(&mut self, number: u64, ttl: Duration) -> Option<Resting> {
        let of = self.by_number.get_mut(&number)?;
        loop {
            let taken = of.resting.pop()?;
            self.resting = self.resting.saturating_sub(1);
            if !taken.connection.sender.is_closed() && taken.since.elapsed() < ttl {
                return Some(taken);
            }
        }
    }

    fn put(&mut self, number: u64, resting: Resting, settings: &config::Upstreams) {
        if self.resting >= IDLE_TOTAL {
            return;
        }
        let of = self.by_number.entry(number).or_default();
        if of.resting.len() < settings.idle {
            of.resting.push(resting);
            self.resting += 1;
        }
    }

    fn share(&mut self, target: &Arc<Target>) -> Option<Room> {
        let of = self.by_number.get_mut(&target.number)?;
        of.shared.retain(|one| !one.is_closed());
        let mut young = None;
        for shared in &of.shared {
            match shared.room(target) {
                Some(Room::NotYet(streams)) => young = Some(Room::NotYet(streams)),
                Some(room) => return Some(room),
                None => {}
            }
        }
        young
    }
}

impl Resting {
    /// Whether it stands and is done with the request before.
    async fn ready(&mut self) -> bool {
        if self.connection.sender.is_ready() {
            return true;
        }
        // An upload that outlived its answer may still be under way: that one is not for others.
        let ready = tokio::time::timeout(READY_WITHIN, self.connection.sender.ready()).await;
        matches!(ready, Ok(Ok(())))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing behind these locks can be left half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
