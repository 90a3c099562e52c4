//! The accept loop: bounded connections, a deadline for each head, an orderly end.
//!
//! Further connections wait in the kernel's queue. Dropping the loop ends every connection where it stands.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// How many connections are open at once: every gateway and delegate holds one or two.
const CONNECTIONS_MAX: usize = 4096;
/// How long a head may take, and how long a connection may be idle.
const HEAD: Duration = Duration::from_secs(30);
/// The largest head.
const HEAD_MAX: usize = 32 * 1024;
/// How long requests under way have to end after a stop.
const DRAIN: Duration = Duration::from_secs(5);
/// How long to wait after the system refused a connection, e.g. for lack of descriptors.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Answers requests until `stop`, and then those under way.
pub(super) async fn serve(listener: TcpListener, app: Router, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            (stream, permit) = accept(&listener, &permits) => {
                connections.spawn(connection(stream, app.clone(), stop.clone(), permit));
            }
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, ended).await.is_err() {
        tracing::warn!(
            requests = connections.len(),
            "requests were cut off at the end of the drain"
        );
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed; were it, the bound would be gone and nothing else.
    let permit = permits.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    app: Router,
    stop: CancellationToken,
    _permit: Option<OwnedSemaphorePermit>,
) {
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}
