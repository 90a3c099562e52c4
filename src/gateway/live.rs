//! Live: what is under way, so that it can be told, and ended when its access ends.
//!
//! Every request has a seat here from when it may pass until its last byte, a stream until it ends. Each thread of the data path has
//! a list of its own, so a seat costs no waiting. What must end is marked, and whoever waits for its next bytes is woken: requests,
//! uploads, answers and streams see the mark and end in their own way.
//!
//! Not here: whose access has ended (`ending`), who may see the list (the admin API).

mod ending;
mod overdue;
mod parting;

use std::{
    future::poll_fn,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

use futures_util::task::AtomicWaker;
use slab::Slab;

pub(crate) use {ending::watch, overdue::look_over, parting::part};

use super::{
    account::End,
    activity::{Activity, unsigned},
    auth::Principal,
    limit::Way,
};
use crate::api::{GitspaceId, access::Port, activity::Deed};

/// What is told of it.
#[derive(Debug)]
pub(crate) struct About {
    /// The request's identifier, as in the access log.
    pub(crate) id: Arc<str>,
    /// Who has it. None: nobody we know, at a public port.
    pub(crate) principal: Option<Arc<Principal>>,
    /// The gitspace.
    pub(crate) gitspace: GitspaceId,
    /// The port.
    pub(crate) port: Port,
    /// The share by which it was let in, where nothing else did.
    pub(crate) share: Option<Arc<str>>,
    /// Where it comes from.
    pub(crate) client: IpAddr,
    /// The version of HTTP that it came by.
    pub(crate) protocol: &'static str,
    /// What is done at the gitspace.
    pub(crate) activity: Arc<Activity>,
}

/// Why something was ended, and what whoever has it is told.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    /// For the account.
    pub(crate) end: End,
    /// For the log: who ended it, and why.
    pub(crate) detail: Box<str>,
    /// For the person.
    pub(crate) message: Box<str>,
}

/// What became of a request that has no end of its own.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// An answer of server-sent events.
    Events,
    /// Bytes after a switch, to a WebSocket.
    WebSocket,
    /// And to this.
    Other(Box<str>),
}

impl Stream {
    fn name(&self) -> &str {
        match self {
            Self::Events => "event-stream",
            Self::WebSocket => "websocket",
            Self::Other(name) => name,
        }
    }
}

/// It waits for its rate of bytes.
const HELD: u64 = u64::MAX;

fn millis(after: Duration) -> u64 {
    u64::try_from(after.as_millis()).unwrap_or(HELD - 1)
}

/// A request or stream that is under way.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) about: About,
    /// Seconds since 1970.
    pub(crate) since: u64,
    start: Instant,
    /// What kind of stream it is, if it is one.
    stream: OnceLock<Stream>,
    bytes: [AtomicU64; 2],
    /// Milliseconds after the start: when the last byte passed. [`HELD`] while it waits for its rate of bytes.
    last: AtomicU64,
    /// And one more than when somebody typed something; 0: nobody did.
    typed: AtomicU32,
    ending: OnceLock<Box<Ending>>,
    wakers: [AtomicWaker; 2],
}

impl Live {
    fn new(about: About, since: SystemTime) -> Self {
        Self {
            about,
            since: unsigned(since),
            start: Instant::now(),
            stream: OnceLock::new(),
            bytes: Default::default(),
            last: AtomicU64::new(0),
            typed: AtomicU32::new(0),
            ending: OnceLock::new(),
            wakers: Default::default(),
        }
    }

    /// It is a stream of this kind from now on.
    pub(crate) fn becomes(&self, kind: Stream) {
        // Once: a stream stays what it is.
        let _ = self.stream.set(kind);
    }

    /// Whether it is a stream, and no request with an answer that ends.
    pub(crate) fn is_stream(&self) -> bool {
        self.stream.get().is_some()
    }

    /// What it speaks.
    pub(crate) fn protocol(&self) -> &str {
        self.stream.get().map_or(self.about.protocol, Stream::name)
    }

    /// Bytes passed at a moment. Of each way one task tells.
    pub(crate) fn moved(&self, way: Way, bytes: u64, at: Instant) {
        let count = &self.bytes[way as usize];
        count.store(count.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
        let after = self.after(at);
        self.last.store(millis(after), Ordering::Relaxed);
        self.about.activity.passes(self.since + after.as_secs());
    }

    /// It may not pass more for now, and is not idle for that time.
    pub(crate) fn waits_for_its_rate(&self) {
        self.last.store(HELD, Ordering::Relaxed);
    }

    /// Somebody typed something.
    pub(crate) fn typed(&self, at: Instant) {
        let seconds = u32::try_from(self.after(at).as_secs()).unwrap_or(u32::MAX);
        self.typed
            .store(seconds.saturating_add(1), Ordering::Relaxed);
        let About { activity, port, .. } = &self.about;
        activity.did(*port, Deed::Typed, self.since + u64::from(seconds));
    }

    /// When somebody typed something last, seconds since 1970; None: nobody did.
    pub(crate) fn typed_at(&self) -> Option<u64> {
        let after = self.typed.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.since + u64::from(after))
    }

    /// How long after its start a moment is.
    pub(crate) fn after(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.start)
    }

    /// Bytes that passed so far.
    pub(crate) fn bytes(&self, way: Way) -> u64 {
        self.bytes[way as usize].load(Ordering::Relaxed)
    }

    /// For how long no byte has passed.
    pub(crate) fn idle(&self, now: Instant) -> Duration {
        match self.last.load(Ordering::Relaxed) {
            HELD => Duration::ZERO,
            last => self.after(now).saturating_sub(Duration::from_millis(last)),
        }
    }

    /// Ends it. The first word counts. Whether it was this one.
    pub(crate) fn end(&self, ending: Ending) -> bool {
        let first = self.ending.set(Box::new(ending)).is_ok();
        for waker in &self.wakers {
            waker.wake();
        }
        first
    }

    /// Whether it must end, without waiting for it.
    pub(crate) fn ending(&self) -> Option<&Ending> {
        self.ending.get().map(|ending| &**ending)
    }

    /// Ready when it must end. One task may wait for each way.
    pub(crate) fn poll_ending(&self, way: Way, context: &mut Context<'_>) -> Poll<&Ending> {
        self.wakers[way as usize].register(context.waker());
        self.ending().map_or(Poll::Pending, Poll::Ready)
    }

    /// Resolves when it must end.
    pub(crate) async fn must_end(&self) -> &Ending {
        poll_fn(|context| self.poll_ending(Way::Down, context)).await
    }
}

/// What is under way on one thread.
#[derive(Debug, Default)]
pub(crate) struct Shard(Mutex<Slab<Arc<Live>>>);

impl Shard {
    /// Takes a seat.
    pub(crate) fn enter(self: &Arc<Self>, about: About, now: SystemTime) -> Seat {
        let live = Arc::new(Live::new(about, now));
        let key = self.lock().insert(Arc::clone(&live));
        Seat {
            live,
            shard: Arc::clone(self),
            key,
        }
    }

    /// A thread that panicked while it held the lock left whole entries behind.
    fn lock(&self) -> MutexGuard<'_, Slab<Arc<Live>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the list, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    live: Arc<Live>,
    shard: Arc<Shard>,
    key: usize,
}

impl Seat {
    /// What sits here.
    pub(crate) fn live(&self) -> &Arc<Live> {
        &self.live
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shard.lock().try_remove(self.key);
    }
}

/// What is under way on all threads.
#[derive(Debug)]
pub(crate) struct Lives(Box<[Arc<Shard>]>);

impl Lives {
    pub(crate) fn new(threads: usize) -> Self {
        Self((0..threads).map(|_| Arc::default()).collect())
    }

    /// The list of a thread.
    pub(crate) fn shard(&self, thread: usize) -> Arc<Shard> {
        Arc::clone(&self.0[thread % self.0.len()])
    }

    /// All that is under way. A thread waits no longer than it takes to copy its list.
    pub(crate) fn all(&self) -> Vec<Arc<Live>> {
        let mut all = Vec::new();
        for shard in &self.0 {
            let of_thread = shard.lock();
            all.extend(of_thread.iter().map(|(_, live)| Arc::clone(live)));
        }
        all
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn enter(lives: &Lives, thread: usize) -> Seat {
        lives.shard(thread).enter(about(), SystemTime::now())
    }

    pub(crate) fn about() -> About {
        About {
            id: "1-1".into(),
            principal: None,
            gitspace: "api-k3x9q2".parse().unwrap(),
            port: Port::Ide,
            share: None,
            client: IpAddr::from([192, 0, 2, 1]),
            protocol: "h2",
            activity: Arc::default(),
        }
    }

    #[test]
    fn a_seat_is_in_the_list_until_it_is_dropped() {
        let lives = Lives::new(2);
        let seats: Vec<Seat> = (0..3).map(|thread| enter(&lives, thread)).collect();
        assert_eq!(lives.all().len(), 3);
        drop(seats);
        assert!(lives.all().is_empty());
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_and_the_first_word_counts() {
        let lives = Lives::new(1);
        let seat = enter(&lives, 0);
        let live = Arc::clone(seat.live());
        let waits = tokio::spawn(async move { live.must_end().await.detail.clone() });
        tokio::task::yield_now().await;
        let ending = |detail: &str| Ending {
            end: End::AccessEnded,
            detail: detail.into(),
            message: "".into(),
        };
        let of_list = lives.all();
        assert!(of_list[0].end(ending("first")) && !of_list[0].end(ending("second")));
        assert_eq!(&*waits.await.unwrap(), "first");
    }

    #[test]
    fn what_passed_is_told() {
        let lives = Lives::new(1);
        let seat = enter(&lives, 0);
        let now = Instant::now();
        seat.live().moved(Way::Up, 3, now);
        seat.live().moved(Way::Down, 5, now);
        seat.live().moved(Way::Down, 5, now);
        let live = &lives.all()[0];
        assert_eq!((live.bytes(Way::Up), live.bytes(Way::Down)), (3, 10));
        assert!(live.idle(now) < Duration::from_millis(1));
        assert_eq!(live.about.activity.passed(), Some(live.since));
        assert_eq!((live.typed_at(), live.about.activity.acted()), (None, None));
        live.typed(now + std::time::Duration::from_secs(3));
        let typed = Some(live.since + 3);
        assert_eq!(
            (live.typed_at(), live.about.activity.acted()),
            (typed, typed)
        );
    }
}
