//! Account: the one record per request or stream.
//!
//! Last step of the path, and known to all of them: the steps fill it, and whatever happens it is closed exactly once, at the
//! latest when it is dropped. An access log line and the metrics come from the same closing, so they cannot disagree.
//!
//! Not here: the writing of lines (`account::log`), the metrics' definitions (`account::metrics`), spans (`account::traces`).

pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod traces;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

use http::{HeaderMap, HeaderValue, Method};

use crate::{
    api::{GitspaceId, access::Port},
    telemetry::Chain,
};

use super::{
    drain::Drain,
    rejection::{Fault, Rejection},
};

/// The step that a request has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(into = "&str")]
pub(crate) enum Step {
    /// Its head is being read.
    Parse,
    /// Who is asking.
    Authenticate,
    /// What the host leads to.
    Route,
    /// Whether it may.
    Authorize,
    /// How much it may.
    Limit,
    /// On the way to the upstream.
    Forward,
    /// Its body or stream is under way.
    Relay,
}

impl Step {
    /// Its name in the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Authenticate => "authenticate",
            Self::Route => "route",
            Self::Authorize => "authorize",
            Self::Limit => "limit",
            Self::Forward => "forward",
            Self::Relay => "relay",
        }
    }
}

impl From<Step> for &'static str {
    fn from(step: Step) -> Self {
        step.name()
    }
}

/// Why a stream ended that was not rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// All was sent.
    Done,
    /// The client went away.
    ClientGone,
    /// The gitspace broke off.
    GitspaceBroke,
    /// Nothing came for too long.
    Idle,
    /// It lived as long as it may.
    Lifetime,
    /// The gateway stopped.
    Drained,
    /// Its target is another now.
    TargetChanged,
    /// Whoever had it may not have it any more.
    AccessEnded,
}

impl End {
    const fn reason(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::ClientGone => "client-gone",
            Self::GitspaceBroke => "gitspace-broke",
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::Drained => "drained",
            Self::TargetChanged => "target-changed",
            Self::AccessEnded => "access-ended",
        }
    }

    fn ended_by(self) -> &'static str {
        match self {
            Self::Done => "both",
            Self::ClientGone => "client",
            Self::GitspaceBroke => "gitspace",
            Self::Idle
            | Self::Lifetime
            | Self::Drained
            | Self::TargetChanged
            | Self::AccessEnded => "gateway",
        }
    }
}

/// What an access log line tells.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) time: SystemTime,
    pub(crate) id: Arc<str>,
    pub(crate) client: IpAddr,
    pub(crate) protocol: &'static str,
    pub(crate) method: Method,
    pub(crate) host: Box<str>,
    pub(crate) path: Box<str>,
    pub(crate) gitspace: Option<GitspaceId>,
    pub(crate) port: Option<Port>,
    pub(crate) principal: Option<Arc<str>>,
    pub(crate) step: Step,
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
    pub(crate) ended_by: &'static str,
    /// For the log only: why a token was refused, what an upstream did.
    pub(crate) detail: Option<Box<str>>,
    /// Bytes of the request's body or the stream.
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// From the request's head to the answer's.
    pub(crate) first_byte_micros: Option<u64>,
    pub(crate) total_micros: u64,
}

/// Where closed accounts go.
pub(crate) struct Sink {
    pub(crate) metrics: metrics::Metrics,
    pub(crate) log: log::AccessLog,
    pub(crate) traces: traces::Traces,
    drain: Drain,
}

impl Sink {
    pub(crate) fn new(
        metrics: metrics::Metrics,
        log: log::AccessLog,
        traces: traces::Traces,
        drain: Drain,
    ) -> Arc<Self> {
        Arc::new(Self {
            metrics,
            log,
            traces,
            drain,
        })
    }
}

/// See the module.
pub(crate) struct Account {
    record: Option<Box<Record>>,
    start: Instant,
    sink: Arc<Sink>,
    received: Option<Arc<AtomicU64>>,
    span: Option<traces::Span>,
}

impl Account {
    /// Opens the account of a request. Its method and path are kept as they are: `http::for_the_log` bounds them.
    pub(crate) fn open(
        sink: &Arc<Sink>,
        id: Arc<str>,
        client: IpAddr,
        protocol: &'static str,
        (method, path): (Method, Box<str>),
    ) -> Self {
        sink.metrics.streams.inc();
        let record = Record {
            time: SystemTime::now(),
            id,
            client,
            protocol,
            method,
            host: Box::default(),
            path,
            gitspace: None,
            port: None,
            principal: None,
            step: Step::Parse,
            status: 0,
            reason: End::ClientGone.reason(),
            ended_by: End::ClientGone.ended_by(),
            detail: None,
            received: 0,
            sent: 0,
            first_byte_micros: None,
            total_micros: 0,
        };
        Self {
            record: Some(Box::new(record)),
            start: Instant::now(),
            sink: Arc::clone(sink),
            received: None,
            span: None,
        }
    }

    /// Traces the request that has these fields, if this one is traced.
    pub(crate) fn trace(&mut self, headers: &HeaderMap) {
        let method = self.record.as_ref().map(|record| &record.method);
        self.span = method.and_then(|method| self.sink.traces.begin(method, headers));
    }

    /// What the upstream is to go on with, if this one is traced.
    pub(crate) fn traceparent(&self) -> Option<HeaderValue> {
        self.span.as_ref()?.traceparent()
    }

    fn with(&mut self, change: impl FnOnce(&mut Record)) {
        if let Some(record) = &mut self.record {
            change(record);
        }
    }

    /// The request's identifier.
    pub(crate) fn id(&self) -> &str {
        self.record.as_ref().map_or("", |record| &record.id)
    }

    /// The path that was asked for, as the log has it.
    pub(crate) fn path(&self) -> &str {
        self.record.as_ref().map_or("", |record| &record.path)
    }

    /// The same, to keep.
    pub(crate) fn shared_id(&self) -> Option<Arc<str>> {
        Some(Arc::clone(&self.record.as_ref()?.id))
    }

    /// The step that begins now.
    pub(crate) fn step(&mut self, step: Step) {
        self.with(|record| record.step = step);
    }

    /// The host, once it is canonical.
    pub(crate) fn host(&mut self, host: &str) {
        self.with(|record| record.host = host.into());
    }

    /// Who is asking.
    pub(crate) fn principal(&mut self, name: &Arc<str>) {
        self.with(|record| record.principal = Some(Arc::clone(name)));
    }

    /// What it is for.
    pub(crate) fn route(&mut self, gitspace: &GitspaceId, port: Port) {
        self.with(|record| {
            record.gitspace = Some(gitspace.clone());
            record.port = Some(port);
        });
    }

    /// The counter of the request body's bytes, made when there is a body.
    pub(crate) fn received(&mut self) -> Arc<AtomicU64> {
        Arc::clone(self.received.get_or_insert_default())
    }

    /// The answer's head is known.
    pub(crate) fn answered(&mut self, status: http::StatusCode) {
        let micros = self.start.elapsed().as_micros() as u64;
        self.with(|record| {
            record.status = status.as_u16();
            record.first_byte_micros = Some(micros);
        });
    }

    /// Bytes sent to the client.
    pub(crate) fn sent(&mut self, bytes: u64) {
        self.with(|record| record.sent += bytes);
    }

    /// The whole body of an answer of our own; HEAD gets none of it (RFC 9110 §9.3.2).
    pub(crate) fn sent_own(&mut self, body: &impl http_body::Body) {
        let bytes = body.size_hint().exact().unwrap_or(0);
        self.with(|record| {
            if record.method != Method::HEAD {
                record.sent += bytes;
            }
        });
    }

    /// Bytes that came from the client on a tunnel.
    pub(crate) fn tunnelled(&mut self, received: u64, sent: u64) {
        self.with(|record| {
            record.received += received;
            record.sent += sent;
        });
    }

    /// Closes it: it ended by itself, or was ended.
    pub(crate) fn close(mut self, end: End) {
        self.finish(end.reason(), end.ended_by(), None);
    }

    /// Closes it: it had to end, because of this.
    pub(crate) fn close_because(mut self, end: End, detail: &str) {
        let detail = Some(shortened(detail, DETAIL_MAX));
        self.finish(end.reason(), end.ended_by(), detail);
    }

    /// Closes it: it was rejected.
    pub(crate) fn reject(self, rejection: &Rejection) {
        self.reject_as(rejection, rejection.status());
    }

    /// Closes it: it was rejected, and told so with this status.
    pub(crate) fn reject_as(mut self, rejection: &Rejection, status: http::StatusCode) {
        let detail = detail(rejection);
        self.with(|record| record.status = status.as_u16());
        let by = match rejection.fault() {
            Fault::Client => "client",
            Fault::Gitspace => "gitspace",
            Fault::Gateway => "gateway",
        };
        self.finish(rejection.reason(), by, detail);
    }

    fn finish(&mut self, reason: &'static str, ended_by: &'static str, detail: Option<Box<str>>) {
        let Some(mut record) = self.record.take() else {
            return;
        };
        record.reason = reason;
        record.ended_by = ended_by;
        record.detail = detail;
        record.received += self
            .received
            .as_ref()
            .map_or(0, |bytes| bytes.load(Ordering::Relaxed));
        record.total_micros = self.start.elapsed().as_micros() as u64;
        self.sink.metrics.closed(&record);
        if let Some(span) = self.span.take() {
            span.end(&record);
        }
        self.sink.log.write(record);
    }
}

impl Drop for Account {
    /// Dropped in the middle: hyper lets go of a request when its client has gone, and we do when a stop has waited long enough.
    fn drop(&mut self) {
        let end = if self.sink.drain.is_over() {
            End::Drained
        } else {
            End::ClientGone
        };
        self.finish(end.reason(), end.ended_by(), None);
    }
}

/// What the log may tell beyond the reason.
fn detail(rejection: &Rejection) -> Option<Box<str>> {
    let text = match rejection {
        Rejection::InvalidToken(why) => why.clone(),
        Rejection::BadRequest(why) => (*why).to_owned(),
        Rejection::AccessEnded(why) => why.as_ref().to_owned(),
        Rejection::Tls { source, .. } => Chain(source).to_string(),
        Rejection::Unreachable(error) | Rejection::NothingListens(_, error) => error.to_string(),
        Rejection::Broke(_, error) => Chain(&**error).to_string(),
        _ => return None,
    };
    Some(shortened(&text, DETAIL_MAX))
}

/// What a client or an upstream may make long is cut.
const DETAIL_MAX: usize = 512;

/// The text, or its beginning and an ellipsis.
fn shortened(text: &str, max: usize) -> Box<str> {
    if text.len() <= max {
        return text.into();
    }
    format!("{}...", &text[..text.floor_char_boundary(max)]).into()
}
