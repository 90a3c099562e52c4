//! The access log: one JSON line per record, written by a thread of its own.
//!
//! The data path only hands a record over. When the writer cannot keep up, lines are dropped and counted, never waited for.

use std::{
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use serde::Serialize;

use super::Record;

/// Records that may wait for the writer.
const WAITING: usize = 16_384;
/// How long the writer collects lines before it looks again: a writer that sleeps need not be woken for each of them.
const COLLECT: Duration = Duration::from_millis(10);

/// Where lines go. Cheap to clone.
#[derive(Clone)]
pub(crate) struct AccessLog {
    sender: Option<SyncSender<Box<Record>>>,
    lost: Arc<AtomicU64>,
}

impl AccessLog {
    /// Opens `path`: a file, `-` for standard output, "" for none.
    pub(crate) fn open(path: &str) -> io::Result<Self> {
        let output: Box<dyn Write + Send> = match path {
            "" => {
                return Ok(Self {
                    sender: None,
                    lost: Arc::default(),
                });
            }
            "-" => Box::new(io::stdout()),
            path => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
        };
        Self::to(output)
    }

    /// Writes to `output`.
    pub(crate) fn to(output: Box<dyn Write + Send>) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(WAITING);
        thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write(&receiver, output))?;
        Ok(Self {
            sender: Some(sender),
            lost: Arc::default(),
        })
    }

    /// Hands a record over.
    pub(super) fn write(&self, record: Box<Record>) {
        if let Some(sender) = &self.sender
            && sender.try_send(record).is_err()
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many lines were dropped.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Writes until every sender is gone.
fn write(receiver: &Receiver<Box<Record>>, output: Box<dyn Write + Send>) {
    let mut output = BufWriter::with_capacity(64 * 1024, output);
    while let Ok(first) = receiver.recv() {
        let mut next = Some(first);
        while let Some(record) = next {
            // A full disk or closed pipe must not end the gateway; the next line tries again.
            let _ = serde_json::to_writer(&mut output, &Line::from(&*record));
            let _ = output.write_all(b"\n");
            next = receiver.try_recv().ok();
        }
        let _ = output.flush();
        collect();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread of its own, not a runtime's"
)]
fn collect() {
    thread::sleep(COLLECT);
}

/// A line, in the order of its fields.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    id: &'a str,
    client: std::net::IpAddr,
    protocol: &'static str,
    method: &'a str,
    host: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    gitspace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<&'a str>,
    step: super::Step,
    status: u16,
    reason: &'static str,
    ended_by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    received: u64,
    sent: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte_ms: Option<f64>,
    total_ms: f64,
}

impl<'a> From<&'a Record> for Line<'a> {
    fn from(record: &'a Record) -> Self {
        let millis = |micros: u64| micros as f64 / 1000.0;
        Self {
            time: jiff::Timestamp::try_from(record.time)
                .map(|time| format!("{time:.3}"))
                .unwrap_or_default(),
            id: &record.id,
            client: record.client,
            protocol: record.protocol,
            method: record.method.as_str(),
            host: &record.host,
            path: &record.path,
            gitspace: record.gitspace.as_ref().map(crate::api::GitspaceId::as_str),
            port: record.port.map(|port| port.to_string()),
            principal: record.principal.as_deref(),
            step: record.step,
            status: record.status,
            reason: record.reason,
            ended_by: record.ended_by,
            detail: record.detail.as_deref(),
            received: record.received,
            sent: record.sent,
            first_byte_ms: record.first_byte_micros.map(millis),
            total_ms: millis(record.total_micros),
        }
    }
}
