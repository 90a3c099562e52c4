//! The head guard: what an HTTP/1.1 client sends passes through here before hyper sees it.
//!
//! Between the byte stream and the parser. hyper repairs some heads silently (both framings at once, bare LF, `#`); here a head
//! passes only whole and unambiguous. A refused one is replaced by a plain head that is marked by its number, so that it is
//! answered in its turn, accounted like any request, and the last one of its connection. Bodies are followed to find where the
//! next head begins. What a client sends behind a request for an upgrade waits until it is known whose bytes they are.
//!
//! A head that has come whole in one read is checked where it is; only pieces are copied. Not here: the rules (`head`, `chunks`).

mod chunks;
#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::gateway) mod fuzzing;
mod head;

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

pub(crate) use head::Refusal;

use super::{HeadLimits, linger::Linger};
use chunks::Chunks;
use head::{Facts, Framing, Scan};

/// What hyper reads instead of a refused head.
const REPLACEMENT: &[u8] = b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n";
/// How much is kept of what comes behind a request for an upgrade; beyond, the client waits.
const WAITING_MAX: usize = 64 * 1024;
/// A late head is answered before the connection's own deadline ends it.
const AHEAD: Duration = Duration::from_millis(20);

/// What the guard and the service behind the parser tell each other. Requests are numbered from 1 in the order they came.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Requests that the service has got.
    requests: AtomicU64,
    /// The number of the refused head; 0 is none.
    refused: AtomicU64,
    why: Mutex<Option<Refusal>>,
    /// The last request that was answered with something else than a switch of protocols.
    answered: AtomicU64,
    /// Who waits for that: hyper does not ask again by itself after it was told to wait.
    waiting: AtomicWaker,
}

impl Gate {
    /// The number of the request that the service has got now.
    pub(super) fn next(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Why the head with this number was refused, if it was.
    pub(super) fn refusal(&self, number: u64) -> Option<Refusal> {
        if self.refused.load(Ordering::Acquire) != number {
            return None;
        }
        *self.why.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request with this number does not become a stream.
    pub(super) fn answered(&self, number: u64) {
        self.answered.store(number, Ordering::Release);
        self.waiting.wake();
    }

    fn refuse(&self, number: u64, why: Refusal) {
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        self.refused.store(number, Ordering::Release);
    }
}

/// Where in the client's bytes we are.
enum State {
    /// In a head.
    Head(Scan),
    /// In a body with so many bytes to come.
    Length(u64),
    /// In a chunked body.
    Chunked(Box<Chunks>),
    /// Behind a request for an upgrade.
    Waiting,
    /// Behind a head that was refused: nothing more is read.
    Refused,
    /// Behind chunks that were refused: reading fails.
    Broken(Refusal),
}

/// See the module.
pub(super) struct Guard {
    state: State,
    /// Whether the message under way asks for an upgrade.
    upgrade: bool,
    gate: Arc<Gate>,
    limits: HeadLimits,
    /// Heads so far.
    heads: u64,
    /// Bytes that were read and not given to the parser; the first `passed` may be.
    held: BytesMut,
    passed: usize,
    timer: HeadTimer,
    linger: Linger,
}

/// When a head that has begun is late.
struct HeadTimer {
    first: Option<Instant>,
    within: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Guard {
    /// For a connection whose first head must be there at `first`, and each later one `within` its first byte.
    pub(super) fn new(
        gate: Arc<Gate>,
        limits: HeadLimits,
        first: Instant,
        within: Duration,
    ) -> Self {
        Self {
            state: State::Head(Scan::default()),
            upgrade: false,
            gate,
            limits,
            heads: 0,
            held: BytesMut::new(),
            passed: 0,
            timer: HeadTimer {
                first: Some(first),
                within,
                sleep: None,
            },
            linger: Linger::default(),
        }
    }

    /// What came behind the request that became a stream.
    pub(super) fn into_early(self) -> Bytes {
        self.held.freeze()
    }

    /// Gives the parser what it may have.
    pub(super) fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.passed > 0 {
                self.deliver(buffer);
                return Poll::Ready(Ok(()));
            }
            match &self.state {
                State::Refused => return Poll::Pending,
                State::Broken(refusal) => return Poll::Ready(Err(broken(*refusal))),
                State::Waiting if self.gate.answered.load(Ordering::Acquire) < self.heads => {
                    // Answers come from this very task: none can slip between the look and the registration.
                    self.gate.waiting.register(context.waker());
                    return self.poll_waiting(stream, context);
                }
                State::Waiting => {
                    self.state = State::Head(Scan::default());
                    self.scan_held();
                    continue;
                }
                _ => {}
            }
            if self.held.is_empty() {
                let before = buffer.filled().len();
                ready!(Pin::new(&mut *stream).poll_read(context, buffer))?;
                if buffer.filled().len() == before {
                    return Poll::Ready(Ok(()));
                }
                let passed = self.scan(&buffer.filled()[before..]);
                self.held
                    .extend_from_slice(&buffer.filled()[before + passed..]);
                buffer.set_filled(before + passed);
                self.settle();
                if passed > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                let read =
                    tokio_util::io::poll_read_buf(Pin::new(&mut *stream), context, &mut self.held);
                match read {
                    Poll::Ready(read) => {
                        if read? == 0 {
                            // The rest of a head will not come.
                            self.held.clear();
                            return Poll::Ready(Ok(()));
                        }
                        self.scan_held();
                    }
                    Poll::Pending => ready!(self.poll_late(context)),
                }
            }
        }
    }

    fn deliver(&mut self, buffer: &mut ReadBuf<'_>) {
        let count = self.passed.min(buffer.remaining());
        buffer.put_slice(&self.held[..count]);
        self.held.advance(count);
        self.passed -= count;
        if self.held.is_empty() {
            // Most connections never need it again.
            self.held = BytesMut::new();
        }
    }

    fn scan_held(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.passed = self.scan(&held);
        self.held = held;
        self.settle();
    }

    /// After a scan: puts the replacement in a refused head's place.
    fn settle(&mut self) {
        match self.state {
            State::Refused => {
                self.held.truncate(self.passed);
                self.held.extend_from_slice(REPLACEMENT);
                self.passed = self.held.len();
            }
            State::Broken(_) => self.held.truncate(self.passed),
            _ => {}
        }
    }

    /// Follows the messages through `bytes`, which begin where the last scan stopped: how many may pass.
    fn scan(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match &mut self.state {
                State::Head(scan) => match scan.run(rest, self.limits) {
                    Ok(Some((facts, length))) => {
                        at += length;
                        self.head(facts);
                    }
                    Ok(None) => break,
                    Err(refusal) => {
                        self.refuse(refusal);
                        break;
                    }
                },
                State::Length(left) => {
                    let take = (*left).min(rest.len() as u64);
                    *left -= take;
                    at += take as usize;
                    if *left == 0 {
                        self.next();
                    }
                }
                State::Chunked(chunks) => {
                    let (taken, refusal) = chunks.run(rest);
                    at += taken;
                    if let Some(refusal) = refusal {
                        self.state = State::Broken(refusal);
                    } else if chunks.done() {
                        self.next();
                    }
                }
                State::Waiting | State::Refused | State::Broken(_) => break,
            }
        }
        at
    }

    fn head(&mut self, facts: Facts) {
        self.heads += 1;
        self.timer.done();
        self.upgrade = facts.upgrade;
        match facts.framing {
            Framing::Length(0) => self.next(),
            Framing::Length(length) => self.state = State::Length(length),
            Framing::Chunked => self.state = State::Chunked(Box::new(Chunks::new())),
        }
    }

    /// Behind a message.
    fn next(&mut self) {
        self.state = if self.upgrade {
            State::Waiting
        } else {
            State::Head(Scan::default())
        };
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.heads += 1;
        self.timer.done();
        self.gate.refuse(self.heads, refusal);
        self.state = State::Refused;
    }

    /// Keeps what comes until it is known whether it is the next request or the stream's first bytes.
    fn poll_waiting<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.held.len() < WAITING_MAX {
            let read =
                tokio_util::io::poll_read_buf(Pin::new(&mut *stream), context, &mut self.held);
            if ready!(read)? == 0 {
                // The client has gone: the end is all that the parser is to see.
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }

    /// Ready when the head that has begun is late: then it is refused.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !matches!(self.state, State::Head(_)) {
            return Poll::Pending;
        }
        ready!(self.timer.poll(context));
        self.passed = 0;
        self.held.clear();
        self.refuse(Refusal::Late);
        self.settle();
        Poll::Ready(())
    }

    /// Before the stream is closed for good: takes what a client still sends, within bounds, so that no reset takes the last
    /// answer away from it. Ready when it may be closed.
    pub(super) fn poll_linger<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        // Between two messages nothing is under way.
        if matches!(&self.state, State::Head(_)) && self.held.is_empty() {
            return Poll::Ready(());
        }
        self.linger.poll(stream, context)
    }
}

impl HeadTimer {
    fn done(&mut self) {
        self.first = None;
        self.sleep = None;
    }

    /// Set only when a head has come in part.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let deadline = || {
            self.first
                .map_or_else(|| Instant::now() + self.within, |at| at - AHEAD)
        };
        let sleep = match &mut self.sleep {
            Some(sleep) => sleep,
            None => {
                let sleep = Box::pin(tokio::time::sleep_until(deadline()));
                self.sleep.insert(sleep)
            }
        };
        sleep.as_mut().poll(context)
    }
}

/// Why reading a body fails; `refusal` finds it again in what the parser makes of it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Malformed(&'static str);

fn broken(refusal: Refusal) -> io::Error {
    let why = match refusal {
        Refusal::Bad(why) => why,
        _ => "the body is malformed",
    };
    io::Error::new(io::ErrorKind::InvalidData, Malformed(why))
}

/// What was wrong with a body, if the guard found it wrong.
pub(crate) fn malformed(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(Malformed(why)) = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .and_then(|inner| inner.downcast_ref())
        {
            return Some(why);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    struct Guarded {
        guard: Guard,
        stream: DuplexStream,
    }

    impl AsyncRead for Guarded {
        fn poll_read(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let this = self.get_mut();
            this.guard.poll_read(&mut this.stream, context, buffer)
        }
    }

    fn guarded() -> (DuplexStream, Guarded, Arc<Gate>) {
        let (client, stream) = duplex(1 << 20);
        let gate = Arc::new(Gate::default());
        let limits = HeadLimits {
            bytes: 8192,
            fields: 100,
        };
        let within = Duration::from_secs(10);
        let guard = Guard::new(Arc::clone(&gate), limits, Instant::now() + within, within);
        (client, Guarded { guard, stream }, gate)
    }

    /// All that passes of what is sent in pieces of `size`, until `done` or nothing more comes.
    async fn pass(sent: &[u8], size: usize) -> (Vec<u8>, Option<(u64, Refusal)>) {
        let (mut client, mut guarded, gate) = guarded();
        let mut got = Vec::new();
        for piece in sent.chunks(size) {
            client.write_all(piece).await.unwrap();
            drain(&mut guarded, &mut got).await;
        }
        let refused = gate.refused.load(Ordering::Relaxed);
        (got, gate.refusal(refused).map(|why| (refused, why)))
    }

    /// Reads until nothing is ready.
    async fn drain(guarded: &mut Guarded, got: &mut Vec<u8>) {
        let mut some = [0; 100];
        loop {
            let read = guarded.read(&mut some);
            tokio::select! {
                biased;
                read = read => match read {
                    Ok(count) if count > 0 => got.extend_from_slice(&some[..count]),
                    _ => return,
                },
                () = std::future::ready(()) => return,
            }
        }
    }

    const MESSAGES: &[u8] = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\
        POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nGET / \n\n\
        POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n\n\n\n\r\n0\r\nx: y\r\n\r\n\
        GET /4 HTTP/1.1\r\nHost: a\r\n\r\n";

    #[tokio::test]
    async fn what_is_right_passes_byte_for_byte_in_any_pieces() {
        for size in [1, 2, 3, 7, 50, 99, 1000] {
            let (got, refused) = pass(MESSAGES, size).await;
            assert_eq!(got, MESSAGES, "{size}");
            assert_eq!(refused, None);
        }
    }

    #[tokio::test]
    async fn a_refused_head_is_replaced_and_nothing_behind_it_passes() {
        let mut sent = MESSAGES.to_vec();
        sent.extend_from_slice(
            b"GET /5 HTTP/1.1\nHost: a\r\n\r\nGET /6 HTTP/1.1\r\nHost: a\r\n\r\n",
        );
        for size in [1, 5, 64, 1000] {
            let (got, refused) = pass(&sent, size).await;
            assert_eq!(got, [MESSAGES, REPLACEMENT].concat(), "{size}");
            let why = Refusal::Bad("a line ends without CR");
            assert_eq!(refused, Some((5, why)));
        }
    }

    #[tokio::test]
    async fn no_part_of_a_head_passes_before_all_of_it() {
        let (mut client, mut guarded, _) = guarded();
        let mut got = Vec::new();
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n")
            .await
            .unwrap();
        drain(&mut guarded, &mut got).await;
        assert!(got.is_empty());
        client.write_all(b"\r\n").await.unwrap();
        drain(&mut guarded, &mut got).await;
        assert_eq!(got, b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n");
    }

    #[tokio::test]
    async fn bad_chunks_break_the_body() {
        let head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
        let (mut client, mut guarded, _) = guarded();
        let mut got = Vec::new();
        client.write_all(head).await.unwrap();
        client.write_all(b"0x1\r\nd\r\n").await.unwrap();
        drain(&mut guarded, &mut got).await;
        assert_eq!(got, [&head[..], b"0"].concat());
        let error = guarded.read(&mut [0; 10]).await.unwrap_err();
        assert_eq!(malformed(&error), Some("a chunk size is no number"));
    }

    #[tokio::test]
    async fn what_comes_behind_an_upgrade_waits() {
        let head = b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        let (mut client, mut guarded, gate) = guarded();
        let mut got = Vec::new();
        client.write_all(head).await.unwrap();
        client.write_all(b"\x81\x05hello\n\n").await.unwrap();
        drain(&mut guarded, &mut got).await;
        assert_eq!(got, head);
        drain(&mut guarded, &mut got).await;
        assert_eq!(got, head);
        // It becomes a stream: these are its first bytes.
        assert_eq!(&guarded.guard.into_early()[..], b"\x81\x05hello\n\n");
        // It does not: the next head begins there, and is looked at as any other.
        let (mut client, mut guarded, _) = self::guarded();
        client.write_all(head).await.unwrap();
        client.write_all(b"GET /2 HTTP/1.1\r\n\r\n").await.unwrap();
        got.clear();
        drain(&mut guarded, &mut got).await;
        guarded.guard.gate.answered(1);
        drain(&mut guarded, &mut got).await;
        assert_eq!(got, [&head[..], b"GET /2 HTTP/1.1\r\n\r\n"].concat());
        assert_eq!(gate.refusal(1), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_begins_and_does_not_end_is_late() {
        let (mut client, mut guarded, gate) = guarded();
        client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let mut got = [0; 100];
        let count = guarded.read(&mut got).await.unwrap();
        assert_eq!(&got[..count], REPLACEMENT);
        assert_eq!(gate.refusal(1), Some(Refusal::Late));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_is_not_late_but_idle() {
        let (_client, mut guarded, _) = guarded();
        let mut some = [0; 10];
        let read = tokio::time::timeout(Duration::from_secs(60), guarded.read(&mut some));
        assert!(read.await.is_err());
    }
}
