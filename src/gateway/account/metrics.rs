//! The gateway's metrics. Labels are closed sets: never a user, host or path.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use super::Record;

/// Why requests ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct EndLabels {
    /// The status's first digit, `1xx` to `5xx`; `none` when there was no answer.
    status: &'static str,
    /// The stable reason.
    reason: &'static str,
}

/// See the module.
pub(crate) struct Metrics {
    requests: Family<EndLabels, Counter>,
    received: Counter,
    sent: Counter,
    first_byte: Histogram,
    /// Requests and streams under way.
    pub(crate) streams: Gauge,
    /// Connections of clients.
    pub(crate) connections: Gauge,
    /// Connections that were closed because of a limit.
    pub(crate) refused_connections: Counter,
    /// Connections that were told that all places are taken.
    pub(crate) shed_connections: Counter,
    /// HTTP/2 connections that were ended for a flood, or for requests broken off.
    pub(crate) abusive_connections: Counter,
    /// Connections that had to begin with a PROXY protocol header and did not, or may not come at all.
    pub(crate) unannounced_connections: Counter,
    /// TLS handshakes that failed or took too long.
    pub(crate) failed_handshakes: Counter,
    /// Connections made to upstreams.
    pub(crate) upstream_connections: Counter,
    /// Requests sent on a connection that was there.
    pub(crate) upstream_reused: Counter,
    /// Routes in the table.
    pub(crate) routes: Gauge,
    /// The feed's revision that was applied last.
    pub(crate) feed_revision: Gauge,
    /// Answers of the feed that could not be used, and calls that failed.
    pub(crate) feed_failures: Counter,
    /// Lines of the access log that were dropped.
    pub(crate) lost_lines: Gauge,
}

impl Metrics {
    /// Makes and registers them.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            received: Counter::default(),
            sent: Counter::default(),
            first_byte: Histogram::new(exponential_buckets(0.000_25, 4.0, 10)),
            streams: Gauge::default(),
            connections: Gauge::default(),
            refused_connections: Counter::default(),
            shed_connections: Counter::default(),
            abusive_connections: Counter::default(),
            unannounced_connections: Counter::default(),
            failed_handshakes: Counter::default(),
            upstream_connections: Counter::default(),
            upstream_reused: Counter::default(),
            routes: Gauge::default(),
            feed_revision: Gauge::default(),
            feed_failures: Counter::default(),
            lost_lines: Gauge::default(),
        };
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
            "From a request's head to its answer's",
            self.first_byte.clone(),
        );
        registry.register(
            "streams",
            "Requests and streams under way",
            self.streams.clone(),
        );
        registry.register(
            "connections",
            "Connections of clients",
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
            "TLS handshakes that failed",
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
            "feed_failures",
            "Calls of the feed that failed",
            self.feed_failures.clone(),
        );
        registry.register(
            "access_log_lost_lines",
            "Access log lines dropped",
            self.lost_lines.clone(),
        );
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
        self.requests
            .get_or_create(&EndLabels {
                status,
                reason: record.reason,
            })
            .inc();
        self.received.inc_by(record.received);
        self.sent.inc_by(record.sent);
        if let Some(micros) = record.first_byte_micros {
            self.first_byte.observe(micros as f64 / 1e6);
        }
        self.streams.dec();
    }
}
