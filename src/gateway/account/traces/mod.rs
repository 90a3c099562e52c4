//! Traces: one span per request or stream, sent to a collector by OTLP.
//!
//! A span begins with its account and ends with it, and tells what the log's line tells, but for what is personal: no client's
//! address and no name. Only a build with the feature `otel` has them; without it the types here are empty, and `check` refuses an
//! endpoint. Which requests are traced is decided here alone, at their beginning: a client's `sampled` counts for nothing, or
//! strangers would decide how much is sent.
//!
//! Not here: the check of a client's `traceparent` (`forward::headers`).

#[cfg(not(feature = "otel"))]
mod none;
#[cfg(feature = "otel")]
mod otlp;

#[cfg(not(feature = "otel"))]
pub(crate) use none::{Span, Traces};
#[cfg(feature = "otel")]
pub(crate) use otlp::{Span, Traces};

/// Traces that cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("cannot send traces to {endpoint}: {why}")]
pub struct Unsent {
    /// The configured endpoint.
    pub endpoint: String,
    /// Why not.
    pub why: String,
}
