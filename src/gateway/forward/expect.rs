//! `Expect: 100-continue` (RFC 9110 §10.1.1): the upload waits until its upstream wants it.
//!
//! The client's body is asked for only when the upstream has said `100 Continue`; asking makes hyper say it to the client. An
//! upstream that answers at once spares both the upload. One that does not know `Expect` says nothing: after [`PATIENCE`] the body
//! is sent anyway.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, Request, StatusCode, header};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::body::RequestBody;

/// How long an upstream has to ask for the body.
const PATIENCE: Duration = Duration::from_secs(1);

/// Opens when the body may be sent.
pub(super) struct Gate {
    asked: Pin<Box<WaitForCancellationFutureOwned>>,
    patience: Pin<Box<Sleep>>,
}

impl Gate {
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.asked.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        self.patience.as_mut().poll(context)
    }
}

/// Holds a request's body back if its client waits to be asked for it.
pub(super) fn hold(request: &mut Request<RequestBody>) {
    if !expects(request.headers()) {
        return;
    }
    let asked = CancellationToken::new();
    let gate = Gate {
        asked: Box::pin(asked.clone().cancelled_owned()),
        patience: Box::pin(tokio::time::sleep(PATIENCE)),
    };
    request.body_mut().hold(gate);
    hyper::ext::on_informational(request, move |interim| {
        if interim.status() == StatusCode::CONTINUE {
            asked.cancel();
        }
    });
}

fn expects(headers: &HeaderMap) -> bool {
    headers
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
