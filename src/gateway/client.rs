//! Who a request comes from: the client of its connection, or the one for whom a trusted proxy in front of us speaks.
//!
//! Read once per request, since a balancer's connection carries the requests of many. Only a peer in the listener's
//! `trusted_proxies` is believed; the fields themselves are removed before an upstream sees the request, whoever sent them
//! (`forward::headers`). From right to left a list tells of hops ever farther away: the client is the first that is not a
//! trusted proxy itself, since everything left of it may be its own invention. What cannot be read ends the list there, and
//! the nearest hop that is known counts as the client.
//!
//! Never believed: `X-Forwarded-Host` (the Host decides where a request goes, and a balancer passes it on), `X-Real-IP` and
//! its kin.

mod lists;

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, header};

use super::{accept::Networks, connection::Peer, http::Head};

pub use lists::{address, elements};

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Bytes of an identifier that is kept.
const REQUEST_ID_MAX: usize = 128;

/// Who a request comes from, and how.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Client {
    /// Its address, canonical.
    pub(crate) ip: IpAddr,
    /// Whether it came over TLS to us or to a trusted proxy.
    pub(crate) secure: bool,
    /// The request's identifier that a trusted proxy gave it.
    pub(crate) request_id: Option<Arc<str>>,
    port: Port,
}

/// The port that a client came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    /// That of the connection.
    Own(u16),
    /// A trusted proxy said only the scheme: its usual one, where Host names none.
    Usual(u16),
    /// A trusted proxy said it.
    Told(u16),
}

impl Client {
    /// Who a request with these fields comes from.
    pub(crate) fn of(peer: &Peer, headers: &HeaderMap) -> Self {
        let own = Self {
            ip: peer.client.ip().to_canonical(),
            secure: peer.secure,
            request_id: None,
            port: Port::Own(peer.local.port()),
        };
        match peer.trusted {
            true => own.told(headers, &peer.listener.trusted_proxies),
            false => own,
        }
    }

    /// The port that the client came to, as far as anybody says.
    pub(crate) fn port(&self, head: &Head) -> u16 {
        match self.port {
            Port::Told(port) => port,
            Port::Own(port) | Port::Usual(port) => head.authority_port.unwrap_or(port),
        }
    }

    /// What a trusted proxy says.
    fn told(self, headers: &HeaderMap, trusted: &Networks) -> Self {
        let hops = x_forwarded_for(headers, self.ip, trusted);
        let standard = forwarded(headers, self.ip, trusted);
        let (ip, depth) = match (hops, &standard) {
            // Whoever sets only one of the two may pass on the other from its client: they count only if they agree.
            (Some(hops), Some(standard)) if hops.ip != standard.ip => (self.ip, 0),
            (Some(hops), _) => (hops.ip, hops.depth),
            (None, Some(standard)) => (standard.ip, standard.depth),
            (None, None) => (self.ip, 0),
        };
        let proto = at(headers, &X_FORWARDED_PROTO, depth).map(is_https);
        let secure = match (proto, standard.and_then(|standard| standard.proto)) {
            (Some(one), Some(other)) if one != other => None,
            (Some(one), _) => one,
            (None, other) => other.flatten(),
        };
        let port = at(headers, &X_FORWARDED_PORT, depth).and_then(port);
        Self {
            ip,
            secure: secure.unwrap_or(self.secure),
            request_id: request_id(headers),
            port: match (port, secure) {
                (Some(port), _) => Port::Told(port),
                (None, Some(true)) => Port::Usual(443),
                (None, Some(false)) => Port::Usual(80),
                (None, None) => self.port,
            },
        }
    }
}

/// What a list says of the client.
#[derive(Debug, Clone, Copy)]
struct Told {
    ip: IpAddr,
    /// How many hops are nearer than it.
    depth: usize,
    /// Whether that hop said https; nothing if it did not say, `Some(None)` if it cannot be read.
    proto: Option<Option<bool>>,
}

/// Goes through hops from the nearest to the farthest, until one is not trusted or cannot be read.
fn nearest_untrusted<'a>(
    peer: IpAddr,
    trusted: &Networks,
    hops: impl Iterator<Item = (Option<IpAddr>, Option<&'a str>)>,
) -> Option<Told> {
    let mut told = None;
    for (depth, (ip, proto)) in hops.enumerate() {
        let Some(ip) = ip else {
            return told.or(Some(Told {
                ip: peer,
                depth: 0,
                proto: None,
            }));
        };
        told = Some(Told {
            ip,
            depth,
            proto: proto.map(is_https),
        });
        if !trusted.contain(ip) {
            break;
        }
    }
    told
}

fn x_forwarded_for(headers: &HeaderMap, peer: IpAddr, trusted: &Networks) -> Option<Told> {
    let hops = from_the_right(headers, &X_FORWARDED_FOR).map(|hop| (address(hop), None));
    nearest_untrusted(peer, trusted, hops)
}

/// RFC 7239. A line that cannot be read ends the list.
fn forwarded(headers: &HeaderMap, peer: IpAddr, trusted: &Networks) -> Option<Told> {
    let lines = headers.get_all(header::FORWARDED).iter().rev();
    let hops = lines.flat_map(|line| {
        let elements = line.to_str().ok().and_then(elements);
        // One hop that cannot be read stands for a line that cannot.
        let elements = elements.unwrap_or_else(|| vec![lists::Element::default()]);
        elements
            .into_iter()
            .rev()
            .map(|element| (element.node.and_then(address), element.proto))
    });
    nearest_untrusted(peer, trusted, hops)
}

/// The elements of a list field, the last one first. What is not text is an element that nothing can be read from.
fn from_the_right<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .rev()
        .flat_map(|line| line.to_str().unwrap_or("?").rsplit(','))
        .map(|element| element.trim_matches([' ', '\t']))
        .filter(|element| !element.is_empty())
}

/// The element of a list that belongs to the hop at `depth`; the farthest where there are fewer: some proxies replace a list
/// where others add to it.
fn at<'a>(headers: &'a HeaderMap, name: &HeaderName, depth: usize) -> Option<&'a str> {
    from_the_right(headers, name).take(depth + 1).last()
}

/// Schemes of HTTP and of WebSockets, which some proxies name.
fn is_https(scheme: &str) -> Option<bool> {
    let is = |name: &str| scheme.eq_ignore_ascii_case(name);
    match (is("https") || is("wss"), is("http") || is("ws")) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    }
}

fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

/// An identifier that may stand in a header, a log line and a page as it is.
fn request_id(headers: &HeaderMap) -> Option<Arc<str>> {
    let mut all = headers.get_all(&X_REQUEST_ID).iter();
    let (Some(id), None) = (all.next(), all.next()) else {
        return None;
    };
    let plain = |byte: &u8| byte.is_ascii_graphic() && !b"\"'&<>\\`".contains(byte);
    let id = id.to_str().ok()?;
    let fits = (1..=REQUEST_ID_MAX).contains(&id.len()) && id.as_bytes().iter().all(plain);
    fits.then(|| id.into())
}

#[cfg(test)]
mod tests;
