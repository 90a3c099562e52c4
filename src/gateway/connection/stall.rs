//! HTTP/2 streams whose client gives no window: they end after `body_idle`.
//!
//! hyper keeps the last piece of a body until its client has room for it and asks the body for nothing meanwhile, so a deadline in
//! the body would never be looked at. The task around the stream can see it: the body's last word was a piece, and since then
//! nothing has moved. Dropped, the task resets its stream; the other streams of the connection go on.
//!
//! Not here: a connection whose socket takes nothing (`pace`), a body that waits for its upstream (`forward::body`).

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use crate::config::Timeout;

thread_local! {
    /// What the body said that was asked last on this thread: whether it gave a piece.
    static GAVE: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Notes that a body was asked for a piece, and whether it gave one.
pub(super) fn note(gave: bool) {
    GAVE.set(Some(gave));
}

/// Runs the streams of a connection.
#[derive(Clone)]
pub(super) struct Streams {
    body_idle: Option<Duration>,
}

impl Streams {
    pub(super) fn new(body_idle: Timeout) -> Self {
        Self {
            body_idle: body_idle.duration(),
        }
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        // Boxed: it is large, and starting a task moves it several times.
        let stream = Box::pin(stream);
        match self.body_idle {
            Some(idle) => tokio::spawn(Watched::new(stream, idle)),
            None => tokio::spawn(stream),
        };
    }
}

/// Ends with its stream, or when the stream's client has taken nothing for too long.
struct Watched<F> {
    stream: Pin<Box<F>>,
    idle: Duration,
    stall: Stall,
}

impl<F> Watched<F> {
    fn new(stream: Pin<Box<F>>, idle: Duration) -> Self {
        let stall = Stall {
            since: None,
            sleep: None,
        };
        Self {
            stream,
            idle,
            stall,
        }
    }
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        GAVE.set(None);
        if self.stream.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let idle = self.idle;
        self.stall.poll(GAVE.get(), idle, context)
    }
}

struct Stall {
    /// Since when a piece waits for its client.
    since: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    fn poll(&mut self, gave: Option<bool>, idle: Duration, context: &mut Context<'_>) -> Poll<()> {
        match gave {
            Some(true) => self.since = Some(Instant::now()),
            Some(false) => self.since = None,
            // The body was not asked: nothing has moved.
            None => {}
        }
        let Some(since) = self.since else {
            return Poll::Pending;
        };
        let deadline = since + idle;
        loop {
            let sleep = self
                .sleep
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            std::task::ready!(sleep.as_mut().poll(context));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}
