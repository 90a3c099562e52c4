//! HTTP/1.1: hyper's server behind the head guard.
//!
//! Not here: TLS and the choice of protocol (`connection`), what happens to a request (`Worker::serve`).

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Request, Response, StatusCode};
use hyper::{body::Incoming, server::conn::http1::Builder, service::service_fn};
use hyper_util::rt::TokioIo;

use super::{
    ClientIo, HeadLimits, Peer,
    guard::{Gate, Guard},
    pace::{Pace, Tracked},
};
use crate::gateway::{Worker, forward::Body};

/// Fields of a head at most, whatever the configuration allows: so many hyper parses without an allocation. Cookies, of which
/// browsers have many, are one field in HTTP/1.1.
const FIELDS: usize = 100;
/// What hyper's buffer may hold beside a head of the largest size: it gets heads whole.
const ROOM: usize = 16 * 1024;
/// How long a connection whose time is up has for its end.
const LAST: Duration = Duration::from_secs(1);

/// Serves a connection that speaks HTTP/1.1, until it ends.
pub(super) async fn serve(worker: Arc<Worker>, io: ClientIo, peer: Arc<Peer>, pace: Arc<Pace>) {
    let HeadLimits { bytes, fields } = worker.gateway.head_limits;
    let limits = HeadLimits {
        bytes,
        fields: fields.min(FIELDS),
    };
    let gate = Arc::new(Gate::default());
    let guard = Guard::new(
        Arc::clone(&gate),
        limits,
        pace.deadline(),
        worker.gateway.timeouts.head,
    );
    let service = {
        let (worker, pace) = (Arc::clone(&worker), Arc::clone(&pace));
        service_fn(move |request: Request<Incoming>| {
            let (worker, peer, gate, in_flight) = (
                Arc::clone(&worker),
                Arc::clone(&peer),
                Arc::clone(&gate),
                Pace::begin(&pace),
            );
            async move {
                let number = gate.next();
                let response: Response<Body> = match gate.refusal(number) {
                    None => worker.serve(request, &peer).await,
                    Some(refusal) => worker.refuse(refusal, &peer),
                };
                if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                    gate.answered(number);
                }
                Ok::<_, Infallible>(response.map(|body| Tracked::new(body, in_flight)))
            }
        })
    };
    // Boxed: a task keeps the size of its largest state for ever.
    let mut connection = Box::pin(
        builder(limits)
            .serve_connection(TokioIo::new(io.guarded(guard)), service)
            .with_upgrades(),
    );
    let drain = &worker.gateway.drain;
    // The connection first: a late head gets its answer at the moment at which the connection's time is up.
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = pace.expired() => {
            // At rest it ends in order (close_notify); what is under way has no time left, and is cut so that it shows.
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(LAST, connection).await;
            return;
        }
        () = drain.begun() => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        biased;
        _ = connection => {}
        () = pace.expired() => {}
        () = drain.over() => {}
    }
}

fn builder(limits: HeadLimits) -> Builder {
    let mut builder = Builder::new();
    // Head and small body go out in one buffer.
    builder.writev(false).max_buf_size(limits.bytes + ROOM);
    builder
}
