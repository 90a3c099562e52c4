//! The access log: one line per record, written by a thread of its own.
//!
//! The data path only hands a record over. When the writer cannot keep up, or cannot write, lines are dropped and counted,
//! never waited for; a warning tells the operator. A reload opens the file again, so that a rotated file can be let go.
//!
//! Not here: how a line looks (`line`), how lines reach a file (`output`).

mod line;
mod output;

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use prometheus_client::metrics::counter::Counter;
use tokio_util::sync::CancellationToken;

use super::{Record, metrics::LostLines};
use crate::config;
use line::Style;
use output::Output;

pub(crate) use output::Sink;

/// Records that may wait for the writer.
const WAITING: usize = 16_384;
/// Bytes that are written at once; a little more, since lines are not cut.
const BATCH: usize = 64 * 1024;
/// How long the writer collects lines before it looks again: a writer that sleeps need not be woken for each of them.
const COLLECT: Duration = Duration::from_millis(10);
/// How often somebody looks whether lines were lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often at most the operator is told of it.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Where lines go. Cheap to clone.
#[derive(Clone)]
pub(crate) struct AccessLog {
    path: Arc<str>,
    sender: Option<SyncSender<Order>>,
    next: Arc<Mutex<Option<Sink>>>,
    lost: LostLines,
}

/// What the writer is told.
enum Order {
    /// Write this.
    Line(Box<Record>),
    /// Look whether there is another file.
    Look,
    /// Say when all before this is written.
    Written(SyncSender<()>),
}

impl AccessLog {
    /// Opens what is configured. Of a path "" nothing is written.
    pub(crate) fn open(config: &config::AccessLog, lost: LostLines) -> io::Result<Self> {
        let style = Style {
            format: config.format,
            client_address: config.client_address,
        };
        let mut log = Self {
            path: config.path.as_str().into(),
            sender: None,
            next: Arc::default(),
            lost,
        };
        if !config.path.is_empty() {
            let output = Output::new(output::open(&config.path)?);
            let (sender, orders) = sync_channel(WAITING);
            let writer = Writer {
                orders,
                output,
                style,
                next: Arc::clone(&log.next),
                failed: log.lost.failed.clone(),
                path: Arc::clone(&log.path),
                failing: false,
                told: None,
            };
            thread::Builder::new()
                .name("access-log".into())
                .spawn(move || writer.run())?;
            log.sender = Some(sender);
        }
        Ok(log)
    }

    /// Hands a record over.
    pub(super) fn write(&self, record: Box<Record>) {
        if let Some(sender) = &self.sender
            && sender.try_send(Order::Line(record)).is_err()
        {
            self.lost.slow.inc();
        }
    }

    /// Opens the file again; nothing is written to it before [`Self::turn_to`]. Nothing for standard output or no log.
    pub(crate) fn open_again(&self) -> io::Result<Option<Sink>> {
        match (&self.sender, &*self.path) {
            (None, _) | (_, "-") => Ok(None),
            (_, path) => output::open(path).map(Some),
        }
    }

    /// Writes to this from now on; what was handed over before may go to the old file or to this one.
    pub(crate) fn turn_to(&self, sink: Sink) {
        *lock(&self.next) = Some(sink);
        if let Some(sender) = &self.sender {
            // A writer with a full queue is awake and looks by itself.
            let _ = sender.try_send(Order::Look);
        }
    }

    /// Waits until all that was handed over is written, at most this long. Blocks: not for a runtime's thread.
    pub(crate) fn finish(&self, within: Duration) {
        let Some(sender) = &self.sender else {
            return;
        };
        let (answer, written) = sync_channel(1);
        if sender.try_send(Order::Written(answer)).is_ok() {
            let _ = written.recv_timeout(within);
        }
    }

    /// Warns when lines were lost, at once and then once in a while, until the stop.
    pub(crate) async fn watch(self, stop: CancellationToken) {
        let (mut known, mut told) = (self.lost.all(), None::<tokio::time::Instant>);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let lost = self.lost.all();
            if lost > known && told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                tracing::warn!(
                    path = &*self.path,
                    lines = lost - known,
                    in_all = lost,
                    "lines of the access log were lost: its file cannot be written, or not fast enough"
                );
                (known, told) = (lost, Some(tokio::time::Instant::now()));
            }
        }
    }
}

fn lock(next: &Mutex<Option<Sink>>) -> std::sync::MutexGuard<'_, Option<Sink>> {
    // There is nothing in it that could be half changed.
    next.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread's own.
struct Writer {
    orders: Receiver<Order>,
    output: Output,
    style: Style,
    next: Arc<Mutex<Option<Sink>>>,
    failed: Counter,
    path: Arc<str>,
    failing: bool,
    /// When it was said last that writing fails.
    told: Option<Instant>,
}

impl Writer {
    /// Writes until every sender is gone.
    fn run(mut self) {
        let mut lines = Vec::with_capacity(BATCH);
        while let Ok(first) = self.orders.recv() {
            self.take_next();
            let mut waiting = Vec::new();
            let mut next = Some(first);
            while let Some(order) = next {
                match order {
                    Order::Line(record) => self.style.append(&record, &mut lines),
                    Order::Look => self.take_next(),
                    Order::Written(answer) => waiting.push(answer),
                }
                if lines.len() >= BATCH {
                    self.write(&mut lines);
                    self.take_next();
                }
                next = self.orders.try_recv().ok();
            }
            self.write(&mut lines);
            for answer in waiting {
                let _ = answer.try_send(());
            }
            pause();
        }
    }

    fn take_next(&mut self) {
        let Some(sink) = lock(&self.next).take() else {
            return;
        };
        self.failed.inc_by(self.output.replace(sink));
    }

    fn write(&mut self, lines: &mut Vec<u8>) {
        if lines.is_empty() {
            return;
        }
        match self.output.write(lines) {
            Ok(()) if std::mem::take(&mut self.failing) => {
                tracing::info!(path = &*self.path, "the access log can be written again");
            }
            Ok(()) => {}
            Err(failed) => self.tell(&failed),
        }
        lines.clear();
        lines.shrink_to(2 * BATCH);
    }

    /// A full disk or closed pipe must not end the gateway: it is told, once in a while, and the next lines try again.
    fn tell(&mut self, failed: &output::Failed) {
        self.failed.inc_by(failed.lost);
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            self.failing = true;
            let error = &failed.error;
            tracing::warn!(path = &*self.path, %error, "the access log cannot be written");
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread of its own, not a runtime's"
)]
fn pause() {
    thread::sleep(COLLECT);
}
