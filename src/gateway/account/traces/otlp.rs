//! Spans by OTLP over HTTP, from a thread and a queue of the SDK's own: what the collector does not take in time is dropped and
//! told in the operating log; no request waits for it.
//!
//! Names of attributes are those of OpenTelemetry's semantic conventions for HTTP, and `cde.…` where those have none.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use opentelemetry::{
    Context, KeyValue,
    trace::{
        Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags,
        TraceId, TraceState, Tracer as _, TracerProvider as _,
    },
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracer, SdkTracerProvider, Span as SdkSpan},
};

use super::{super::Record, Unsent};
use crate::{api::access::Port, config};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Where collectors take spans (OTLP/HTTP).
const PATH: &str = "/v1/traces";
/// How long a collector may take for a batch.
const WITHIN: Duration = Duration::from_secs(10);

/// Where spans go; nowhere, if no endpoint is configured.
#[derive(Debug)]
pub(crate) struct Traces(Option<(SdkTracerProvider, SdkTracer)>);

/// A request's or stream's span.
#[derive(Debug)]
pub(crate) struct Span(SdkSpan);

impl Traces {
    /// Sends to the configured collector.
    pub(crate) fn open(config: &config::Traces) -> Result<Self, Unsent> {
        if config.endpoint.is_empty() {
            return Ok(Self(None));
        }
        let exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(target(&config.endpoint))
            .with_timeout(WITHIN)
            .build()
            .map_err(|error| Unsent {
                endpoint: config.endpoint.clone(),
                why: error.to_string(),
            })?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::TraceIdRatioBased(config.ratio))
            .with_resource(Resource::builder().with_service_name("cde-gateway").build())
            .build();
        let tracer = provider.tracer("cde-gateway");
        Ok(Self(Some((provider, tracer))))
    }

    /// A span for a request, if this one is traced.
    pub(crate) fn begin(&self, method: &Method, headers: &HeaderMap) -> Option<Span> {
        let (_, tracer) = self.0.as_ref()?;
        let context = parent(headers).map_or_else(Context::new, |parent| {
            Context::new().with_remote_span_context(parent)
        });
        let span = tracer
            .span_builder(method.to_string())
            .with_kind(SpanKind::Server)
            .start_with_context(tracer, &context);
        span.is_recording().then_some(Span(span))
    }

    /// Sends what has ended, within this time. Blocks: not for a runtime's thread.
    pub(crate) fn finish(&self, within: Duration) {
        if let Some((provider, _)) = &self.0 {
            // The SDK has told in the log what could not be sent.
            let _ = provider.shutdown_with_timeout(within);
        }
    }
}

impl Span {
    /// What the upstream goes on with (W3C Trace Context §3.2).
    pub(crate) fn traceparent(&self) -> Option<HeaderValue> {
        let own = self.0.span_context();
        let text = format!("00-{}-{}-01", own.trace_id(), own.span_id());
        HeaderValue::try_from(text).ok()
    }

    /// Ends with its record.
    pub(crate) fn end(mut self, record: &Record) {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let version = record
            .protocol
            .trim_start_matches("http/")
            .trim_start_matches('h');
        self.0.set_attributes([
            KeyValue::new("http.request.method", record.method.to_string()),
            KeyValue::new("http.response.status_code", i64::from(record.status)),
            KeyValue::new("network.protocol.version", version.to_owned()),
            KeyValue::new("server.address", record.host.to_string()),
            KeyValue::new("url.path", record.path.to_string()),
            KeyValue::new("cde.request_id", record.id.to_string()),
            KeyValue::new("cde.step", record.step.name()),
            KeyValue::new("cde.reason", record.reason),
            KeyValue::new("cde.ended_by", record.ended_by),
            KeyValue::new("cde.received", number(record.received)),
            KeyValue::new("cde.sent", number(record.sent)),
        ]);
        if let Some(gitspace) = &record.gitspace {
            self.0
                .set_attribute(KeyValue::new("cde.gitspace", gitspace.to_string()));
        }
        match record.port {
            Some(Port::App(number)) => {
                self.0
                    .set_attribute(KeyValue::new("cde.port", i64::from(number)));
            }
            Some(Port::Ide | Port::Ssh) | None => {}
        }
        if let Some(micros) = record.first_byte_micros {
            self.0
                .set_attribute(KeyValue::new("cde.first_byte_us", number(micros)));
        }
        if record.status >= 500 {
            self.0.set_status(Status::error(record.reason));
        }
        self.0.end();
    }
}

/// The collector's path is where the endpoint names none.
fn target(endpoint: &str) -> String {
    let has_path = endpoint
        .parse::<Uri>()
        .is_ok_and(|uri| !uri.path().trim_matches('/').is_empty());
    match has_path {
        true => endpoint.to_owned(),
        false => format!("{}{PATH}", endpoint.trim_end_matches('/')),
    }
}

/// The span that the request is part of, where its one `traceparent` says so.
fn parent(headers: &HeaderMap) -> Option<SpanContext> {
    let mut all = headers.get_all(TRACEPARENT).iter();
    let (Some(value), None) = (all.next(), all.next()) else {
        return None;
    };
    let mut parts = value.to_str().ok()?.split('-');
    let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
    if version.len() != 2 || version == "ff" {
        return None;
    }
    let parent = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::default(),
        true,
        TraceState::NONE,
    );
    parent.is_valid().then_some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_collectors_is_added_where_none_is_named() {
        for (given, expected) in [
            ("http://a.test:4318", "http://a.test:4318/v1/traces"),
            ("http://a.test:4318/", "http://a.test:4318/v1/traces"),
            (
                "https://a.test/otlp/v1/traces",
                "https://a.test/otlp/v1/traces",
            ),
        ] {
            assert_eq!(target(given), expected);
        }
    }

    #[test]
    fn a_parent_is_one_valid_traceparent() {
        let map = |values: &[&'static str]| {
            let values = values
                .iter()
                .map(|value| (TRACEPARENT, HeaderValue::from_static(value)));
            values.collect::<HeaderMap>()
        };
        const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let known = parent(&map(&[GOOD])).unwrap();
        assert_eq!(
            known.trace_id().to_string(),
            "4bf92f3577b34da6a3ce929d0e0e4736"
        );
        for none in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-x-y-z",
        ] {
            assert!(parent(&map(&[none])).is_none(), "{none}");
        }
        assert!(parent(&map(&[GOOD, GOOD])).is_none());
    }
}
