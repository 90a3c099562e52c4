//! New connections: a seat, one try at a time for a target that does not answer, the handshakes.

use std::{sync::Arc, time::Duration};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};

use super::{
    Lease, Pool, Wanted,
    lease::{Ending, Http1, Sender},
    streams::{self, Shared},
};
use crate::{
    api::route::Protocol,
    gateway::{
        forward::{
            connect::{self, Heard, Stream, UpstreamIo},
            guard::Guarded,
            tls::{self, Spoken},
        },
        rejection::{Break, Late, Rejection},
        route::{Seat, Target},
    },
};

/// How long a request waits for a connection of a target that has all it may have.
const SEAT_WITHIN: Duration = Duration::from_secs(1);
/// What is read ahead of an answer in HTTP/1.1, and so the largest head.
const BUFFER_MAX: usize = 128 * 1024;

/// A seat for a new connection, or a connection that became free meanwhile.
enum Place {
    Seat(Seat),
    Free(Lease),
}

impl Pool {
    /// A connection that has served nobody; of HTTP/2 perhaps one that others have opened meanwhile. `fresh`: that neither.
    pub(in crate::gateway::forward) async fn connect(
        self: &Arc<Self>,
        wanted: Wanted<'_>,
        fresh: bool,
    ) -> Result<Lease, Rejection> {
        let until = Instant::now() + wanted.within;
        let late = |_| Rejection::Timeout(Late::Connect);
        let gate = self.gate(wanted);
        let mut opening = None;
        if let Some(gate) = &gate {
            opening = Some(timeout_at(until, gate.lock()).await.map_err(late)?);
            let shared = self.share(wanted.target, true);
            if !fresh && let Some(lease) = timeout_at(until, shared).await.map_err(late)? {
                return Ok(lease);
            }
            if self.gate(wanted).is_none() {
                // Meanwhile it has picked HTTP/1.1: each opens its own.
                opening = None;
            }
        }
        let seat = match self.place(wanted, fresh).await? {
            Place::Seat(seat) => seat,
            Place::Free(lease) => return Ok(lease),
        };
        let reach = &wanted.target.reach;
        reach
            .may_try(wanted.within)
            .map_err(|unwell| Rejection::Unreachable(unwell.into()))?;
        let opened = timeout_at(until, self.open(wanted, seat)).await;
        drop(opening);
        match opened {
            Ok(Err(Rejection::Unreachable(error))) => {
                reach.failed(error.kind() == std::io::ErrorKind::ConnectionRefused);
                Err(Rejection::Unreachable(error))
            }
            Ok(opened) => {
                reach.succeeded();
                opened
            }
            Err(late) => {
                let _: tokio::time::error::Elapsed = late;
                reach.failed(false);
                Err(Rejection::Timeout(Late::Connect))
            }
        }
    }

    /// The gate through which connections for many are opened one by one; None for those that serve one request at a time.
    fn gate(&self, wanted: Wanted<'_>) -> Option<Arc<tokio::sync::Mutex<()>>> {
        if wanted.only_http1() {
            return None;
        }
        let mut targets = self.lock();
        let of = targets.by_number.entry(wanted.target.number).or_default();
        if of.spoken == Some(Spoken::Http1) {
            return None;
        }
        Some(Arc::clone(of.opening.get_or_insert_default()))
    }

    /// Waits a moment for a seat, where all are taken.
    async fn place(self: &Arc<Self>, wanted: Wanted<'_>, fresh: bool) -> Result<Place, Rejection> {
        let most = self.upstreams.settings.max_connections;
        let target = wanted.target;
        if target.fenced().is_cancelled() {
            return Err(Rejection::TargetChanged);
        }
        if let Some(seat) = Seat::take(target, most) {
            return Ok(Place::Seat(seat));
        }
        let waiting = target.reach.wait();
        let until = Instant::now() + SEAT_WITHIN;
        loop {
            let mut freed = std::pin::pin!(waiting.freed());
            // From here on a wake-up counts.
            freed.as_mut().enable();
            if !fresh && let Some(lease) = self.borrow(wanted).await {
                return Ok(Place::Free(lease));
            }
            if let Some(seat) = Seat::take(target, most) {
                return Ok(Place::Seat(seat));
            }
            tokio::select! {
                () = freed => {}
                () = target.fenced().cancelled() => return Err(Rejection::TargetChanged),
                () = tokio::time::sleep_until(until) => return Err(Rejection::Crowded),
            }
        }
    }

    async fn open(self: &Arc<Self>, wanted: Wanted<'_>, seat: Seat) -> Result<Lease, Rejection> {
        let target = wanted.target;
        let stream = connect::open(&target.address)
            .await
            .map_err(Rejection::Unreachable)?;
        let (stream, spoken) = match (target.protocol, stream) {
            (Protocol::Https, Stream::Tcp(stream)) => {
                let client = self.tls(target).await?;
                let (stream, spoken) = client.connect(stream, wanted.upgrade).await?;
                self.note(target, spoken, wanted.upgrade);
                (Stream::Tls(Box::new(stream)), spoken)
            }
            (Protocol::H2c, stream) => (stream, Spoken::Http2),
            (Protocol::Http | Protocol::Https, stream) => (stream, Spoken::Http1),
        };
        let (io, heard) = UpstreamIo::new(stream, seat);
        self.upstreams.sink.metrics.upstream_connections.inc();
        match spoken {
            Spoken::Http1 => self.http1(target, io, heard).await,
            Spoken::Http2 => self.http2(target, io, heard).await,
        }
    }

    /// What is needed to speak TLS to the target, made once.
    async fn tls(&self, target: &Target) -> Result<Arc<tls::Client>, Rejection> {
        let known = |pool: &Self| pool.lock().by_number.get(&target.number)?.tls.clone();
        if let Some(client) = known(self) {
            return Ok(client);
        }
        let client = Arc::new(tls::Client::new(target).await?);
        let mut targets = self.lock();
        let of = targets.by_number.entry(target.number).or_default();
        of.tls = Some(Arc::clone(&client));
        Ok(client)
    }

    /// Notes what the other end picked, if it had the choice.
    fn note(&self, target: &Target, spoken: Spoken, upgrade: bool) {
        if !upgrade {
            let mut targets = self.lock();
            targets.by_number.entry(target.number).or_default().spoken = Some(spoken);
        }
    }

    async fn http1(
        self: &Arc<Self>,
        target: &Arc<Target>,
        io: UpstreamIo,
        heard: Heard,
    ) -> Result<Lease, Rejection> {
        let (io, watch) = Guarded::new(io);
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(BUFFER_MAX)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| Rejection::Broke(Break::Terminated, Box::new(error)))?;
        let fence = target.fenced().clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                // The fence first: not one more byte for a target that is gone, whoever has its address now.
                biased;
                () = fence.cancelled() => {}
                // The requests on it tell what went wrong.
                _ = connection.with_upgrades() => {}
            }
        });
        Ok(Lease {
            sender: Sender::Http1(Http1 {
                sender,
                heard,
                watch,
                ending: Ending::of(&task),
            }),
            target: Arc::clone(target),
            pool: Arc::downgrade(self),
            rested: None,
        })
    }

    async fn http2(
        self: &Arc<Self>,
        target: &Arc<Target>,
        io: UpstreamIo,
        heard: Heard,
    ) -> Result<Lease, Rejection> {
        let (sender, connection) = streams::builder(target.fenced().clone())
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| Rejection::Broke(Break::Terminated, Box::new(error)))?;
        let shared = Shared::start(sender, connection, heard, target);
        let Some(streams::Room::Yes(sender, heard, stream)) = shared.room(target) else {
            return Err(Rejection::Unreachable(std::io::Error::other(
                "the connection ended at once",
            )));
        };
        let mut targets = self.lock();
        let of = targets.by_number.entry(target.number).or_default();
        of.shared.push(shared);
        drop(targets);
        target.reach.opened();
        Ok(Lease {
            sender: Sender::Http2 {
                sender,
                heard,
                stream,
            },
            target: Arc::clone(target),
            pool: Arc::downgrade(self),
            rested: None,
        })
    }
}
