//! The gateway's metrics. Labels are closed sets: never a user, gitspace, host or path.
//!
//! Not here: who counts (each step what is its own), how they are read (`admin`).

use std::{
    sync::atomic::AtomicU64,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::Registry,
};

use super::{End, Record};
use crate::gateway::tls::Failure;

/// Why requests ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct EndLabels {
    /// What the client spoke: `http/1.1` or `h2`.
    protocol: &'static str,
    /// The status's first digit, `1xx` to `5xx`; `none` when there was no answer.
    status: &'static str,
    /// The stable reason.
    reason: &'static str,
}

/// How lines of the access log were lost.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LossLabels {
    cause: &'static str,
}

/// Lines of the access log that were not written. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct LostLines {
    /// The writer was behind.
    pub(crate) slow: Counter,
    /// Writing failed.
    pub(crate) failed: Counter,
    family: Family<LossLabels, Counter>,
}

impl Default for LostLines {
    fn default() -> Self {
        let family = Family::<LossLabels, Counter>::default();
        let [slow, failed] =
            ["slow", "failed"].map(|cause| family.get_or_create_owned(&LossLabels { cause }));
        Self {
            slow,
            failed,
            family,
        }
    }
}

impl LostLines {
    /// However they were lost.
    pub(crate) fn all(&self) -> u64 {
        self.slow.get() + self.failed.get()
    }
}

/// What a client's connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionState {
    /// Its protocol is not known so far: TLS is being set up.
    Opening,
    /// It speaks HTTP/1.1.
    Http1,
    /// It speaks HTTP/2.
    H2,
    /// It was HTTP/1.1 and became a tunnel.
    Tunnel,
}

impl ConnectionState {
    const ALL: [Self; 4] = [Self::Opening, Self::Http1, Self::H2, Self::Tunnel];

    fn name(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Http1 => "http/1.1",
            Self::H2 => "h2",
            Self::Tunnel => "tunnel",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

/// Why handshakes failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandshakeLabels {
    reason: &'static str,
}

/// See the module.
pub(crate) struct Metrics {
    requests: Family<EndLabels, Counter>,
    /// Those of nearly all requests, found without a look-up: HTTP/1.1 and HTTP/2.
    done: [Counter; 2],
    received: Counter,
    sent: Counter,
    first_byte: Histogram,
    total: Histogram,
    /// Requests and streams under way.
    pub(crate) streams: Gauge,
    /// Tasks of the data path. Set when it is asked for.
    pub(crate) tasks: Gauge,
    connections: Family<StateLabels, Gauge>,
    /// In the order of [`ConnectionState::ALL`].
    by_state: [Gauge; 4],
    /// Connections that were closed because of a limit.
    pub(crate) refused_connections: Counter,
    /// Connections that were told that all places are taken.
    pub(crate) shed_connections: Counter,
    /// HTTP/2 connections that were ended for a flood, or for requests broken off.
    pub(crate) abusive_connections: Counter,
    /// Connections that had to begin with a PROXY protocol header and did not, or may not come at all.
    pub(crate) unannounced_connections: Counter,
    failed_handshakes: Family<HandshakeLabels, Counter>,
    /// Connections made to upstreams.
    pub(crate) upstream_connections: Counter,
    /// Requests sent on a connection that was there.
    pub(crate) upstream_reused: Counter,
    /// Routes in the table.
    pub(crate) routes: Gauge,
    /// The feed's revision that was applied last.
    pub(crate) feed_revision: Gauge,
    /// By how many seconds our clock is ahead of the control plane's.
    pub(crate) clock_skew: Gauge,
    /// Answers of the feed that could not be used, and calls that failed.
    pub(crate) feed_failures: Counter,
    /// Lines of the access log that were not written.
    pub(crate) lost_lines: LostLines,
}

impl Metrics {
    /// Makes and registers them.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let requests = Family::<EndLabels, Counter>::default();
        let done = ["http/1.1", "h2"].map(|protocol| {
            let labels = EndLabels {
                protocol,
                status: "2xx",
                reason: End::Done.reason(),
            };
            requests.get_or_create_owned(&labels)
        });
        let connections = Family::<StateLabels, Gauge>::default();
        let by_state = ConnectionState::ALL.map(|state| {
            let state = state.name();
            connections.get_or_create_owned(&StateLabels { state })
        });
        let metrics = Self {
            requests,
            done,
            received: Counter::default(),
            sent: Counter::default(),
            first_byte: Histogram::new(exponential_buckets(0.000_25, 4.0, 10)),
            total: Histogram::new(exponential_buckets(0.001, 4.0, 12)),
            streams: Gauge::default(),
            tasks: Gauge::default(),
            connections,
            by_state,
            refused_connections: Counter::default(),
            shed_connections: Counter::default(),
            abusive_connections: Counter::default(),
            unannounced_connections: Counter::default(),
            failed_handshakes: Family::default(),
            upstream_connections: Counter::default(),
            upstream_reused: Counter::default(),
            routes: Gauge::default(),
            feed_revision: Gauge::default(),
            clock_skew: Gauge::default(),
            feed_failures: Counter::default(),
            lost_lines: LostLines::default(),
        };
        registry.register(
            "process_start_time_seconds",
            "When the gateway was started, in seconds since 1970",
            started(),
        );
        metrics.register(registry.sub_registry_with_prefix("cde_gateway"));
        metrics
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "requests",
            "Requests and streams by their end",
            self.requests.clone(),
        );
        registry.register(
            "received_bytes",
            "Bytes of bodies and streams from clients",
            self.received.clone(),
        );
        registry.register(
            "sent_bytes",
            "Bytes of bodies and streams to clients",
            self.sent.clone(),
        );
        registry.register(
            "first_byte_seconds",
            "From a request's head to its answer's, refusals apart",
            self.first_byte.clone(),
        );
        registry.register(
            "total_seconds",
            "From a request's head to the end of its answer or stream",
            self.total.clone(),
        );
        registry.register(
            "streams",
            "Requests and streams under way",
            self.streams.clone(),
        );
        registry.register(
            "tasks",
            "Tasks of listeners, connections and streams on the data path",
            self.tasks.clone(),
        );
        registry.register(
            "connections",
            "Connections of clients by what they are at",
            self.connections.clone(),
        );
        registry.register(
            "refused_connections",
            "Connections closed by a limit",
            self.refused_connections.clone(),
        );
        registry.register(
            "shed_connections",
            "Connections answered 503 because all places were taken",
            self.shed_connections.clone(),
        );
        registry.register(
            "abusive_connections",
            "HTTP/2 connections ended for a flood or broken-off requests",
            self.abusive_connections.clone(),
        );
        registry.register(
            "unannounced_connections",
            "Connections without the PROXY protocol header that their listener wants",
            self.unannounced_connections.clone(),
        );
        registry.register(
            "failed_handshakes",
            "TLS handshakes that failed or took too long, by why",
            self.failed_handshakes.clone(),
        );
        registry.register(
            "upstream_connections",
            "Connections made to upstreams",
            self.upstream_connections.clone(),
        );
        registry.register(
            "upstream_reused",
            "Requests on pooled connections",
            self.upstream_reused.clone(),
        );
        registry.register("routes", "Routes in the table", self.routes.clone());
        registry.register(
            "feed_revision",
            "Revision of the feed applied last",
            self.feed_revision.clone(),
        );
        registry.register(
            "clock_skew_seconds",
            "By how much this machine's clock was ahead of the control plane's at the last answer of the feed",
            self.clock_skew.clone(),
        );
        registry.register(
            "feed_failures",
            "Calls of the feed that failed",
            self.feed_failures.clone(),
        );
        registry.register(
            "access_log_lost_lines",
            "Access log lines that were not written",
            self.lost_lines.family.clone(),
        );
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program that runs", build);
    }

    /// The connections that are in this state.
    pub(crate) fn connections(&self, state: ConnectionState) -> &Gauge {
        &self.by_state[state as usize]
    }

    /// Counts a TLS handshake that failed.
    pub(crate) fn failed_handshake(&self, failure: Failure) {
        let reason = failure.label();
        self.failed_handshakes
            .get_or_create(&HandshakeLabels { reason })
            .inc();
    }

    /// Counts a closed account.
    pub(super) fn closed(&self, record: &Record) {
        let status = match record.status / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            5 => "5xx",
            _ => "none",
        };
        if (status, record.reason) == ("2xx", End::Done.reason()) {
            self.done[usize::from(record.protocol == "h2")].inc();
        } else {
            let labels = EndLabels {
                protocol: record.protocol,
                status,
                reason: record.reason,
            };
            self.requests.get_or_create(&labels).inc();
        }
        self.received.inc_by(record.received);
        self.sent.inc_by(record.sent);
        if let Some(micros) = record.first_byte_micros {
            self.first_byte.observe(micros as f64 / 1e6);
        }
        self.total.observe(record.total_micros as f64 / 1e6);
        self.streams.dec();
    }
}

/// When this process began, as far as the gateway knows.
fn started() -> Gauge<f64, AtomicU64> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let started = Gauge::default();
    started.set(since.as_secs_f64());
    started
}
