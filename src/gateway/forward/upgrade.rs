//! Upgrades: a request that becomes a stream (WebSocket and whatever else HTTP/1.1 switches to).
//!
//! After a 101 from the upstream the client gets it too, and a small task of its own relays bytes; the connections' hyper tasks
//! end. Frames are not parsed, so every extension keeps working.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header, request::Parts, response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Carried, Exchange, connect::UpstreamIo};
use crate::gateway::{
    Drain,
    account::{End, Step},
    connection::ClientIo,
    relay::{self, Relay},
};

/// The protocols that the client offers, if it can be upgraded.
pub(super) fn asked(parts: &Parts, upgradable: bool) -> Option<HeaderValue> {
    upgradable
        .then(|| parts.headers.get(header::UPGRADE).cloned())
        .flatten()
}

/// Asks the upstream for the same. `Connection` was stripped before.
pub(super) fn ask(headers: &mut HeaderMap, protocols: &HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, protocols.clone());
}

/// Lets the client switch, and relays from then on.
pub(super) fn switch(
    response: &mut response::Parts,
    client: OnUpgrade,
    asked: &HeaderValue,
    mut carried: Carried,
    exchange: &Exchange<'_>,
) {
    ask(&mut response.headers, asked);
    carried.account.answered(response.status);
    carried.account.step(Step::Relay);
    let Some(upstream) = response.extensions.remove::<OnUpgrade>() else {
        return carried.account.close(End::GitspaceBroke);
    };
    let limits = relay::Limits {
        idle: exchange.timeouts.tunnel_idle.duration(),
        lifetime: exchange.timeouts.tunnel_lifetime.duration(),
    };
    let drain = exchange.drain.clone();
    let connection = Arc::clone(exchange.connection);
    drain.clone().spawn(async move {
        match streams(client, upstream).await {
            Ok((client, upstream)) => tunnel(client, upstream, limits, carried, &drain).await,
            Err(end) => carried.account.close(end),
        }
        // The stream was that connection: until here it counts.
        drop(connection);
    });
}

type Side<Io> = (Box<Io>, bytes::Bytes);

/// Both byte streams, with what was read of them already.
async fn streams(
    client: OnUpgrade,
    upstream: OnUpgrade,
) -> Result<(Side<ClientIo>, Side<UpstreamIo>), End> {
    let (client, read) =
        take::<ClientIo>(client.await.map_err(|_| End::ClientGone)?).ok_or(End::ClientGone)?;
    let (client, early) = client.into_stream();
    // The guard lets nothing pass behind a request for an upgrade: at most one of the two has bytes.
    let client = (Box::new(client), if read.is_empty() { early } else { read });
    let upstream =
        take(upstream.await.map_err(|_| End::GitspaceBroke)?).ok_or(End::GitspaceBroke)?;
    Ok((client, upstream))
}

/// The stream itself, out of hyper's wrapping.
fn take<Io>(upgraded: Upgraded) -> Option<Side<Io>>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let parts = upgraded.downcast::<TokioIo<Io>>().ok()?;
    Some((Box::new(parts.io.into_inner()), parts.read_buf))
}

async fn tunnel(
    client: Side<ClientIo>,
    upstream: Side<UpstreamIo>,
    limits: relay::Limits,
    carried: Carried,
    drain: &Drain,
) {
    let Carried {
        mut account,
        permit,
        target,
    } = carried;
    let mut relay = Box::pin(Relay::new(client, upstream, limits));
    let end = tokio::select! {
        biased;
        () = target.fenced().cancelled() => End::TargetChanged,
        () = drain.over() => End::Drained,
        ended = relay.as_mut() => match ended {
            relay::Ended::Done => End::Done,
            relay::Ended::Client => End::ClientGone,
            relay::Ended::Upstream => End::GitspaceBroke,
            relay::Ended::Idle => End::Idle,
            relay::Ended::Lifetime => End::Lifetime,
        },
    };
    let (received, sent) = relay.counts();
    account.tunnelled(received, sent);
    account.close(end);
    drop(permit);
}
