//! The pool of upstream connections: one per worker, so nothing is shared between threads.
//!
//! A connection is known by its target's number, which no other target ever has; a fenced target's connections end at once.
//! hyper's client runs in a task per connection, behind [`Lease`].

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;

use super::{body::RequestBody, connect::connect};
use crate::gateway::{account::Sink, rejection::Rejection, route::Target};

/// Idle connections kept per target.
const IDLE_PER_TARGET: usize = 64;
/// Idle connections kept in all.
const IDLE_TOTAL: usize = 4096;
/// How long an idle connection is kept.
const IDLE_FOR: Duration = Duration::from_secs(30);
/// After so long at rest the other end may have closed it: worth a copy of the request.
const RESTED: Duration = Duration::from_millis(500);

/// See the module.
pub(crate) struct Pool {
    idle: Mutex<Idle>,
    sink: Arc<Sink>,
}

#[derive(Default)]
struct Idle {
    targets: HashMap<u64, Vec<Resting>>,
    total: usize,
}

struct Resting {
    sender: http1::SendRequest<RequestBody>,
    since: Instant,
}

impl Pool {
    pub(crate) fn new(sink: Arc<Sink>) -> Arc<Self> {
        Arc::new(Self {
            idle: Mutex::default(),
            sink,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Idle> {
        // Nothing in here can leave it half changed.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A resting connection that still stands.
    pub(super) async fn take(self: &Arc<Self>, target: &Target) -> Option<Lease> {
        loop {
            let mut resting = self.lock().take(target.number)?;
            if resting.sender.is_closed() || resting.sender.ready().await.is_err() {
                continue;
            }
            self.sink.metrics.upstream_reused.inc();
            return Some(Lease {
                sender: resting.sender,
                number: target.number,
                pool: Arc::downgrade(self),
                rested: Some(resting.since.elapsed()),
            });
        }
    }

    /// A new connection.
    pub(super) async fn connect(
        self: &Arc<Self>,
        target: &Arc<Target>,
        within: Duration,
    ) -> Result<Lease, Rejection> {
        let io = connect(&target.address, within).await?;
        let (sender, connection) = http1::Builder::new()
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| Rejection::Broke(Box::new(error)))?;
        let fence = target.fenced().clone();
        tokio::spawn(async move {
            tokio::select! {
                // The fence first: not one more byte for a target that is gone, whoever has its address now.
                biased;
                () = fence.cancelled() => {}
                // The requests on it tell what went wrong.
                _ = connection.with_upgrades() => {}
            }
        });
        self.sink.metrics.upstream_connections.inc();
        Ok(Lease {
            sender,
            number: target.number,
            pool: Arc::downgrade(self),
            rested: None,
        })
    }

    /// Closes what has rested too long. To be called now and then.
    pub(crate) fn sweep(&self) {
        let mut idle = self.lock();
        idle.targets.retain(|_, resting| {
            resting.retain(|one| !one.sender.is_closed() && one.since.elapsed() < IDLE_FOR);
            !resting.is_empty()
        });
        idle.total = idle.targets.values().map(Vec::len).sum();
    }
}

impl Idle {
    fn take(&mut self, number: u64) -> Option<Resting> {
        let resting = self.targets.get_mut(&number)?;
        let taken = resting.pop();
        if resting.is_empty() {
            self.targets.remove(&number);
        }
        if taken.is_some() {
            self.total -= 1;
        }
        taken
    }

    fn put(&mut self, number: u64, resting: Resting) {
        let of_target = self.targets.entry(number).or_default();
        if of_target.len() < IDLE_PER_TARGET && self.total < IDLE_TOTAL {
            of_target.push(resting);
            self.total += 1;
        }
    }
}

/// A connection in use.
pub(crate) struct Lease {
    sender: http1::SendRequest<RequestBody>,
    number: u64,
    pool: Weak<Pool>,
    rested: Option<Duration>,
}

impl Lease {
    /// Sends a request and waits for the head of its answer.
    pub(super) fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> + use<>
    {
        self.sender.try_send_request(request)
    }

    /// Whether it rested so long that the other end may have closed it.
    pub(super) fn rested(&self) -> bool {
        self.rested.is_some_and(|rested| rested > RESTED)
    }

    /// The answer has come whole: others may use it.
    pub(super) fn give_back(self) {
        if let Some(pool) = self.pool.upgrade()
            && !self.sender.is_closed()
        {
            pool.lock().put(
                self.number,
                Resting {
                    sender: self.sender,
                    since: Instant::now(),
                },
            );
        }
    }
}
