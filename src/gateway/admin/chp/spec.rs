//! What a route of CHP is here: a path, a gitspace's identifier made of it, and a target.
//!
//! CHP knows paths decoded, once: that is how they are compared, listed and kept. The identifier is for logs, metrics and limits; it
//! is the same for the same path, and no two paths have the same.

use std::{fmt::Write, net::IpAddr, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::Uri;

use crate::api::{
    GitspaceId,
    access::Visibility,
    path::RoutePath,
    route::{Auth, HostHeader, PortRoute, Prefix, Protocol, Route, RouteState},
    wake::Wakers,
};

/// How much of the path stands in the identifier, in front of its digest.
const READABLE: usize = 30;

/// See the module.
#[derive(Debug)]
pub(super) struct Spec {
    /// None: the whole host.
    path: Option<RoutePath>,
    gitspace: GitspaceId,
}

impl Spec {
    /// Of what stands behind `/api/routes` in a URL.
    pub(super) fn read(encoded: &str) -> Result<Self, String> {
        let path = decoded(encoded).ok_or("the path has an escape that is none, or is no UTF-8")?;
        Self::new(&path)
    }

    /// Of a decoded path, with or without slashes at its ends.
    pub(super) fn new(path: &str) -> Result<Self, String> {
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        let path = match path {
            "" => None,
            path => Some(RoutePath::decoded(&format!("/{path}")).ok_or_else(|| {
                format!(
                    "a path may have 1 to {} segments and {} bytes, no empty and no dot segments, no `;`, `%`, `\\` and control \
                     characters, and `/_gitspace` is the gateway's",
                    RoutePath::SEGMENTS,
                    RoutePath::LENGTH
                )
            })?),
        };
        let gitspace = gitspace(path.as_ref().map_or("/", RoutePath::as_str))?;
        Ok(Self { path, gitspace })
    }

    /// As it is listed.
    pub(super) fn path(&self) -> &str {
        self.path.as_ref().map_or("/", RoutePath::as_str)
    }

    /// What the route is called here.
    pub(super) fn gitspace(&self) -> &GitspaceId {
        &self.gitspace
    }

    /// The route: its app knows its path and tells itself who is asking.
    pub(super) fn route(&self, host: &Arc<str>, target: &str) -> Result<Route, String> {
        let (protocol, address, port) = parse(target)?;
        Ok(Route {
            gitspace: self.gitspace.clone(),
            generation: 0,
            instance: None,
            state: RouteState::Running,
            owner: None,
            org: None,
            host: Some(Arc::clone(host)),
            path: self.path.clone(),
            prefix: Prefix::Keep,
            auth: Auth::App,
            address: Some(address),
            ide: Some(PortRoute {
                port,
                protocol,
                visibility: Visibility::Public,
                host_header: HostHeader::Public,
                origin: None,
                cors: Vec::new(),
                upgrades: Vec::new(),
                tls: None,
                upstream: None,
            }),
            ports: Default::default(),
            allow: Vec::new(),
            shares: Vec::new(),
            wake: Wakers::Off,
        })
    }
}

/// What can be read of the path, and 128 bits of its digest.
fn gitspace(path: &str) -> Result<GitspaceId, String> {
    let mut label = String::new();
    for character in path.chars() {
        if character.is_ascii_alphanumeric() {
            label.push(character.to_ascii_lowercase());
        } else if !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
        if label.len() == READABLE {
            break;
        }
    }
    if label.is_empty() {
        label.push_str("root");
    }
    if !label.ends_with('-') {
        label.push('-');
    }
    for byte in digest(&SHA256, path.as_bytes()).as_ref().iter().take(16) {
        // Writing to a String cannot fail.
        let _ = write!(label, "{byte:02x}");
    }
    label.parse().map_err(|error| format!("the path {error}"))
}

/// `http://10.0.0.7:8888`: an address, since names are for whoever configures the gateway, and no path.
fn parse(target: &str) -> Result<(Protocol, IpAddr, u16), String> {
    let bad = |problem: &str| {
        format!(
            "`target` is {target:?}, {problem}; `http://address:port` and `https://address:port` are accepted"
        )
    };
    let uri: Uri = target.parse().map_err(|_| bad("which is no URL"))?;
    let (protocol, port) = match uri.scheme_str() {
        Some("http") => (Protocol::Http, 80),
        Some("https") => (Protocol::Https, 443),
        _ => return Err(bad("whose scheme is another")),
    };
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if authority.contains('@') || uri.query().is_some() || !matches!(uri.path(), "" | "/") {
        return Err(bad("which has more than an address and a port"));
    }
    let host = uri.host().unwrap_or_default();
    let literal = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = literal.unwrap_or(host).parse();
    let address = address.map_err(|_| bad("which names a host and not its IP address"))?;
    Ok((protocol, address, uri.port_u16().unwrap_or(port)))
}

/// Every escape decoded, once. None: one is none, or it is no text.
fn decoded(text: &str) -> Option<String> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = tail else {
            return None;
        };
        out.push(u8::try_from(16 * digit(*high)? + digit(*low)?).ok()?);
        rest = tail;
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_same_however_it_is_written() {
        for (written, path) in [
            ("", "/"),
            ("/", "/"),
            ("/user/ada", "/user/ada"),
            ("/user/ada/", "/user/ada"),
            ("user/ada", "/user/ada"),
            ("/%75ser%2Fada", "/user/ada"),
            ("/user/ada@b.test/gpu", "/user/ada@b.test/gpu"),
            ("/user/ada%40b.test", "/user/ada@b.test"),
            ("/user/Ada%20L", "/user/Ada L"),
            ("/user/%C3%A4", "/user/\u{e4}"),
        ] {
            assert_eq!(Spec::read(written).unwrap().path(), path, "{written}");
        }
        for bad in [
            "/user/%zz",
            "/user/%4",
            "/user/%ff",
            "/user//ada",
            "/user/../x",
            "/user/%2e%2e",
            "/user/a%3bb",
            "/user/a%2541",
            "/user/a%5cb",
            "/user/a%0ab",
            "/_gitspace/x",
        ] {
            assert!(Spec::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn identifiers_can_be_read_and_no_two_paths_have_the_same() {
        let id = |path: &str| Spec::new(path).unwrap().gitspace().to_string();
        assert!(id("/").starts_with("root-"));
        assert!(id("/user/Ada@b.test").starts_with("user-ada-b-test-"));
        let long = format!("/user/{}", "a-".repeat(90));
        let all = [
            "/",
            "/a",
            "/A",
            "/user/ada",
            "/user/ada/x",
            "/user/ada-x",
            "/user/ada@x",
            "/\u{e4}",
            "/\u{f6}",
            &long,
        ];
        let ids: std::collections::HashSet<_> = all.iter().map(|path| id(path)).collect();
        assert_eq!(ids.len(), all.len());
        assert!(ids.iter().all(|id| id.len() <= 63));
        assert_eq!(id("/user/ada"), "user-ada-8d5da6bcc52b4b4450a95fbe84cd95c1");
    }

    #[test]
    fn a_target_is_an_address_and_a_port() {
        for (target, protocol, address, port) in [
            ("http://127.0.0.1:8888", Protocol::Http, "127.0.0.1", 8888),
            ("http://10.0.0.7/", Protocol::Http, "10.0.0.7", 80),
            (
                "https://[2001:db8::1]:8443",
                Protocol::Https,
                "2001:db8::1",
                8443,
            ),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(parse(target), Ok((protocol, address, port)), "{target}");
        }
        for (bad, said) in [
            ("", "no URL"),
            ("127.0.0.1:8888", "scheme"),
            ("unix:/run/x", "no URL"),
            ("ftp://10.0.0.7", "scheme"),
            ("http://hub:8081", "names a host"),
            ("http://localhost:8081", "names a host"),
            ("http://10.0.0.7:8888/x", "more than"),
            ("http://10.0.0.7:8888/?x", "more than"),
            ("http://u:p@10.0.0.7:8888", "more than"),
        ] {
            let problem = parse(bad).unwrap_err();
            assert!(problem.contains(said), "{bad}: {problem}");
        }
    }
}
