//! Upgrades: a request that becomes a stream (a WebSocket, and what else a port switches to).
//!
//! After a 101 from the upstream the client gets it too, and a small task of its own relays bytes; the connections' hyper tasks
//! end. A client that asked over HTTP/2 gets 200 (RFC 8441), and its stream goes on beside others. Frames are not parsed, so every
//! extension keeps working.

#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts, response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Carried, Exchange, connect::Stream, guard::Guarded};
use crate::gateway::{
    account::{Account, End, metrics::ConnectionState},
    connection::{ClientIo, ClientStream, Counted, InFlight},
    live,
    rejection::{Break, Rejection},
    relay::{self, Relay, Speaks},
    route::{self, Target},
};

/// What a client asks to switch to.
pub(super) struct Asked {
    client: OnUpgrade,
    /// The protocols that may be switched to.
    protocols: HeaderValue,
    /// What is said in the frames, should it become a WebSocket.
    speaks: Option<Speaks>,
    bridge: Option<Bridge>,
}

impl Asked {
    /// What of it may be passed on: WebSockets, and what the port has beside them. Everything else the upstream is not asked for, as
    /// if it knew nothing of it (RFC 9110 §7.8).
    pub(super) fn of(parts: &mut Parts, others: &route::Names) -> Option<Self> {
        let client = parts.extensions.remove::<OnUpgrade>()?;
        Some(Self {
            client,
            protocols: passed_on(&parts.headers, others)?,
            speaks: Speaks::of(&parts.uri, &parts.headers),
            bridge: Bridge::of(parts),
        })
    }

    /// Asks the upstream. `Connection` was stripped before.
    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        put(headers, &self.protocols);
    }
}

/// Over HTTP/2 the switch is between the gateway and the upstream alone (RFC 8441).
struct Bridge {
    /// What the upstream must answer to our key.
    accept: String,
    /// The connection does not rest as long as the stream lives.
    in_flight: InFlight,
}

impl Bridge {
    fn of(parts: &mut Parts) -> Option<Self> {
        let in_flight = parts.extensions.remove::<InFlight>()?;
        let key = parts.headers.get(header::SEC_WEBSOCKET_KEY)?;
        Some(Self {
            accept: accept(key.as_bytes()),
            in_flight,
        })
    }

    /// Over HTTP/1.1 the client looks at it; here nobody else does.
    fn check(&self, headers: &HeaderMap) -> Result<(), Rejection> {
        let accepts = headers.get_all(header::SEC_WEBSOCKET_ACCEPT);
        match accepts.iter().eq([&self.accept]) {
            true => Ok(()),
            false => Err(broke(
                "the gitspace's Sec-WebSocket-Accept does not belong to the request",
            )),
        }
    }
}

/// RFC 6455 §4.2.2.
fn accept(key: &[u8]) -> String {
    let mut digest = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key);
    digest.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest.finish())
}

fn passed_on(headers: &HeaderMap, others: &route::Names) -> Option<HeaderValue> {
    let kept: Vec<&str> = tokens(headers)
        .filter(|protocol| is_websocket(protocol) || others.have(&protocol.to_ascii_lowercase()))
        .collect();
    let asked = HeaderValue::try_from(kept.join(", ")).ok();
    asked.filter(|asked| !asked.is_empty())
}

fn is_websocket(protocol: &str) -> bool {
    protocol.eq_ignore_ascii_case("websocket")
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

fn put(headers: &mut HeaderMap, protocols: &HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, protocols.clone());
}

fn broke(how: &'static str) -> Rejection {
    Rejection::Broke(Break::Upgrade, how.into())
}

/// What the upstream's answer makes of what was asked, if anything was.
pub(super) fn answered(
    asked: Option<Asked>,
    response: &response::Parts,
) -> Result<Option<Switch>, Rejection> {
    let switches = response.status == StatusCode::SWITCHING_PROTOCOLS;
    match asked {
        None if switches => Err(broke(
            "the gitspace switched protocols though nobody had asked",
        )),
        // It would tell the client that the WebSocket is open.
        Some(Asked {
            bridge: Some(_), ..
        }) if !switches && response.status.is_success() => Err(broke(
            "the gitspace was asked for a WebSocket and answered with something else",
        )),
        Some(asked) if switches => Switch::of(asked, &response.headers).map(Some),
        _ => Ok(None),
    }
}

/// What the upstream switched to: one or more of the protocols that it was asked for (RFC 9110 §7.8).
fn chosen(headers: &HeaderMap, asked: &HeaderValue) -> Result<HeaderValue, Rejection> {
    let offered = |protocol: &str| {
        let asked = asked.to_str().unwrap_or_default();
        asked
            .split(", ")
            .any(|offer| offer.eq_ignore_ascii_case(protocol))
    };
    let chosen: Vec<&str> = tokens(headers).collect();
    if chosen.is_empty() || !chosen.iter().all(|protocol| offered(protocol)) {
        return Err(broke(
            "the gitspace switched to a protocol that it was not asked for",
        ));
    }
    HeaderValue::try_from(chosen.join(", "))
        .map_err(|error| Rejection::Broke(Break::Upgrade, Box::new(error)))
}

/// The upstream has switched; the client is to.
pub(super) struct Switch {
    client: OnUpgrade,
    protocol: HeaderValue,
    speaks: Option<Speaks>,
    /// Over HTTP/2.
    beside: Option<InFlight>,
}

impl Switch {
    fn of(asked: Asked, headers: &HeaderMap) -> Result<Self, Rejection> {
        let protocol = chosen(headers, &asked.protocols)?;
        if let Some(bridge) = &asked.bridge {
            bridge.check(headers)?;
        }
        Ok(Self {
            client: asked.client,
            protocol,
            speaks: asked.speaks,
            beside: asked.bridge.map(|bridge| bridge.in_flight),
        })
    }

    /// Tells the client that it is open.
    pub(super) fn tell(&self, response: &mut response::Parts) {
        if self.beside.is_none() {
            return put(&mut response.headers, &self.protocol);
        }
        response.status = StatusCode::OK;
        response.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
    }

    /// Relays from now on.
    pub(super) fn begin(
        self,
        response: &mut response::Parts,
        carried: Carried,
        exchange: &Exchange<'_>,
    ) {
        let Some(upstream) = response.extensions.remove::<OnUpgrade>() else {
            return carried.account.close(End::GitspaceBroke);
        };
        let name = self.protocol.to_str().unwrap_or_default();
        let websocket = is_websocket(name);
        carried.seat.live().becomes(match websocket {
            true => live::Stream::WebSocket,
            false => live::Stream::Other(name.to_ascii_lowercase().into()),
        });
        let switching = Switching {
            client: self.client,
            upstream,
            framed: self.speaks.filter(|_| websocket),
            carried,
            beside: self.beside,
            connection: Arc::clone(exchange.connection),
        };
        // In boxes: a task keeps the size of its largest state for ever, and this one rests for a day.
        exchange.drain.spawn(Box::pin(Box::new(switching).run()));
    }
}

/// The stream ends because of a rule of ours (RFC 6455 §7.4.1).
const POLICY: u16 = 1008;
/// The client may come again (the registry of RFC 6455: "Service Restart").
const RESTART: u16 = 1012;

/// What is known before both sides have switched.
struct Switching {
    client: OnUpgrade,
    upstream: OnUpgrade,
    /// What its frames speak, if it has frames.
    framed: Option<Speaks>,
    carried: Carried,
    /// Over HTTP/2.
    beside: Option<InFlight>,
    connection: Arc<Counted>,
}

type Side<Io> = (Io, bytes::Bytes);

impl Switching {
    async fn run(self: Box<Self>) {
        if let Some(tunnel) = Box::pin(self.done()).await {
            tunnel.run().await;
        }
    }

    /// Both sides have switched; or the account is closed.
    async fn done(self: Box<Self>) -> Option<Box<Tunnel>> {
        let this = *self;
        let beside = this.beside.is_some();
        match streams(this.client, beside, this.upstream).await {
            Ok((client, upstream, reached)) => {
                if !beside {
                    this.connection.enter(ConnectionState::Tunnel);
                }
                let Carried {
                    account,
                    permit,
                    seat,
                    target,
                } = this.carried;
                let relay = Relay::new(client, upstream, (permit, seat));
                Some(Box::new(Tunnel {
                    relay: match this.framed {
                        Some(speaks) => relay.framed(speaks),
                        None => relay,
                    },
                    account,
                    target,
                    _reached: reached,
                    _connection: this.connection,
                    _beside: this.beside,
                }))
            }
            Err(end) => {
                this.carried.account.close(end);
                None
            }
        }
    }
}

/// Both byte streams, with what was read of them already.
async fn streams(
    client: OnUpgrade,
    beside: bool,
    upstream: OnUpgrade,
) -> Result<(Side<ClientStream>, Side<Stream>, route::Seat), End> {
    let client = client.await.map_err(|_| End::ClientGone)?;
    let client = match beside {
        true => {
            let stream = Box::new(TokioIo::new(client));
            (ClientStream::Beside(stream), bytes::Bytes::new())
        }
        false => alone(client).ok_or(End::ClientGone)?,
    };
    let upstream = upstream.await.map_err(|_| End::GitspaceBroke)?;
    let (upstream, early) = take::<Guarded>(upstream).ok_or(End::GitspaceBroke)?;
    let (upstream, reached) = upstream.into_inner().into_stream();
    Ok((client, (upstream, early), reached))
}

/// A connection that is nothing else from now on.
fn alone(client: Upgraded) -> Option<Side<ClientStream>> {
    let (client, read) = take::<ClientIo>(client)?;
    let (client, early) = client.into_stream();
    // The guard lets nothing pass behind a request for an upgrade: at most one of the two has bytes.
    Some((client, if read.is_empty() { early } else { read }))
}

/// The stream itself, out of hyper's wrapping.
fn take<Io>(upgraded: Upgraded) -> Option<Side<Io>>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let parts = upgraded.downcast::<TokioIo<Io>>().ok()?;
    Some((parts.io.into_inner(), parts.read_buf))
}

/// A stream that is under way.
struct Tunnel {
    relay: Relay<ClientStream, Stream>,
    account: Account,
    target: Arc<Target>,
    /// Its place among the connections to the target.
    _reached: route::Seat,
    /// The stream was that connection, or is one of its own: until its end it counts.
    _connection: Arc<Counted>,
    /// And does not rest.
    _beside: Option<InFlight>,
}

impl Tunnel {
    async fn run(mut self: Box<Self>) {
        let end = self.end().await;
        Box::pin(self.leave(end)).await;
    }

    /// Relays until something ends it. A stop's end is told by its seat.
    async fn end(&mut self) -> End {
        let live = Arc::clone(self.relay.seat().live());
        tokio::select! {
            biased;
            () = self.target.fenced().cancelled() => End::TargetChanged,
            ending = live.must_end() => ending.end,
            ended = &mut self.relay => match ended {
                relay::Ended::Done => End::Done,
                relay::Ended::Client => End::ClientGone,
                relay::Ended::Upstream => End::GitspaceBroke,
            },
        }
    }

    /// Says why to the client, and closes the account.
    async fn leave(mut self: Box<Self>, end: End) {
        let live = Arc::clone(self.relay.seat().live());
        let ending = live.ending().filter(|ending| ending.end == end);
        let word = match (end, ending) {
            (End::AccessEnded, Some(ending)) => Some((POLICY, &*ending.message)),
            (End::Drained, _) => Some((RESTART, "the gateway is restarting")),
            (End::TargetChanged, _) => Some((RESTART, "the gitspace has moved or was stopped")),
            _ => None,
        };
        if let Some((code, reason)) = word {
            self.relay.take_leave(code, reason).await;
        }
        let (received, sent) = self.relay.counts();
        self.account.tunnelled(received, sent);
        match ending {
            Some(ending) => self.account.close_because(end, &ending.detail),
            None => self.account.close(end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(upgrade: &[&str]) -> HeaderMap {
        let upgrade = upgrade.iter();
        upgrade
            .map(|value| (header::UPGRADE, value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn what_the_port_does_not_have_is_not_asked_for() {
        let none = route::Names::of([]);
        let asked = |upgrade: &[&str]| passed_on(&headers(upgrade), &none);
        assert_eq!(asked(&["WebSocket"]).unwrap(), "WebSocket");
        assert_eq!(asked(&["h2c, websocket"]).unwrap(), "websocket");
        for other in ["h2c", "HTTP/2.0", "TLS/1.0", "raw", "websocket/13", "", ","] {
            assert_eq!(asked(&[other]), None, "{other}");
        }
        let more = route::Names::of(["raw", "spdy/3.1"]);
        let asked = |upgrade: &[&str]| passed_on(&headers(upgrade), &more);
        assert_eq!(asked(&["SPDY/3.1, raw", "other"]).unwrap(), "SPDY/3.1, raw");
    }

    #[test]
    fn the_choice_is_among_the_offers() {
        let asked = HeaderValue::from_static("websocket, raw");
        let choose = |upgrade: &[&str]| chosen(&headers(upgrade), &asked);
        assert_eq!(choose(&["WebSocket"]).unwrap(), "WebSocket");
        assert_eq!(choose(&["raw"]).unwrap(), "raw");
        for other in [&["evil"][..], &["raw, evil"], &["raw", "evil"], &[]] {
            assert_eq!(
                choose(other).unwrap_err().proxy_error(),
                "http_upgrade_failed"
            );
        }
    }

    #[test]
    fn the_answer_to_a_key_is_that_of_the_standard() {
        // RFC 6455 §1.3.
        let accept = accept(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
