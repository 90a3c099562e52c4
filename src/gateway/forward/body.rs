//! Bodies on their way: ours, the client's to the upstream, the upstream's to the client.
//!
//! Nothing is buffered: a frame is taken when the other side has room, and when the rates of bytes allow it. A body that makes no
//! progress for `body_idle` ends, unless it is we who hold it back; its timer is set only while somebody waits, and moved lazily.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::Stream;
use http_body::{Frame, SizeHint};
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, Sleep};

use crate::config::Timeout;

use super::{Carried, Names, expect::Gate, headers::scrub_trailers, pool::Lease};
use crate::gateway::{
    account::End,
    connection::malformed,
    limit::{Payer, Turn, Way},
    live::Live,
    rejection::Rejection,
};

const ENDED: &str = "the gateway ended it";

/// What a body can fail with; hyper then cuts the message visibly.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub(crate) enum Body {
    /// One of our own.
    Full(Option<Bytes>),
    /// The upstream's.
    Relayed(Box<ResponseBody>),
    /// One of our own that goes on.
    Told(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl Body {
    /// Nothing.
    pub(crate) fn empty() -> Self {
        Self::Full(None)
    }

    /// These bytes.
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Self::Full(Some(bytes.into()).filter(|bytes| !bytes.is_empty()))
    }

    /// What comes, as it comes.
    pub(crate) fn stream(stream: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self::Told(Box::pin(stream))
    }

    pub(super) fn relayed(body: ResponseBody) -> Self {
        Self::Relayed(Box::new(body))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Relayed(body) => body.poll(context),
            Self::Told(stream) => stream
                .as_mut()
                .poll_next(context)
                .map(|next| next.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Relayed(body) => body.carried.is_none(),
            Self::Told(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Relayed(body) => body.incoming.size_hint(),
            Self::Told(_) => SizeHint::default(),
        }
    }
}

/// A timer that runs while somebody waits for progress.
struct IdleTimer {
    after: Option<Duration>,
    sleep: Option<Pin<Box<Sleep>>>,
    last: Instant,
}

impl IdleTimer {
    fn new(timeout: Timeout) -> Self {
        Self {
            after: timeout.duration(),
            sleep: None,
            last: Instant::now(),
        }
    }

    fn progress(&mut self) {
        self.last = Instant::now();
    }

    /// Ready when nothing came for too long.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(after) = self.after else {
            return Poll::Pending;
        };
        loop {
            let deadline = self.last + after;
            let sleep = self
                .sleep
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            ready!(sleep.as_mut().poll(context));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

/// The upstream's body on its way to the client.
pub(crate) struct ResponseBody {
    incoming: Incoming,
    lease: Option<Lease>,
    /// The upload that the answer is to.
    upload: Option<Arc<Progress>>,
    /// None once the account is closed: all was handed over.
    carried: Option<Carried>,
    turn: Option<Box<Turn>>,
    idle: IdleTimer,
    names: Arc<Names>,
}

impl ResponseBody {
    pub(super) fn new(
        incoming: Incoming,
        bodyless: bool,
        (lease, upload): (Lease, Option<Arc<Progress>>),
        carried: Carried,
        idle: Timeout,
        names: &Arc<Names>,
    ) -> Self {
        let mut body = Self {
            incoming,
            lease: Some(lease),
            upload,
            carried: Some(carried),
            turn: None,
            idle: IdleTimer::new(idle),
            names: Arc::clone(names),
        };
        if bodyless {
            body.finish();
        }
        body
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(carried) = &self.carried else {
            return Poll::Ready(None);
        };
        let live = carried.seat.live();
        if live.ending().is_some() {
            return self.lose();
        }
        if carried
            .permit
            .poll(Way::Down, &mut self.turn, context)
            .is_pending()
        {
            let ends = live.poll_ending(Way::Down, context).is_ready();
            // It is we who wait.
            self.idle.progress();
            return if ends { self.lose() } else { Poll::Pending };
        }
        match Pin::new(&mut self.incoming).poll_frame(context) {
            Poll::Ready(Some(Ok(mut frame))) => {
                self.idle.progress();
                if let Some(trailers) = frame.trailers_mut() {
                    scrub_trailers(trailers, &self.names);
                }
                if let (Some(data), Some(carried)) = (frame.data_ref(), &mut self.carried) {
                    let at = self.idle.last.into_std();
                    let live = carried.seat.live();
                    live.moved(Way::Down, data.len() as u64, at);
                    carried.account.sent(data.len() as u64);
                    carried.permit.moved(Way::Down, &mut self.turn, data.len());
                }
                if self.incoming.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.end(self.broken());
                Poll::Ready(Some(Err(Box::new(error))))
            }
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Pending => {
                if live.poll_ending(Way::Down, context).is_ready() {
                    return self.lose();
                }
                ready!(self.idle.poll(context));
                self.end(End::Idle);
                Poll::Ready(Some(Err("the gitspace sent nothing for too long".into())))
            }
        }
    }

    /// It must end.
    fn lose(&mut self) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.lease = None;
        if let Some(carried) = self.carried.take() {
            let live = std::sync::Arc::clone(carried.seat.live());
            if let Some(ending) = live.ending() {
                carried.account.close_because(ending.end, &ending.detail);
            }
        }
        Poll::Ready(Some(Err(ENDED.into())))
    }

    /// A fence closes the connection under the body.
    fn broken(&self) -> End {
        let fenced = self
            .carried
            .as_ref()
            .is_some_and(|carried| carried.target.fenced().is_cancelled());
        if fenced {
            End::TargetChanged
        } else {
            End::GitspaceBroke
        }
    }

    /// All came: the connection can serve another request, unless the one that was answered is still being sent.
    fn finish(&mut self) {
        let sent = self.upload.as_ref().is_none_or(|upload| upload.done());
        if let Some(lease) = self.lease.take().filter(|_| sent) {
            lease.give_back();
        }
        self.end(End::Done);
    }

    fn end(&mut self, end: End) {
        // An unfinished lease is dropped and its connection closed.
        self.lease = None;
        if let Some(carried) = self.carried.take() {
            carried.account.close(end);
        }
    }
}

/// Whether its length is 0 and its end has not come: HTTP/2 tells the two apart, and more may follow.
pub(super) fn says_it_is_empty(upload: &Incoming) -> bool {
    !upload.is_end_stream() && upload.size_hint().exact() == Some(0)
}

/// Waits for the end of an upload that says it is empty. To an HTTP/1.1 upstream its head alone is a whole request, and it is none
/// if more follows (RFC 9113 §8.1.1).
pub(super) async fn ended(upload: &mut Incoming, idle: Timeout) -> Result<(), Rejection> {
    let mut idle = IdleTimer::new(idle);
    poll_fn(|context| {
        loop {
            match Pin::new(&mut *upload).poll_frame(context) {
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(Rejection::ClientGone)),
                Poll::Pending => {
                    ready!(idle.poll(context));
                    return Poll::Ready(Err(Rejection::BodyTimeout));
                }
            }
        }
    })
    .await
}

/// What is known of an upload while it is under way.
pub(super) struct Progress {
    received: Arc<AtomicU64>,
    start: Instant,
    last_micros: AtomicU64,
    state: AtomicU8,
    malformed: OnceLock<&'static str>,
}

/// The next piece is wanted of the client, or was handed to the connection.
const MOVING: u8 = 0;
/// The client has nothing for us, or its rate is used up.
const WAITING: u8 = 1;
/// It was given up because nothing came.
const STALLED: u8 = 2;
/// All of it was taken.
const DONE: u8 = 3;
/// It was given up because it is longer than allowed.
const TOO_LARGE: u8 = 4;

impl Progress {
    pub(super) fn new(received: Arc<AtomicU64>) -> Self {
        Self {
            received,
            start: Instant::now(),
            last_micros: AtomicU64::new(0),
            state: AtomicU8::new(MOVING),
            malformed: OnceLock::new(),
        }
    }

    /// When the last byte came.
    pub(super) fn last(&self) -> Instant {
        self.start + Duration::from_micros(self.last_micros.load(Ordering::Relaxed))
    }

    /// Whether it was given up because nothing came.
    pub(super) fn stalled(&self) -> bool {
        self.state.load(Ordering::Relaxed) == STALLED
    }

    /// Whether it was given up because it is longer than allowed.
    pub(super) fn too_large(&self) -> bool {
        self.state.load(Ordering::Relaxed) == TOO_LARGE
    }

    /// Whether the client is waited for, which has a deadline of its own, or its rate.
    pub(super) fn waiting(&self) -> bool {
        self.state.load(Ordering::Relaxed) == WAITING
    }

    /// Whether all of it was taken.
    pub(super) fn done(&self) -> bool {
        self.state.load(Ordering::Relaxed) == DONE
    }

    fn is(&self, state: u8) {
        self.state.store(state, Ordering::Relaxed);
    }

    /// What was wrong with it, where it was not framed as it must be.
    pub(super) fn malformed(&self) -> Option<&'static str> {
        self.malformed.get().copied()
    }

    fn data(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
        self.last_micros
            .store(self.start.elapsed().as_micros() as u64, Ordering::Relaxed);
    }
}

/// The client's body on its way to the upstream. Boxed: most requests have none, and a request is moved often before it is sent.
pub(crate) struct RequestBody(Option<Box<Upload>>);

struct Upload {
    incoming: Incoming,
    /// Closed while the upstream has not asked for the body.
    gate: Option<Gate>,
    idle: IdleTimer,
    payer: Payer,
    live: Arc<Live>,
    turn: Option<Box<Turn>>,
    /// How many bytes more it may have.
    left: u64,
    progress: Arc<Progress>,
    names: Arc<Names>,
}

impl Upload {
    /// Nothing to send for now: it is woken when it must end.
    fn waits<T>(&self, context: &mut Context<'_>) -> Poll<Option<Result<T, BodyError>>> {
        let ending = self.live.poll_ending(Way::Up, context);
        ending.map(|_| Some(Err(ENDED.into())))
    }
}

impl RequestBody {
    pub(super) fn empty() -> Self {
        Self(None)
    }

    pub(super) fn new(
        (incoming, max): (Incoming, u64),
        idle: Timeout,
        (payer, live): (Payer, Arc<Live>),
        progress: Arc<Progress>,
        names: &Arc<Names>,
    ) -> Self {
        Self(Some(Box::new(Upload {
            names: Arc::clone(names),
            incoming,
            gate: None,
            idle: IdleTimer::new(idle),
            payer,
            live,
            turn: None,
            left: max,
            progress,
        })))
    }

    /// Sends nothing until this opens.
    pub(super) fn hold(&mut self, gate: Gate) {
        if let Some(upload) = &mut self.0 {
            upload.gate = Some(gate);
        }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(upload) = &mut self.0 else {
            return Poll::Ready(None);
        };
        if upload.live.ending().is_some() {
            return Poll::Ready(Some(Err(ENDED.into())));
        }
        if let Some(gate) = &mut upload.gate {
            ready!(gate.poll(context));
            upload.gate = None;
            upload.idle.progress();
        }
        if upload
            .payer
            .poll(Way::Up, &mut upload.turn, context)
            .is_pending()
        {
            upload.progress.is(WAITING);
            upload.idle.progress();
            return upload.waits(context);
        }
        match Pin::new(&mut upload.incoming).poll_frame(context) {
            Poll::Ready(Some(Ok(mut frame))) => {
                upload.idle.progress();
                if let Some(trailers) = frame.trailers_mut() {
                    scrub_trailers(trailers, &upload.names);
                }
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                upload.payer.moved(Way::Up, &mut upload.turn, bytes);
                let Some(left) = upload.left.checked_sub(bytes as u64) else {
                    upload.progress.is(TOO_LARGE);
                    return Poll::Ready(Some(Err("the client sent more than it may".into())));
                };
                upload.left = left;
                upload
                    .live
                    .moved(Way::Up, bytes as u64, upload.idle.last.into_std());
                upload.progress.data(bytes);
                let done = frame.is_trailers() || upload.incoming.is_end_stream();
                upload.progress.is(if done { DONE } else { MOVING });
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                if let Some(why) = malformed(&error) {
                    // Set once: a body fails once.
                    let _ = upload.progress.malformed.set(why);
                }
                Poll::Ready(Some(Err(Box::new(error))))
            }
            Poll::Ready(None) => {
                upload.progress.is(DONE);
                Poll::Ready(None)
            }
            Poll::Pending => {
                upload.progress.is(WAITING);
                if upload.idle.poll(context).is_pending() {
                    return upload.waits(context);
                }
                upload.progress.is(STALLED);
                Poll::Ready(Some(Err("the client sent nothing for too long".into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|upload| upload.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(
            || SizeHint::with_exact(0),
            |upload| upload.incoming.size_hint(),
        )
    }
}
