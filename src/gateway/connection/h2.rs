//! HTTP/2: hyper's server, with limits chosen so that a connection's memory and work are bounded whatever its client does.
//!
//! Below h2 its byte stream is watched ([`frames`]), above it requests that are broken off are counted ([`budget`]), and what h2 lets
//! pass is checked first of all ([`head`]). A WebSocket is asked for by a request of its own kind ([`websocket`]). What is refused
//! how: docs/http2.md.
//!
//! Not here: TLS and the choice of protocol (`connection`), what happens to a request (`Worker::serve`).

mod budget;
mod frames;
mod head;
mod hpack;
mod scan;
pub(crate) mod websocket;

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Method, Request, Response};
use hyper::{body::Incoming, server::conn::http2::Builder, service::service_fn};
use hyper_util::rt::TokioIo;

use super::{
    ClientIo, HeadLimits, Peer,
    pace::{Pace, Tracked},
    stall::Streams,
};
use crate::gateway::{Worker, forward::Body};

use budget::Budget;
use frames::Frames;
use scan::Scan;

pub(crate) use head::check;

/// Streams that a client may have open at once: as many as the budget has places, so that no request waits for one
/// unless others were broken off.
const STREAMS: u32 = budget::PLACES;
/// What h2 counts by fields beside their bytes (RFC 9113 §6.5.2).
const PER_FIELD: usize = 32;
/// Bytes of a request's body that wait for its gitspace, of one stream and of all together.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of an answer's body that wait for the client, of one stream.
const SEND_BUFFER: usize = 64 * 1024;
/// Larger frames would only make others wait longer.
const FRAME: u32 = 16 * 1024;
/// Streams that the client reset before we looked at them; they are work done for nothing, and none has reached a gitspace.
const RESET_UNSEEN: usize = 100;
/// Streams that we had to reset because of the client's errors, over the life of the connection.
const RESET_BY_US: usize = 100;
/// After the word of the end, or a GOAWAY, so long may a connection take to go.
const LAST: Duration = Duration::from_secs(1);

/// Serves a connection that has chosen HTTP/2, until it ends.
pub(super) async fn serve(worker: Arc<Worker>, io: ClientIo, peer: Arc<Peer>, pace: Arc<Pace>) {
    let gateway = &worker.gateway;
    let HeadLimits { bytes, fields } = gateway.head_limits;
    let list = bytes + fields * PER_FIELD;
    let budget = Budget::new();
    let service = {
        let (worker, peer, pace, budget) = (
            Arc::clone(&worker),
            Arc::clone(&peer),
            Arc::clone(&pace),
            Arc::clone(&budget),
        );
        service_fn(move |mut request: Request<Incoming>| {
            let (worker, peer, in_flight) =
                (Arc::clone(&worker), Arc::clone(&peer), Pace::begin(&pace));
            if request.method() == Method::CONNECT {
                // It may become a stream, which has no answer's body that would keep the connection awake.
                request.extensions_mut().insert(in_flight.clone());
            }
            let mut pending = budget.request();
            async move {
                pending.place().await;
                let response: Response<Body> = worker.serve(request, &peer).await;
                let status = response.status();
                pending.answered(!status.is_client_error() && !status.is_server_error());
                Ok::<_, Infallible>(response.map(|body| Tracked::new(body, in_flight)))
            }
        })
    };
    let scan = Scan::new(fields, 2 * list);
    let ended = gateway.sink.metrics.abusive_connections.clone();
    let head_timeout = gateway.timeouts.head;
    let io = Frames::new(io, scan, Arc::clone(&budget), head_timeout, ended);
    let mut builder = Builder::new(Streams::new(gateway.timeouts.body_idle));
    builder
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(list).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_frame_size(FRAME)
        .max_pending_accept_reset_streams(RESET_UNSEEN)
        .max_local_error_reset_streams(RESET_BY_US)
        // No pings: `Pace` ends what rests or takes nothing, and who has gone without a word rests.
        .keep_alive_interval(None);
    if gateway.websockets_over_http2 {
        builder.enable_connect_protocol();
    }
    let connection = builder.serve_connection(TokioIo::new(io), service);
    // Boxed: a task keeps the size of its largest state for ever.
    let mut connection = Box::pin(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        () = overstays(&peer) => {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(LAST, connection).await;
        }
        () = pace.expired() => {
            // A client may just have sent a request: it learns that nobody will look at it.
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(LAST, connection).await;
        }
        () = budget.spent() => {
            let _ = tokio::time::timeout(LAST, connection).await;
        }
        () = gateway.drain.closing() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                _ = connection => {}
                () = pace.expired() => {}
                () = budget.spent() => {}
                () = gateway.drain.over() => {}
            }
        }
    }
}

/// Resolves when who is only told that all places are taken must go.
async fn overstays(peer: &Peer) {
    match peer.shed {
        true => tokio::time::sleep(LAST).await,
        false => std::future::pending().await,
    }
}
