//! What becomes of a request's body that nobody read, when the answer is one of our own.
//!
//! A little is taken, so that the connection can go on; with more the connection ends (RFC 9112 §9.6).

use std::time::Duration;

use http::{HeaderValue, Response, Version, header, request::Parts};
use hyper::body::{Body as _, Incoming};

use super::forward::Body;

/// How much is taken for the connection's sake.
const MAX: u64 = 64 * 1024;
/// How long that may take.
const WITHIN: Duration = Duration::from_secs(5);

/// What must be known of a request before its parts are given away.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unread {
    http1: bool,
    /// The client waits for a word before it sends the body, and may never send it (RFC 9110 §10.1.1).
    expects: bool,
    has_body: bool,
}

impl Unread {
    pub(crate) fn of(parts: &Parts, body: &Incoming) -> Self {
        Self {
            http1: parts.version != Version::HTTP_2,
            expects: parts.headers.contains_key(header::EXPECT),
            has_body: !body.is_end_stream(),
        }
    }

    /// Takes what is left of `body`, or lets the answer end the connection. HTTP/2 ends the stream alone.
    pub(crate) fn discard(self, body: Option<Incoming>, response: &mut Response<Body>) {
        if !self.has_body || !self.http1 {
            return;
        }
        match body {
            Some(body) if !self.expects && body.size_hint().lower() <= MAX => {
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(WITHIN, take(body)).await;
                });
            }
            // Sent in part, or too much.
            _ => {
                response
                    .headers_mut()
                    .insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
        }
    }
}

async fn take(mut body: Incoming) {
    use http_body_util::BodyExt;
    let mut left = MAX as usize;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, bytes::Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
