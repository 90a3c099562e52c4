//! The header policy: what an upstream gets, and what a client gets back.
//!
//! Hop-by-hop fields and those that `Connection` nominates go no further (RFC 9110 §7.6.1). Whatever a client says about who it
//! is and where it came from is removed, under every spelling; ours is set exactly once. What identifies, frames or secures a
//! message cannot be nominated away.

use std::{fmt::Write, net::IpAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};

use crate::{
    api::{GitspaceId, route::HostHeader},
    config,
    gateway::{
        http::{Head, nominated, origin_form},
        rejection::Rejection,
        route::Target,
    },
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const ASSERTION: HeaderName = HeaderName::from_static("x-gitspace-assertion");
const PSEUDONYM: &str = "cde-gateway";
const VIA: HeaderValue = HeaderValue::from_static("1.1 cde-gateway");

/// Names that configuration chooses.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    user: HeaderName,
    gitspace: HeaderName,
}

impl Names {
    /// Reads them, or names the one that is no header name.
    pub(crate) fn new(headers: &config::Headers) -> Result<Self, String> {
        let name = |key: &str, text: &str| {
            HeaderName::try_from(text).map_err(|_| {
                format!("`gateway.headers.{key}` is {text:?}, which is no header name")
            })
        };
        Ok(Self {
            user: name("user", &headers.user)?,
            gitspace: name("gitspace", &headers.gitspace)?,
        })
    }
}

/// What we tell an upstream of a request.
pub(crate) struct Forwarding<'a> {
    pub(crate) names: &'a Names,
    pub(crate) client: IpAddr,
    pub(crate) secure: bool,
    /// The port that the client came to.
    pub(crate) port: u16,
    pub(crate) request_id: &'a str,
    pub(crate) gitspace: &'a GitspaceId,
    pub(crate) principal: Option<&'a str>,
    pub(crate) assertion: Option<HeaderValue>,
    pub(crate) host_header: HostHeader,
    pub(crate) number: u16,
}

/// Makes a client's head an upstream's.
pub(super) fn to_upstream(
    parts: &mut Parts,
    head: &Head,
    target: &Target,
    forwarding: &Forwarding<'_>,
) -> Result<(), Rejection> {
    if passed_before(&parts.headers) {
        return Err(Rejection::Loop);
    }
    let host = host(parts, head, target, forwarding)?;
    let trailers = takes_trailers(&parts.headers);
    strip_hop_by_hop(&mut parts.headers);
    strip_claims(&mut parts.headers, forwarding.names);
    origin_form(parts);
    parts.version = http::Version::HTTP_11;
    let headers = &mut parts.headers;
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    headers.append(header::VIA, VIA);
    headers.insert(X_FORWARDED_HOST, public_host(head)?);
    headers.insert(header::HOST, host);
    identify(headers, head, forwarding)
}

/// Sets what we know of client, principal and gitspace.
fn identify(
    headers: &mut HeaderMap,
    head: &Head,
    forwarding: &Forwarding<'_>,
) -> Result<(), Rejection> {
    let proto = if forwarding.secure { "https" } else { "http" };
    let client = forwarding.client.to_canonical();
    headers.insert(header::FORWARDED, forwarded(client, proto, head)?);
    headers.insert(X_FORWARDED_FOR, value(&client.to_string())?);
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
    headers.insert(X_FORWARDED_PORT, forwarding.port.into());
    headers.insert(X_REQUEST_ID, value(forwarding.request_id)?);
    headers.insert(
        forwarding.names.gitspace.clone(),
        value(forwarding.gitspace.as_str())?,
    );
    if let Some(principal) = forwarding.principal {
        headers.insert(forwarding.names.user.clone(), value(principal)?);
    }
    if let Some(assertion) = &forwarding.assertion {
        headers.insert(ASSERTION, assertion.clone());
    }
    Ok(())
}

/// `Forwarded` (RFC 7239). A host with a port would have to be quoted, which code-server does not understand: it would
/// refuse every WebSocket. `X-Forwarded-Host` always has it.
fn forwarded(client: IpAddr, proto: &str, head: &Head) -> Result<HeaderValue, Rejection> {
    let mut text = String::with_capacity(96);
    // Writing to a String cannot fail.
    let _ = match client {
        IpAddr::V4(v4) => write!(text, "for={v4}"),
        IpAddr::V6(v6) => write!(text, "for=\"[{v6}]\""),
    };
    let _ = write!(text, ";proto={proto}");
    if head.authority_port.is_none() && !head.host.contains(':') {
        let _ = write!(text, ";host={}", head.host);
    }
    value(&text)
}

fn value(text: &str) -> Result<HeaderValue, Rejection> {
    HeaderValue::from_str(text)
        .map_err(|_| Rejection::BadRequest("a name cannot be written in a header"))
}

/// The host and port that the client asked for.
fn public_host(head: &Head) -> Result<HeaderValue, Rejection> {
    match head.authority_port {
        Some(port) => value(&format!("{}:{port}", head.host)),
        None => value(&head.host),
    }
}

/// The Host that the port wants.
fn host(
    parts: &Parts,
    head: &Head,
    target: &Target,
    forwarding: &Forwarding<'_>,
) -> Result<HeaderValue, Rejection> {
    match forwarding.host_header {
        HostHeader::Public => match parts.headers.get(header::HOST) {
            Some(host) => Ok(host.clone()),
            None => public_host(head),
        },
        HostHeader::Localhost => value(&format!("localhost:{}", forwarding.number)),
        HostHeader::Upstream => match &target.address {
            crate::gateway::route::Address::Unix(_) => Ok(HeaderValue::from_static("localhost")),
            address => value(&address.to_string()),
        },
    }
}

/// Whether our own `Via` is there already.
fn passed_before(headers: &HeaderMap) -> bool {
    let names_us = |value: &str| {
        value
            .split(',')
            .any(|hop| hop.split_whitespace().nth(1) == Some(PSEUDONYM))
    };
    headers
        .get_all(header::VIA)
        .iter()
        .any(|value| value.to_str().is_ok_and(names_us))
}

fn takes_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

/// Removes fields that are for one hop only, and those that `Connection` names.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = nominated(headers)
            .filter_map(|name| HeaderName::try_from(name).ok())
            .filter(|name| !protected(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in [
        header::CONNECTION,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        headers.remove(name);
    }
}

/// What frames, identifies or secures a message: `Connection` cannot take it away.
fn protected(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::HOST
            | header::CONTENT_LENGTH
            | header::CONTENT_TYPE
            | header::CONTENT_ENCODING
            | header::COOKIE
            | header::SET_COOKIE
            | header::AUTHORIZATION
            | header::ORIGIN
            | header::VIA
            | header::TRAILER
            | header::STRICT_TRANSPORT_SECURITY
            | header::CONTENT_SECURITY_POLICY
    )
}

/// Removes what a client claims about itself, in every spelling that an app may take for ours.
fn strip_claims(headers: &mut HeaderMap, names: &Names) {
    let claims: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_claim(name.as_str(), names))
        .cloned()
        .collect();
    for name in claims {
        headers.remove(name);
    }
}

fn is_claim(name: &str, names: &Names) -> bool {
    if spelled_like(name, names.user.as_str()) || spelled_like(name, names.gitspace.as_str()) {
        return true;
    }
    let spelled;
    let name = if name.contains('_') {
        spelled = name.replace('_', "-");
        &spelled
    } else {
        name
    };
    match name.as_bytes().first() {
        Some(b'x') => {
            name.starts_with("x-forwarded")
                || name.starts_with("x-gitspace-")
                || matches!(
                    name,
                    "x-real-ip"
                        | "x-client-ip"
                        | "x-cluster-client-ip"
                        | "x-original-forwarded-for"
                        | "x-request-id"
                        | "x-original-url"
                        | "x-rewrite-url"
                        | "x-original-host"
                        | "x-host"
                )
        }
        Some(b'f') => matches!(name, "forwarded" | "forwarded-for" | "fastly-client-ip"),
        Some(b't') => name == "true-client-ip",
        Some(b'c') => matches!(name, "cf-connecting-ip" | "client-ip"),
        _ => false,
    }
}

/// Whether CGI and WSGI, which cannot tell `_` from `-`, take one name for the other.
fn spelled_like(name: &str, ours: &str) -> bool {
    let dash = |byte: u8| if byte == b'_' { b'-' } else { byte };
    name.len() == ours.len() && name.bytes().map(dash).eq(ours.bytes().map(dash))
}

/// Makes an upstream's head a client's. An app can neither set nor clear our cookie.
pub(super) fn to_client(headers: &mut HeaderMap, _names: &Names) {
    strip_hop_by_hop(headers);
    if headers.contains_key(header::SET_COOKIE) {
        strip_our_cookies(headers);
    }
    headers.remove("proxy-status");
    headers.append(header::VIA, VIA);
}

/// Also the ones without a name, which some browsers send back as if their value were a cookie (RFC 6265bis §5.6).
fn strip_our_cookies(headers: &mut HeaderMap) {
    let ours = |value: &HeaderValue| {
        let cookie = value.as_bytes().split(|byte| *byte == b';').next();
        let mut parts = cookie
            .unwrap_or_default()
            .split(|byte| *byte == b'=')
            .map(<[u8]>::trim_ascii);
        let name = parts.find(|part| !part.is_empty()).unwrap_or_default();
        name.eq_ignore_ascii_case(super::super::auth::SESSION_COOKIE.as_bytes())
    };
    if headers.get_all(header::SET_COOKIE).iter().any(ours) {
        let kept: Vec<HeaderValue> = headers
            .get_all(header::SET_COOKIE)
            .iter()
            .filter(|value| !ours(value))
            .cloned()
            .collect();
        headers.remove(header::SET_COOKIE);
        for value in kept {
            headers.append(header::SET_COOKIE, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new(&config::Headers::default()).unwrap()
    }

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn hop_by_hop_and_nominated_fields_go() {
        let mut headers = map(&[
            ("connection", "close, x-private"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "Basic x"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("accept", "*/*")]));
    }

    #[test]
    fn framing_identity_and_security_cannot_be_nominated() {
        let mut headers = map(&[
            ("connection", "cookie, content-length, host, origin"),
            ("cookie", "a=1"),
            ("content-length", "5"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("cookie", "a=1"), ("content-length", "5")]));
    }

    #[test]
    fn claims_go_in_every_spelling() {
        for name in [
            "x-forwarded-for",
            "x-forwarded-prefix",
            "x_forwarded_for",
            "x-forwarded_host",
            "forwarded",
            "x-real-ip",
            "x-gitspace-user",
            "x_gitspace_user",
            "x-gitspace-anything",
            "true-client-ip",
            "true_client_ip",
            "x-client-ip",
            "x-request-id",
            "cf-connecting-ip",
        ] {
            assert!(is_claim(name, &names()), "{name}");
        }
        for name in [
            "x-csrf-token",
            "traceparent",
            "cookie",
            "user-agent",
            "x_custom",
        ] {
            assert!(!is_claim(name, &names()), "{name}");
        }
    }

    #[test]
    fn our_own_via_is_a_loop() {
        assert!(passed_before(&map(&[(
            "via",
            "1.1 other, 1.1 cde-gateway"
        )])));
        assert!(!passed_before(&map(&[("via", "1.1 not-cde-gateway")])));
    }

    #[test]
    fn forwarded_quotes_ipv6_and_leaves_out_a_host_that_would_need_quotes() {
        let request = |host: &'static str| {
            let request = http::Request::builder()
                .header("host", host)
                .body(())
                .unwrap();
            let head = crate::gateway::http::parse(&request, &[]).unwrap();
            forwarded("2001:db8::1".parse().unwrap(), "https", &head).unwrap()
        };
        assert_eq!(
            request("a.test"),
            "for=\"[2001:db8::1]\";proto=https;host=a.test"
        );
        assert_eq!(request("a.test:8443"), "for=\"[2001:db8::1]\";proto=https");
    }

    #[test]
    fn an_app_cannot_touch_our_cookie() {
        let mut headers = map(&[
            ("set-cookie", "__Host-gitspace=stolen; Path=/"),
            ("set-cookie", "app=1"),
            ("set-cookie", "__host-gitspace =; Max-Age=0"),
        ]);
        to_client(&mut headers, &names());
        assert_eq!(
            headers.get_all("set-cookie").iter().collect::<Vec<_>>(),
            ["app=1"]
        );
    }
}
