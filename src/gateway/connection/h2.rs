//! HTTP/2: hyper's server with limits chosen so that one connection's memory is bounded whatever its client does.
//!
//! Not here: TLS and the choice of protocol (`connection`), what happens to a request (`Worker::serve`).

use std::{convert::Infallible, sync::Arc};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2::Builder, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{
    ClientIo, Peer,
    pace::{Pace, Tracked},
};
use crate::gateway::{Worker, forward::Body};

/// Streams that a client may have open at once.
const STREAMS: u32 = 128;

/// Serves a connection that has chosen HTTP/2, until it ends.
pub(super) async fn serve(worker: Arc<Worker>, io: ClientIo, peer: Arc<Peer>, pace: Arc<Pace>) {
    let limits = worker.gateway.head_limits;
    let service = {
        let (worker, pace) = (Arc::clone(&worker), Arc::clone(&pace));
        service_fn(move |request: Request<Incoming>| {
            let (worker, peer, in_flight) =
                (Arc::clone(&worker), Arc::clone(&peer), Pace::begin(&pace));
            async move {
                let response: Response<Body> = worker.serve(request, &peer).await;
                Ok::<_, Infallible>(response.map(|body| Tracked::new(body, in_flight)))
            }
        })
    };
    let drain = &worker.gateway.drain;
    let connection = Builder::new(TokioExecutor::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(limits.bytes).unwrap_or(u32::MAX))
        .serve_connection(TokioIo::new(io), service);
    // Boxed: a task keeps the size of its largest state for ever.
    let mut connection = Box::pin(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = pace.expired() => return,
        () = drain.begun() => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = connection => {}
        () = pace.expired() => {}
        () = drain.over() => {}
    }
}
