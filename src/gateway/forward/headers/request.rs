//! A client's head becomes an upstream's.
//!
//! One part of the header policy. Where the request goes was decided before; how its body is framed is hyper's.

use std::{
    fmt::{Display, Write},
    net::IpAddr,
    sync::Arc,
};

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts};

use crate::{
    api::{
        GitspaceId,
        route::{HostHeader, Protocol},
    },
    gateway::{
        http::{Head, origin_form, origin_host},
        rejection::Rejection,
        route::{Address, Target},
    },
};

use super::{Names, PSEUDONYM, Prefix, add_via, strip};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What we tell an upstream of a request.
pub(crate) struct Forwarding<'a> {
    pub(crate) names: &'a Arc<Names>,
    pub(crate) client: IpAddr,
    pub(crate) secure: bool,
    /// The port that the client came to.
    pub(crate) port: u16,
    pub(crate) request_id: &'a str,
    /// Our own span, where this request is traced.
    pub(crate) traceparent: Option<HeaderValue>,
    pub(crate) gitspace: &'a GitspaceId,
    pub(crate) principal: Option<&'a str>,
    pub(crate) assertion: Option<HeaderValue>,
    /// The path by which the app is reached.
    pub(crate) prefix: Option<Prefix<'a>>,
    pub(crate) host_header: HostHeader,
    pub(crate) origin: HostHeader,
    pub(crate) number: u16,
}

/// Makes a client's head an upstream's.
pub(in crate::gateway::forward) fn to_upstream(
    parts: &mut Parts,
    head: &Head,
    target: &Target,
    forwarding: &Forwarding<'_>,
) -> Result<(), Rejection> {
    if passed_before(&parts.headers) {
        return Err(Rejection::Loop);
    }
    let mut values = Values::new();
    let host = host(&mut values, parts, head, target, forwarding)?;
    let trailers = takes_trailers(&parts.headers);
    strip(&mut parts.headers, |name| forwarding.names.is_claim(name));
    continue_trace(&mut parts.headers, forwarding.traceparent.as_ref());
    origin_form(parts);
    if let Some(prefix) = &forwarding.prefix {
        prefix.take_off(parts)?;
    }
    let received = std::mem::replace(&mut parts.version, http::Version::HTTP_11);
    let headers = &mut parts.headers;
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        // TE is for one hop, and says so itself (RFC 9110 §10.1.4). For HTTP/2 `version` takes Connection away.
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    if parts.method == Method::OPTIONS {
        one_hop_less(headers);
    }
    add_via(headers, received);
    headers.insert(header::HOST, host);
    match origin(&mut values, headers, head, target, forwarding)? {
        None => {
            headers.insert(X_FORWARDED_HOST, public_host(&mut values, head)?);
            identify(&mut values, headers, Some(head), forwarding)
        }
        // Apps that compare the two must find the same host in both.
        Some(origin) => {
            headers.insert(X_FORWARDED_HOST, authority(&mut values, &origin)?);
            headers.insert(header::ORIGIN, origin);
            identify(&mut values, headers, None, forwarding)
        }
    }
}

/// Sets what we know of client, principal and gitspace. `head`: of whose host the app may know.
fn identify(
    values: &mut Values,
    headers: &mut HeaderMap,
    head: Option<&Head>,
    forwarding: &Forwarding<'_>,
) -> Result<(), Rejection> {
    let names = forwarding.names;
    let proto = if forwarding.secure { "https" } else { "http" };
    let client = forwarding.client.to_canonical();
    headers.insert(header::FORWARDED, forwarded(values, client, proto, head)?);
    headers.insert(X_FORWARDED_FOR, values.shown(client)?);
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
    headers.insert(X_FORWARDED_PORT, values.shown(forwarding.port)?);
    if let Some(name) = &names.request_id {
        headers.insert(name.clone(), values.text(forwarding.request_id)?);
    }
    let gitspace = values.text(forwarding.gitspace.as_str())?;
    headers.insert(names.gitspace.clone(), gitspace);
    if let Some(principal) = forwarding.principal {
        headers.insert(names.user.clone(), values.text(principal)?);
    }
    if let (Some(name), Some(assertion)) = (&names.assertion, &forwarding.assertion) {
        headers.insert(name.clone(), assertion.clone());
    }
    Ok(())
}

/// `Forwarded` (RFC 7239). A host with a port would have to be quoted, which code-server does not understand: it would
/// refuse every WebSocket. `X-Forwarded-Host` always has it.
fn forwarded(
    values: &mut Values,
    client: IpAddr,
    proto: &str,
    head: Option<&Head>,
) -> Result<HeaderValue, Rejection> {
    match client {
        IpAddr::V4(v4) => values.add(format_args!("for={v4};proto=")),
        IpAddr::V6(v6) => values.add(format_args!("for=\"[{v6}]\";proto=")),
    }
    values.add_text(proto);
    if let Some(head) =
        head.filter(|head| head.authority_port.is_none() && !head.host.contains(':'))
    {
        values.add_text(";host=");
        values.add_text(&head.host);
    }
    values.end()
}

/// The host and port that the client asked for.
fn public_host(values: &mut Values, head: &Head) -> Result<HeaderValue, Rejection> {
    values.add_text(&head.host);
    if let Some(port) = head.authority_port {
        values.add(format_args!(":{port}"));
    }
    values.end()
}

/// The Host that the port wants.
fn host(
    values: &mut Values,
    parts: &Parts,
    head: &Head,
    target: &Target,
    forwarding: &Forwarding<'_>,
) -> Result<HeaderValue, Rejection> {
    match forwarding.host_header {
        HostHeader::Public => match parts.headers.get(header::HOST) {
            Some(host) => Ok(host.clone()),
            None => public_host(values, head),
        },
        HostHeader::Localhost => values.shown(format_args!("localhost:{}", forwarding.number)),
        HostHeader::Upstream => match &target.address {
            Address::Unix(_) => Ok(HeaderValue::from_static("localhost")),
            address => values.shown(address),
        },
    }
}

/// The Origin that the port wants, where its own page asks (RFC 6454 §7). That of any other page stays as it is: an app that guards
/// itself by it must see it.
fn origin(
    values: &mut Values,
    headers: &HeaderMap,
    head: &Head,
    target: &Target,
    forwarding: &Forwarding<'_>,
) -> Result<Option<HeaderValue>, Rejection> {
    if forwarding.origin == HostHeader::Public || !asks_itself(headers, head) {
        return Ok(None);
    }
    let value = match (forwarding.origin, &target.address) {
        (HostHeader::Upstream, Address::Unix(_)) => HeaderValue::from_static("http://localhost"),
        (HostHeader::Upstream, address) => {
            let scheme = match target.protocol {
                Protocol::Https => "https",
                Protocol::Http | Protocol::H2c => "http",
            };
            values.shown(format_args!("{scheme}://{address}"))?
        }
        _ => values.shown(format_args!("http://localhost:{}", forwarding.number))?,
    };
    Ok(Some(value))
}

/// What stands behind an origin's scheme.
fn authority(values: &mut Values, origin: &HeaderValue) -> Result<HeaderValue, Rejection> {
    let origin = origin.to_str().unwrap_or_default();
    values.text(
        origin
            .split_once("://")
            .map_or(origin, |(_, authority)| authority),
    )
}

/// Whether the page that asks has the host that is asked.
fn asks_itself(headers: &HeaderMap, head: &Head) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let (Some(origin), None) = (origins.next(), origins.next()) else {
        return false;
    };
    let host = origin.to_str().ok().and_then(origin_host);
    host == Some(&*head.host)
}

/// Values of fields, one behind the other in one allocation: a copy of the head shares it.
struct Values(BytesMut);

impl Values {
    /// Room for those of an everyday request.
    const ROOM: usize = 512;

    fn new() -> Self {
        Self(BytesMut::with_capacity(Self::ROOM))
    }

    /// Goes on with the value that is being written.
    fn add(&mut self, piece: impl Display) {
        // Writing to memory that grows cannot fail.
        let _ = write!(self.0, "{piece}");
    }

    fn add_text(&mut self, piece: &str) {
        self.0.extend_from_slice(piece.as_bytes());
    }

    /// The value that was written. Names outside ASCII go as UTF-8, which is what apps that know such names expect.
    fn end(&mut self) -> Result<HeaderValue, Rejection> {
        HeaderValue::from_maybe_shared(self.0.split().freeze())
            .map_err(|_| Rejection::BadRequest("a name cannot be written in a header"))
    }

    fn shown(&mut self, value: impl Display) -> Result<HeaderValue, Rejection> {
        self.add(value);
        self.end()
    }

    fn text(&mut self, value: &str) -> Result<HeaderValue, Rejection> {
        self.add_text(value);
        self.end()
    }
}

/// Whether our own `Via` is there already.
fn passed_before(headers: &HeaderMap) -> bool {
    let names_us = |hop: &[u8]| {
        let mut words = hop
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty());
        words.nth(1) == Some(PSEUDONYM.as_bytes())
    };
    headers
        .get_all(header::VIA)
        .iter()
        .any(|value| value.as_bytes().split(|byte| *byte == b',').any(names_us))
}

fn takes_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::TE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Counts our hop (RFC 9110 §7.6.2). At 0 the request does not come here: `own` has answered it.
fn one_hop_less(headers: &mut HeaderMap) {
    let left = headers
        .get(header::MAX_FORWARDS)
        .and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    if let Some(left) = left {
        headers.insert(header::MAX_FORWARDS, left.saturating_sub(1).into());
    }
}

/// A valid trace goes on, by way of our own span where there is one; one that is not valid is no trace, and its state goes with it
/// (W3C Trace Context §3.2, §3.3).
fn continue_trace(headers: &mut HeaderMap, own: Option<&HeaderValue>) {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let valid = match (parents.next(), parents.next()) {
        (Some(parent), None) => is_traceparent(parent.as_bytes()),
        _ => false,
    };
    if !valid {
        headers.remove(TRACEPARENT);
        headers.remove(TRACESTATE);
    }
    if let Some(own) = own {
        headers.insert(TRACEPARENT, own.clone());
    }
}

/// `version-trace-parent-flags`, in lower-case hex; a later version may say more behind these.
fn is_traceparent(value: &[u8]) -> bool {
    const LENGTH: usize = 55;
    let Some((known, more)) = value.split_at_checked(LENGTH) else {
        return false;
    };
    let hex = |range: std::ops::Range<usize>| {
        known[range]
            .iter()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zero = |range: std::ops::Range<usize>| known[range].iter().all(|byte| *byte == b'0');
    let version = &known[..2];
    let end = more.is_empty() || (version != b"00" && more[0] == b'-');
    hex(0..2)
        && version != b"ff"
        && known[2] == b'-'
        && hex(3..35)
        && !zero(3..35)
        && known[35] == b'-'
        && hex(36..52)
        && !zero(36..52)
        && known[52] == b'-'
        && hex(53..55)
        && end
}

#[cfg(test)]
mod tests {
    use super::{super::tests::map, *};
    use crate::gateway::http::Transport;

    #[test]
    fn our_own_via_is_a_loop() {
        for ours in [
            "1.1 other, 1.1 cde-gateway",
            "2.0 cde-gateway",
            "HTTP/1.1\tcde-gateway (a comment)",
            "1.1 \u{e4}, 1.0  cde-gateway",
        ] {
            let mut headers = HeaderMap::new();
            headers.append("via", HeaderValue::from_bytes(ours.as_bytes()).unwrap());
            assert!(passed_before(&headers), "{ours}");
        }
        for other in ["1.1 not-cde-gateway", "1.1 proxy (cde-gateway)"] {
            assert!(!passed_before(&map(&[("via", other)])), "{other}");
        }
    }

    #[test]
    fn a_valid_trace_goes_on_and_an_invalid_one_ends() {
        const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut headers = map(&[("traceparent", GOOD), ("tracestate", "a=1")]);
        continue_trace(&mut headers, None);
        assert_eq!(headers.len(), 2);
        let own = HeaderValue::from_static("00-1-1-01");
        continue_trace(&mut headers, Some(&own));
        assert_eq!(headers[TRACEPARENT], own);
        assert_eq!(headers.len(), 2, "its state goes on");
        assert!(is_traceparent(
            b"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"
        ));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
        ] {
            let mut headers = map(&[("traceparent", bad), ("tracestate", "a=1")]);
            continue_trace(&mut headers, None);
            assert!(headers.is_empty(), "{bad}");
        }
        let mut twice = map(&[("traceparent", GOOD), ("traceparent", GOOD)]);
        continue_trace(&mut twice, None);
        assert!(twice.is_empty());
    }

    #[test]
    fn hops_are_counted_where_they_are_given() {
        for (given, expected) in [("10", "9"), ("1", "0"), ("x", "x")] {
            let mut headers = map(&[("max-forwards", given)]);
            one_hop_less(&mut headers);
            assert_eq!(headers["max-forwards"], expected);
        }
    }

    #[test]
    fn forwarded_quotes_ipv6_and_leaves_out_a_host_that_would_need_quotes() {
        let request = |host: &'static str| {
            let request = http::Request::builder()
                .header("host", host)
                .body(())
                .unwrap();
            let head =
                crate::gateway::http::parse(&request.into_parts().0, &[], Transport::Tls).unwrap();
            let client = "2001:db8::1".parse().unwrap();
            forwarded(&mut Values::new(), client, "https", Some(&head)).unwrap()
        };
        assert_eq!(
            request("a.test"),
            "for=\"[2001:db8::1]\";proto=https;host=a.test"
        );
        assert_eq!(request("a.test:8443"), "for=\"[2001:db8::1]\";proto=https");
    }
}
