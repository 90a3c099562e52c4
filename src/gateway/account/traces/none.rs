//! No traces: what a build without the feature `otel` has in their place.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method};

use super::{super::Record, Unsent};
use crate::config;

/// Nothing.
#[derive(Debug)]
pub(crate) struct Traces;

/// Never made.
#[derive(Debug)]
pub(crate) enum Span {}

impl Traces {
    /// `check` refuses what this build cannot do.
    pub(crate) fn open(_: &config::Traces) -> Result<Self, Unsent> {
        Ok(Self)
    }

    /// None.
    pub(crate) fn begin(&self, _: &Method, _: &HeaderMap) -> Option<Span> {
        None
    }

    /// Nothing to wait for.
    pub(crate) fn finish(&self, _: Duration) {}
}

impl Span {
    /// What the upstream goes on with.
    pub(crate) fn traceparent(&self) -> Option<HeaderValue> {
        match *self {}
    }

    /// Ends with its record.
    pub(crate) fn end(self, _: &Record) {
        match self {}
    }
}
