//! Upgrades: a request that becomes a stream (WebSocket and whatever else HTTP/1.1 switches to).
//!
//! After a 101 from the upstream the client gets it too, and a small task of its own relays bytes; the connections' hyper tasks
//! end. Frames are not parsed, so every extension keeps working.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header, request::Parts, response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Carried, Exchange, connect::UpstreamIo, guard::Guarded};
use crate::gateway::{
    Drain,
    account::{End, metrics::ConnectionState},
    connection::ClientIo,
    rejection::{Break, Rejection},
    relay::{self, Relay},
};

/// The protocols that the client offers, if it can be upgraded. Other versions of HTTP are not among them: requests in such a
/// stream would pass no step of ours.
pub(super) fn asked(parts: &mut Parts, upgradable: bool) -> Option<HeaderValue> {
    if !upgradable {
        return None;
    }
    let kept: Vec<&str> = tokens(&parts.headers)
        .filter(|protocol| !is_http(protocol))
        .collect();
    let asked = HeaderValue::try_from(kept.join(", ")).ok();
    parts.headers.remove("http2-settings");
    asked.filter(|asked| !asked.is_empty())
}

fn is_http(protocol: &str) -> bool {
    let name = protocol.split('/').next().unwrap_or_default();
    ["h2c", "h2", "http", "tls"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::UPGRADE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|protocol| !protocol.is_empty())
}

/// What the upstream switched to: one or more of the protocols that it was asked for (RFC 9110 §7.8).
pub(super) fn chosen(headers: &HeaderMap, asked: &HeaderValue) -> Result<HeaderValue, Rejection> {
    let offered = |protocol: &str| {
        let asked = asked.to_str().unwrap_or_default();
        asked
            .split(", ")
            .any(|offer| offer.eq_ignore_ascii_case(protocol))
    };
    let chosen: Vec<&str> = tokens(headers).collect();
    if chosen.is_empty() || !chosen.iter().all(|protocol| offered(protocol)) {
        return Err(Rejection::Broke(
            Break::Upgrade,
            "the gitspace switched to a protocol that it was not asked for".into(),
        ));
    }
    HeaderValue::try_from(chosen.join(", "))
        .map_err(|error| Rejection::Broke(Break::Upgrade, Box::new(error)))
}

/// A 101 to a request that asked for none.
pub(super) fn unasked() -> Rejection {
    Rejection::Broke(
        Break::Upgrade,
        "the gitspace switched protocols though nobody had asked".into(),
    )
}

/// Asks for these, or tells of one. `Connection` was stripped before.
pub(super) fn ask(headers: &mut HeaderMap, protocols: &HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, protocols.clone());
}

/// Lets the client switch, and relays from then on.
pub(super) fn switch(
    response: &mut response::Parts,
    client: OnUpgrade,
    protocol: &HeaderValue,
    carried: Carried,
    exchange: &Exchange<'_>,
) {
    ask(&mut response.headers, protocol);
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
            Ok((client, upstream)) => {
                connection.enter(ConnectionState::Tunnel);
                tunnel(client, upstream, limits, carried, &drain).await;
            }
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
    let upstream = upstream.await.map_err(|_| End::GitspaceBroke)?;
    let (upstream, early) = take::<Guarded>(upstream).ok_or(End::GitspaceBroke)?;
    Ok((client, (Box::new(upstream.into_inner()), early)))
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
    let mut relay = Box::pin(Relay::new(client, upstream, permit, limits));
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(upgrade: &[&str]) -> Parts {
        let mut request = http::Request::builder();
        for value in upgrade {
            request = request.header("upgrade", *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn another_version_of_http_is_not_asked_for() {
        let ask = |upgrade: &[&str]| asked(&mut parts(upgrade), true);
        assert_eq!(ask(&["websocket"]).unwrap(), "websocket");
        assert_eq!(ask(&["a, b/2", "c"]).unwrap(), "a, b/2, c");
        assert_eq!(ask(&["h2c, websocket"]).unwrap(), "websocket");
        for http in ["h2c", "H2C", "HTTP/2.0", "TLS/1.0", "", ","] {
            assert_eq!(ask(&[http]), None, "{http}");
        }
        assert_eq!(asked(&mut parts(&["websocket"]), false), None);
    }

    #[test]
    fn the_choice_is_among_the_offers() {
        let asked = HeaderValue::from_static("websocket, raw");
        let choose = |upgrade: &[&str]| chosen(&parts(upgrade).headers, &asked);
        assert_eq!(choose(&["WebSocket"]).unwrap(), "WebSocket");
        assert_eq!(choose(&["raw"]).unwrap(), "raw");
        for other in [&["evil"][..], &["raw, evil"], &["raw", "evil"], &[]] {
            assert_eq!(
                choose(other).unwrap_err().proxy_error(),
                "http_upgrade_failed"
            );
        }
    }
}
