//! Relay: two byte streams until both have ended.
//!
//! Ninth step of the path; it knows bytes, not HTTP. Each direction half-closes on its own. A buffer is taken from the thread's
//! store only for the poll that reads and given back when nothing is under way, so that an idle stream costs next to nothing.
//! A direction that is over its rate of bytes is not read from, and is not idle for that time.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::limit::{Permit, Turn, Way};

/// A 16 KiB WebSocket message fits with its header; larger buffers gain little.
const BUFFER: usize = 32 * 1024;
/// Buffers that a thread keeps at hand.
const KEPT: usize = 64;
/// Reads of one direction before the other streams of the thread get their turn.
const TURNS: usize = 8;

/// How long a stream may be quiet, and live.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) idle: Option<Duration>,
    pub(crate) lifetime: Option<Duration>,
}

/// Why a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Both sides closed in order.
    Done,
    /// The client's side failed.
    Client,
    /// The upstream's side failed.
    Upstream,
    /// Nothing came for too long.
    Idle,
    /// It lived as long as it may.
    Lifetime,
}

/// Relays until it ends.
pub(crate) struct Relay<C, U> {
    client: Box<C>,
    upstream: Box<U>,
    up: Half,
    down: Half,
    permit: Permit,
    limits: Limits,
    start: Instant,
    last: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// One direction.
struct Half {
    way: Way,
    /// Where it stands while its bytes have a rate.
    turn: Option<Box<Turn>>,
    /// Whether that is what it waits for.
    held: bool,
    /// What was read and not yet written.
    pending: Pending,
    bytes: u64,
    state: State,
    unflushed: bool,
}

enum Pending {
    None,
    /// Read before the relay began.
    First(Bytes),
    Buffer {
        buffer: Box<[u8; BUFFER]>,
        from: usize,
        to: usize,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The reader has ended; the writer is to be told.
    Closing,
    Closed,
}

/// Which side of a direction failed.
enum Failed {
    Reader,
    Writer,
}

impl<C, U> Relay<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// Between two streams, each with bytes that were read from it already.
    pub(crate) fn new(
        client: (Box<C>, Bytes),
        upstream: (Box<U>, Bytes),
        permit: Permit,
        limits: Limits,
    ) -> Self {
        let now = Instant::now();
        Self {
            client: client.0,
            upstream: upstream.0,
            up: Half::new(Way::Up, client.1),
            down: Half::new(Way::Down, upstream.1),
            permit,
            limits,
            start: now,
            last: now,
            sleep: None,
        }
    }

    /// Bytes from the client and to it.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.up.bytes, self.down.bytes)
    }

    fn poll_halves(&mut self, context: &mut Context<'_>) -> Poll<Ended> {
        let before = (self.up.bytes, self.down.bytes);
        let up = self.up.poll(
            context,
            &self.permit,
            &mut *self.client,
            &mut *self.upstream,
        );
        let down = self.down.poll(
            context,
            &self.permit,
            &mut *self.upstream,
            &mut *self.client,
        );
        let moved = before != (self.up.bytes, self.down.bytes);
        if moved || self.up.held || self.down.held {
            self.last = Instant::now();
        }
        match (up, down) {
            (Poll::Ready(Err(Failed::Reader)), _) | (_, Poll::Ready(Err(Failed::Writer))) => {
                Poll::Ready(Ended::Client)
            }
            (Poll::Ready(Err(Failed::Writer)), _) | (_, Poll::Ready(Err(Failed::Reader))) => {
                Poll::Ready(Ended::Upstream)
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ended::Done),
            _ => Poll::Pending,
        }
    }

    /// The nearer of the two deadlines, and what it means.
    fn deadline(&self) -> Option<(Instant, Ended)> {
        let idle = self.limits.idle.map(|idle| (self.last + idle, Ended::Idle));
        let lifetime = self
            .limits
            .lifetime
            .map(|lifetime| (self.start + lifetime, Ended::Lifetime));
        match (idle, lifetime) {
            (Some(idle), Some(lifetime)) => {
                Some(if lifetime.0 <= idle.0 { lifetime } else { idle })
            }
            (one, other) => one.or(other),
        }
    }

    /// The timer is moved only when it fires: progress costs a clock reading.
    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<Ended> {
        loop {
            let Some((deadline, means)) = self.deadline() else {
                return Poll::Pending;
            };
            let sleep = self
                .sleep
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            ready!(sleep.as_mut().poll(context));
            if Instant::now() >= deadline {
                return Poll::Ready(means);
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

impl<C, U> Future for Relay<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    type Output = Ended;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended> {
        let this = self.get_mut();
        if let Poll::Ready(ended) = this.poll_halves(context) {
            return Poll::Ready(ended);
        }
        this.poll_deadline(context)
    }
}

impl Half {
    fn new(way: Way, first: Bytes) -> Self {
        let pending = if first.is_empty() {
            Pending::None
        } else {
            Pending::First(first)
        };
        Self {
            way,
            turn: None,
            held: false,
            pending,
            bytes: 0,
            state: State::Open,
            unflushed: false,
        }
    }

    /// Moves what can be moved. Ready when this direction has ended.
    fn poll<R, W>(
        &mut self,
        context: &mut Context<'_>,
        permit: &Permit,
        reader: &mut R,
        writer: &mut W,
    ) -> Poll<Result<(), Failed>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        for _ in 0..TURNS {
            ready!(self.poll_write(context, writer))?;
            match self.state {
                State::Closed => return Poll::Ready(Ok(())),
                State::Closing => {
                    ready!(Pin::new(&mut *writer).poll_shutdown(context))
                        .map_err(|_| Failed::Writer)?;
                    self.state = State::Closed;
                }
                State::Open => {
                    let turn = permit.poll(self.way, &mut self.turn, context);
                    self.held = turn.is_pending();
                    if self.held || self.poll_read(context, permit, reader)?.is_pending() {
                        // The reader has nothing more: now the writer's other end shall have it.
                        return self.poll_flush(context, writer);
                    }
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        writer: &mut W,
    ) -> Poll<Result<(), Failed>> {
        while let Some(bytes) = self.pending.bytes() {
            match Pin::new(&mut *writer).poll_write(context, bytes) {
                Poll::Ready(Ok(written)) if written > 0 => {
                    self.bytes += written as u64;
                    self.unflushed = true;
                    self.pending.advance(written);
                }
                Poll::Ready(_) => return Poll::Ready(Err(Failed::Writer)),
                // A TLS writer may hold what it took until it is flushed.
                Poll::Pending => return self.poll_flush(context, writer),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        permit: &Permit,
        reader: &mut R,
    ) -> Poll<Result<(), Failed>> {
        let mut buffer = take_buffer();
        let mut read = ReadBuf::new(&mut buffer[..]);
        let outcome = Pin::new(reader).poll_read(context, &mut read);
        let to = read.filled().len();
        if to == 0 {
            keep_buffer(buffer);
        } else {
            permit.moved(self.way, &mut self.turn, to);
            self.pending = Pending::Buffer {
                buffer,
                from: 0,
                to,
            };
        }
        match outcome {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(_)) => Poll::Ready(Err(Failed::Reader)),
            Poll::Ready(Ok(())) => {
                if to == 0 {
                    self.state = State::Closing;
                }
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Never ready: the direction goes on after it.
    fn poll_flush<W: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        writer: &mut W,
    ) -> Poll<Result<(), Failed>> {
        if self.unflushed
            && Pin::new(writer)
                .poll_flush(context)
                .map_err(|_| Failed::Writer)?
                .is_ready()
        {
            self.unflushed = false;
        }
        Poll::Pending
    }
}

impl Pending {
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::None => None,
            Self::First(bytes) => Some(bytes),
            Self::Buffer { buffer, from, to } => Some(&buffer[*from..*to]),
        }
    }

    /// Forgets what was written; an empty buffer goes back to the thread's store.
    fn advance(&mut self, written: usize) {
        let empty = match self {
            Self::None => true,
            Self::First(bytes) => {
                bytes.advance(written);
                bytes.is_empty()
            }
            Self::Buffer { from, to, .. } => {
                *from += written;
                from == to
            }
        };
        if empty && let Self::Buffer { buffer, .. } = std::mem::replace(self, Self::None) {
            keep_buffer(buffer);
        }
    }
}

thread_local! {
    static BUFFERS: RefCell<Vec<Box<[u8; BUFFER]>>> = const { RefCell::new(Vec::new()) };
}

fn take_buffer() -> Box<[u8; BUFFER]> {
    BUFFERS
        .with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| Box::new([0; BUFFER]))
}

fn keep_buffer(buffer: Box<[u8; BUFFER]>) {
    BUFFERS.with_borrow_mut(|buffers| {
        if buffers.len() < KEPT {
            buffers.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::{
        config,
        gateway::limit::{self, Asker},
    };

    const FOREVER: Limits = Limits {
        idle: None,
        lifetime: None,
    };

    struct Ends {
        client: DuplexStream,
        upstream: DuplexStream,
        relay: tokio::task::JoinHandle<(Ended, (u64, u64))>,
    }

    fn permit() -> Permit {
        let gitspace = "app-a1b2c3".parse().unwrap();
        let network = std::net::Ipv4Addr::LOCALHOST;
        let asker = Asker::Anonymous(std::net::IpAddr::from(network).into());
        limit::Limits::new(&config::Limits::default())
            .admit(asker, &gitspace, None, true)
            .unwrap()
    }

    fn start(limits: Limits, first_from_client: &'static [u8]) -> Ends {
        let (client, near) = duplex(1024);
        let (upstream, far) = duplex(1024);
        let mut relay = Relay::new(
            (Box::new(near), Bytes::from_static(first_from_client)),
            (Box::new(far), Bytes::new()),
            permit(),
            limits,
        );
        let relay = tokio::spawn(async move {
            let ended = Pin::new(&mut relay).await;
            (ended, relay.counts())
        });
        Ends {
            client,
            upstream,
            relay,
        }
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_and_each_way_closes_on_its_own() {
        let mut ends = start(FOREVER, b"early ");
        ends.client.write_all(b"up").await.unwrap();
        ends.client.shutdown().await.unwrap();
        let mut got = String::new();
        ends.upstream.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "early up");
        ends.upstream.write_all(&[7; 100_000][..500]).await.unwrap();
        ends.upstream.shutdown().await.unwrap();
        let mut got = Vec::new();
        ends.client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, [7; 500]);
        assert_eq!(ends.relay.await.unwrap(), (Ended::Done, (8, 500)));
    }

    #[tokio::test]
    async fn large_transfers_arrive_whole() {
        let ends = start(FOREVER, b"");
        let data: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
        let (mut client, mut upstream) = (ends.client, ends.upstream);
        let sent = data.clone();
        let writer = tokio::spawn(async move {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
            client
        });
        let mut got = Vec::new();
        upstream.read_to_end(&mut got).await.unwrap();
        assert!(got == data);
        drop(upstream);
        writer.await.unwrap();
        assert_eq!(ends.relay.await.unwrap().1.0, 1_000_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_stream_ends_and_one_that_talks_does_not() {
        let mut ends = start(
            Limits {
                idle: Some(Duration::from_secs(60)),
                lifetime: None,
            },
            b"",
        );
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(50)).await;
            ends.client.write_all(b"x").await.unwrap();
            let mut byte = [0];
            ends.upstream.read_exact(&mut byte).await.unwrap();
        }
        assert_eq!(ends.relay.await.unwrap().0, Ended::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_lives_no_longer_than_it_may() {
        let limits = Limits {
            idle: Some(Duration::from_secs(600)),
            lifetime: Some(Duration::from_secs(60)),
        };
        assert_eq!(start(limits, b"").relay.await.unwrap().0, Ended::Lifetime);
    }

    #[tokio::test]
    async fn an_idle_relay_is_small() {
        assert!(
            size_of::<Relay<DuplexStream, DuplexStream>>() <= 256,
            "{}",
            size_of::<Relay<DuplexStream, DuplexStream>>()
        );
    }
}
