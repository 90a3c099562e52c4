//! Who is asked: one host and perhaps a port, however they are written.
//!
//! A part of the third step. What can be read in two ways is refused, never repaired; what is left has one spelling.

use std::net::Ipv6Addr;

use http::{Version, header, request::Parts};

use super::asks_for_upgrade;
use crate::gateway::rejection::Rejection;

/// The longest host name (RFC 1035 §2.3.4).
const HOST_MAX: usize = 253;
/// The longest label of one.
const LABEL_MAX: usize = 63;

/// A host as it is compared, and the port that was named.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Authority {
    pub(super) host: Box<str>,
    pub(super) port: Option<u16>,
}

impl Authority {
    /// The one authority of the request (RFC 9112 §3.2, RFC 9113 §8.3.1).
    pub(super) fn of(request: &Parts) -> Result<Self, Rejection> {
        let mut hosts = request.headers.get_all(header::HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => Some(
                host.to_str()
                    .map_err(|_| Rejection::BadRequest("Host is not text"))?,
            ),
            (None, _) => None,
            (Some(_), Some(_)) => return Err(Rejection::BadRequest("more than one Host")),
        };
        let target = request.uri.authority().map(http::uri::Authority::as_str);
        match (target, host) {
            (Some(target), Some(host)) => {
                let (named, host) = (Self::read(target)?, Self::read(host)?);
                match named.is(&host, request.uri.scheme_str()) {
                    true => Ok(host),
                    false => Err(Rejection::BadRequest(
                        "Host differs from the request target",
                    )),
                }
            }
            // HTTP/2 has its authority in the pseudo-header. VS Code's Node client sends upgrades in absolute form without Host.
            (Some(target), None)
                if request.version == Version::HTTP_2 || asks_for_upgrade(request) =>
            {
                Self::read(target)
            }
            (None, Some(host)) => Self::read(host),
            (_, None) => Err(Rejection::BadRequest("no Host")),
        }
    }

    /// Whether both are one place: a port that is not named is the scheme's (RFC 9110 §4.2.3).
    fn is(&self, other: &Self, scheme: Option<&str>) -> bool {
        let usual = match scheme {
            Some("https" | "wss") => Some(443),
            Some(_) => Some(80),
            None => None,
        };
        self.host == other.host && self.port.or(usual) == other.port.or(usual)
    }

    /// Reads `host[:port]`. One spelling per place: no user information, no percent-encoding, no zone, no zeros in front of a port.
    fn read(authority: &str) -> Result<Self, Rejection> {
        const BAD: Rejection = Rejection::BadRequest("Host is no host name");
        let (host, port) = split(authority).ok_or(BAD)?;
        let host = match host.strip_prefix('[') {
            Some(literal) => address(literal),
            None => name(host),
        };
        let port = match port {
            None | Some("") => None,
            Some(digits) => Some(port_number(digits).ok_or(BAD)?),
        };
        let host = host.ok_or(BAD)?;
        Ok(Self { host, port })
    }
}

/// Host, brackets included, and port.
fn split(authority: &str) -> Option<(&str, Option<&str>)> {
    if authority.starts_with('[') {
        let (host, after) = authority.split_at(authority.find(']')? + 1);
        return match after.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => after.is_empty().then_some((host, None)),
        };
    }
    Some(match memchr::memchr(b':', authority.as_bytes()) {
        Some(colon) => (&authority[..colon], Some(&authority[colon + 1..])),
        None => (authority, None),
    })
}

/// 1 to 65535, written without zeros in front.
fn port_number(digits: &str) -> Option<u16> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| plain)
}

/// Lower case, without the trailing dot; labels of 1 to 63 letters, digits, `-` and `_` (RFC 1035 §2.3.4; `_` is used).
fn name(host: &str) -> Option<Box<str>> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let mut label = 0;
    for byte in host.bytes() {
        label = match byte {
            b'.' if label > 0 => 0,
            b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' if label < LABEL_MAX => label + 1,
            _ => return None,
        };
    }
    (host.len() <= HOST_MAX && label > 0).then(|| host.to_ascii_lowercase().into_boxed_str())
}

/// An IPv6 address behind its `[`, in its one shortest form (RFC 5952).
fn address(literal: &str) -> Option<Box<str>> {
    let address: Ipv6Addr = literal.strip_suffix(']')?.parse().ok()?;
    Some(format!("[{address}]").into_boxed_str())
}

/// The host of an `Origin` (RFC 6454 §7): scheme, host and perhaps a port, nothing else. It is compared as browsers write it.
pub(crate) fn origin_host(origin: &str) -> Option<&str> {
    let authority = ["https://", "http://"]
        .iter()
        .find_map(|scheme| origin.strip_prefix(scheme))?;
    host_and_port(authority).map(|(host, _)| host)
}

/// The host of an authority as it is written, and the port if it names one. None: it has more than these.
pub(crate) fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = split(authority)?;
    if host.contains('@') {
        return None;
    }
    match port {
        Some(port) => port_number(port).map(|port| (host, Some(port))),
        None => Some((host, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(authority: &str) -> Option<(String, Option<u16>)> {
        let read = Authority::read(authority).ok()?;
        Some((read.host.into(), read.port))
    }

    #[test]
    fn what_is_one_place_has_one_spelling() {
        for (written, host, port) in [
            ("A.Test", "a.test", None),
            ("a.test.", "a.test", None),
            ("a.test:", "a.test", None),
            ("a.test.:8443", "a.test", Some(8443)),
            ("a.test:65535", "a.test", Some(65535)),
            ("xn--bcher-kva.test", "xn--bcher-kva.test", None),
            ("_dmarc.a.test", "_dmarc.a.test", None),
            ("127.0.0.1:1", "127.0.0.1", Some(1)),
            ("[::1]", "[::1]", None),
            ("[0:0::0:1]:80", "[::1]", Some(80)),
            ("[2001:DB8::A]", "[2001:db8::a]", None),
        ] {
            assert_eq!(read(written), Some((host.into(), port)), "{written}");
        }
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(read(&longest), Some((longest.clone(), None)));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let long_label = format!("{}.test", "a".repeat(64));
        let label = "a".repeat(63);
        let long_name = format!("{label}.{label}.{label}.{}", "a".repeat(62));
        for bad in [
            "",
            ".",
            "..",
            "a..",
            ".a",
            "a..b",
            "a b",
            "a\tb",
            "a,b",
            "a;b",
            "a/b",
            "a\\b",
            "a?b",
            "a#b",
            "u@a.test",
            "u:p@a.test",
            "a.test@",
            "@",
            "a%2eb",
            "a%00",
            "*",
            "*.test",
            "a.test:x",
            "a.test:0",
            "a.test:080",
            "a.test:65536",
            "a.test:99999999999",
            "a.test:+80",
            "a.test:-1",
            "a.test: 80",
            "a.test:80:80",
            ":80",
            "::1",
            "[::1",
            "::1]",
            "[]",
            "[:]",
            "[::1]x",
            "[::1].",
            "[::1%25eth0]",
            "[::1%eth0]",
            "[v1.a]",
            "[127.0.0.1]",
            "a[::1]",
            "[[::1]]",
            "b\u{fc}cher.test",
            &long_label,
            &long_name,
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_port_that_is_not_named_is_the_schemes() {
        let same = |one: &str, other: &str, scheme| {
            Authority::read(one)
                .unwrap()
                .is(&Authority::read(other).unwrap(), Some(scheme))
        };
        assert!(same("a.test:80", "A.test.", "http"));
        assert!(same("a.test", "a.test:443", "https"));
        assert!(!same("a.test:443", "a.test", "http"));
        assert!(!same("a.test:8080", "a.test", "http"));
        assert!(!same("a.test", "b.test", "http"));
    }

    #[test]
    fn the_host_of_an_origin_has_nothing_beside_it() {
        assert_eq!(origin_host("https://a.test:8443"), Some("a.test"));
        assert_eq!(origin_host("https://[::1]:8443"), Some("[::1]"));
        for bad in [
            "null",
            "https://u@a.test",
            "https://a.test:x",
            "a.test",
            "wss://a.test",
            "file://a.test",
            "httpx://a.test",
            "HTTPS://a.test",
        ] {
            assert_eq!(origin_host(bad), None, "{bad}");
        }
    }
}
