//! Relay: two byte streams until both have ended.
//!
//! Ninth step of the path; it knows bytes, not HTTP. Each direction half-closes on its own. A buffer is taken from the thread's
//! store only for the poll that reads and given back when nothing is under way, so that an idle stream costs next to nothing.
//! A direction that is over its rate of bytes is not read from, and is not idle for that time.
//!
//! How long it may be quiet, and live, is looked at from outside (`live::overdue`): a timer for each would cost more than its task.
//!
//! Of a WebSocket the headers of the frames are read as they pass (`frames`): a stream which we end is ended by a frame that says why,
//! and what a person typed is told from what a program sends (`observer`).

mod frames;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod observer;

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::{
    limit::{Permit, Turn, Way},
    live::Seat,
};

pub(crate) use observer::Speaks;

use observer::Observer;

/// A 16 KiB WebSocket message fits with its header; larger buffers gain little.
const BUFFER: usize = 32 * 1024;
/// Buffers that a thread keeps at hand.
const KEPT: usize = 64;
/// How long the last words to a client may take.
const LEAVE_WITHIN: Duration = Duration::from_millis(800);
/// Reads of one direction before the other streams of the thread get their turn.
const TURNS: usize = 8;

/// Why a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Both sides closed in order.
    Done,
    /// The client's side failed.
    Client,
    /// The upstream's side failed.
    Upstream,
}

/// Relays until it ends.
pub(crate) struct Relay<C, U> {
    client: C,
    upstream: U,
    up: Half,
    down: Half,
    /// What is learned from frames, if they are a WebSocket's.
    observer: Option<Observer>,
    permit: Permit,
    seat: Seat,
    /// Whether a direction waits for its rate of bytes.
    held: bool,
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
    First(Box<Bytes>),
    /// Offsets are less than [`BUFFER`], or it.
    Buffer {
        buffer: Box<[u8; BUFFER]>,
        from: u16,
        to: u16,
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
        client: (C, Bytes),
        upstream: (U, Bytes),
        (permit, seat): (Permit, Seat),
    ) -> Self {
        Self {
            client: client.0,
            upstream: upstream.0,
            up: Half::new(Way::Up, client.1),
            down: Half::new(Way::Down, upstream.1),
            observer: None,
            permit,
            seat,
            held: false,
        }
    }

    /// Its bytes are frames of a WebSocket that speaks this.
    pub(crate) fn framed(mut self, speaks: Speaks) -> Self {
        let mut observer = Observer::new(speaks);
        for half in [&self.up, &self.down] {
            observer.look(half.way, half.pending.bytes().unwrap_or_default());
        }
        self.observer = Some(observer);
        self
    }

    /// What it was counted by.
    pub(crate) fn seat(&self) -> &Seat {
        &self.seat
    }

    /// Says to the client why it ends, where its frames permit: behind the one that is under way, if that ends in time. Then nothing
    /// is passed on any more, and what the client still sends is taken for a moment, so that its system does not throw the word away.
    pub(crate) async fn take_leave(&mut self, code: u16, reason: &str) {
        let leave = async {
            self.end_frame().await?;
            self.client
                .write_all(&frames::close(code, reason))
                .await
                .ok()?;
            self.client.shutdown().await.ok()?;
            let mut rest = take_buffer();
            while self
                .client
                .read(&mut rest[..])
                .await
                .is_ok_and(|read| read > 0)
            {}
            keep_buffer(rest);
            Some(())
        };
        // Whoever takes nothing, or is in the middle of a frame that does not end, is cut.
        let _ = tokio::time::timeout(LEAVE_WITHIN, leave).await;
    }

    /// Passes on what is left of the frame to the client that is under way.
    async fn end_frame(&mut self) -> Option<()> {
        let mut frames = self.observer.as_ref()?.down();
        loop {
            while let Some(bytes) = self.down.pending.bytes() {
                let written = self.client.write(bytes).await.ok()?;
                self.down.bytes += written as u64;
                self.down.pending.advance(written);
            }
            let left = frames.until()?;
            if left == 0 {
                return Some(());
            }
            let mut buffer = take_buffer();
            let most = usize::try_from(left).map_or(BUFFER, |left| left.min(BUFFER));
            let to = self.upstream.read(&mut buffer[..most]).await.ok()?;
            if to == 0 {
                return None;
            }
            frames.feed(&buffer[..to]);
            self.down.pending = Pending::buffer(buffer, to);
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
            (&self.permit, &mut self.observer),
            &mut self.client,
            &mut self.upstream,
        );
        let down = self.down.poll(
            context,
            (&self.permit, &mut self.observer),
            &mut self.upstream,
            &mut self.client,
        );
        let moved = before != (self.up.bytes, self.down.bytes);
        let live = self.seat.live();
        let held = self.up.held || self.down.held;
        if moved || self.held && !held {
            let at = Instant::now();
            live.moved(Way::Up, self.up.bytes - before.0, at);
            live.moved(Way::Down, self.down.bytes - before.1, at);
            if let Some(observer) = &mut self.observer
                && observer.typed(live.after(at))
            {
                live.typed(at);
            }
        }
        if held {
            live.waits_for_its_rate();
        }
        self.held = held;
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
}

impl<C, U> Future for Relay<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    type Output = Ended;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended> {
        self.get_mut().poll_halves(context)
    }
}

impl Half {
    fn new(way: Way, first: Bytes) -> Self {
        let pending = if first.is_empty() {
            Pending::None
        } else {
            Pending::First(Box::new(first))
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
        (permit, observer): (&Permit, &mut Option<Observer>),
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
                    if self.held
                        || self
                            .poll_read(context, (permit, observer), reader)?
                            .is_pending()
                    {
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
        (permit, observer): (&Permit, &mut Option<Observer>),
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
            if let Some(observer) = observer {
                observer.look(self.way, &buffer[..to]);
            }
            self.pending = Pending::buffer(buffer, to);
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
    /// So much of a buffer was filled.
    fn buffer(buffer: Box<[u8; BUFFER]>, to: usize) -> Self {
        // What does not fit into the offsets does not fit into the buffer.
        let to = u16::try_from(to).unwrap_or_default();
        Self::Buffer {
            buffer,
            from: 0,
            to,
        }
    }

    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::None => None,
            Self::First(bytes) => Some(bytes),
            Self::Buffer { buffer, from, to } => {
                Some(&buffer[usize::from(*from)..usize::from(*to)])
            }
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
                *from = u16::try_from(written).map_or(*to, |written| from.saturating_add(written));
                *from >= *to
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

    struct Ends {
        client: DuplexStream,
        upstream: DuplexStream,
        relay: tokio::task::JoinHandle<(Ended, (u64, u64))>,
    }

    fn seat() -> Seat {
        let lives = crate::gateway::live::Lives::new(1);
        lives.shard(0).enter(
            crate::gateway::live::tests::about(),
            std::time::SystemTime::now(),
        )
    }

    fn permit() -> Permit {
        let gitspace = "app-a1b2c3".parse().unwrap();
        let network = std::net::Ipv4Addr::LOCALHOST;
        let asker = Asker::Anonymous(std::net::IpAddr::from(network).into());
        limit::Limits::new(&config::Limits::default())
            .admit(asker, &gitspace, None, true)
            .unwrap()
    }

    fn start(first_from_client: &'static [u8]) -> Ends {
        let (client, near) = duplex(1024);
        let (upstream, far) = duplex(1024);
        let mut relay = Relay::new(
            (near, Bytes::from_static(first_from_client)),
            (far, Bytes::new()),
            (permit(), seat()),
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
        let mut ends = start(b"early ");
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
        let ends = start(b"");
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

    #[tokio::test]
    async fn an_idle_relay_is_small() {
        assert!(
            size_of::<Relay<DuplexStream, DuplexStream>>() <= 248,
            "{}",
            size_of::<Relay<DuplexStream, DuplexStream>>()
        );
    }
}
