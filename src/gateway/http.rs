//! Parse: the head of a request made canonical.
//!
//! Third step of the path. hyper has framed the message; here the host becomes one lower-case name without port and
//! trailing dot, and says which gitspace and port are meant. What is ambiguous is refused, never repaired.
//!
//! Not here: who is asking (`auth`), what the host leads to (`route`).

use http::{HeaderMap, HeaderName, Method, Request, Uri, Version, header, request::Parts};

use crate::api::{GitspaceId, access::Port};

use super::rejection::{Form, Rejection};

/// The longest host name (RFC 1035 §2.3.4).
const HOST_MAX: usize = 253;

/// What the rest of the path needs of a request's head.
#[derive(Debug)]
pub(crate) struct Head {
    /// The canonical host.
    pub(crate) host: Box<str>,
    /// The port of the authority, if it named one: for links back.
    pub(crate) authority_port: Option<u16>,
    /// What the host stands for.
    pub(crate) destination: Destination,
    /// Whether a browser goes there as a page.
    pub(crate) navigation: bool,
    /// Whether it asks for another protocol on this connection (RFC 9110 §7.8).
    pub(crate) upgrade: bool,
    /// In which form an answer of our own is given.
    pub(crate) form: Form,
}

/// What a host stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A port of a gitspace under one of our domains.
    Gitspace(GitspaceId, Port),
    /// Another host; a static route may have claimed it.
    Host,
}

/// Makes the head canonical, or refuses it.
pub(crate) fn parse<B>(request: &Request<B>, domains: &[Box<str>]) -> Result<Head, Rejection> {
    refuse_methods(request.method())?;
    let authority = authority(request)?;
    let (host, authority_port) = split_authority(authority)?;
    let host = canonical(host)?;
    let upgrade = asks_for_upgrade(request);
    let navigation = navigates(request.method(), request.headers()) && !upgrade;
    Ok(Head {
        destination: destination(&host, domains),
        authority_port,
        form: Form::of(request.headers(), navigation),
        navigation,
        upgrade,
        host,
    })
}

/// TRACE would show the VM's view of our headers to a script; CONNECT is no request for a gitspace.
fn refuse_methods(method: &Method) -> Result<(), Rejection> {
    match *method {
        Method::TRACE | Method::CONNECT => Err(Rejection::MethodNotAllowed),
        _ => Ok(()),
    }
}

/// The one authority of the request (RFC 9112 §3.2, RFC 9113 §8.3.1).
fn authority<B>(request: &Request<B>) -> Result<&str, Rejection> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Some(
            host.to_str()
                .map_err(|_| Rejection::BadRequest("Host is not text"))?,
        ),
        (None, _) => None,
        (Some(_), Some(_)) => return Err(Rejection::BadRequest("more than one Host")),
    };
    let target = request.uri().authority().map(http::uri::Authority::as_str);
    match (target, host) {
        (Some(target), Some(host)) if target.eq_ignore_ascii_case(host) => Ok(host),
        (Some(_), Some(_)) => Err(Rejection::BadRequest(
            "Host differs from the request target",
        )),
        // HTTP/2 has its authority in the pseudo-header. VS Code's Node client sends upgrades in absolute form without Host.
        (Some(target), None)
            if request.version() == Version::HTTP_2 || asks_for_upgrade(request) =>
        {
            Ok(target)
        }
        (None, Some(host)) => Ok(host),
        (_, None) => Err(Rejection::BadRequest("no Host")),
    }
}

/// Host and port of an authority; user information is refused.
fn split_authority(authority: &str) -> Result<(&str, Option<u16>), Rejection> {
    const BAD: Rejection = Rejection::BadRequest("Host is no host name");
    if authority.contains('@') {
        return Err(BAD);
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']').ok_or(BAD)?;
            let after = &rest[end + 1..];
            let port = match after.strip_prefix(':') {
                Some(port) => Some(port),
                None if after.is_empty() => None,
                None => return Err(BAD),
            };
            (&authority[..end + 2], port)
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    match port {
        None | Some("") => Ok((host, None)),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            Ok((host, Some(digits.parse().map_err(|_| BAD)?)))
        }
        Some(_) => Err(BAD),
    }
}

/// Lower case, without the trailing dot; only what a host name or address may hold.
fn canonical(host: &str) -> Result<Box<str>, Rejection> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let ok =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'[' | b']');
    if host.is_empty() || host.len() > HOST_MAX || host.ends_with('.') || !host.bytes().all(ok) {
        return Err(Rejection::BadRequest("Host is no host name"));
    }
    Ok(host.to_ascii_lowercase().into_boxed_str())
}

/// Reads `<gitspace>.<domain>` and `<gitspace>-<port>.<domain>`; anything else is a host of its own.
pub fn destination(host: &str, domains: &[Box<str>]) -> Destination {
    domains
        .iter()
        .find_map(|domain| host.strip_suffix(&**domain)?.strip_suffix('.'))
        .and_then(label)
        .map_or(Destination::Host, |(gitspace, port)| {
            Destination::Gitspace(gitspace, port)
        })
}

/// A label: an identifier, or an identifier, a dash and 1–5 digits.
fn label(label: &str) -> Option<(GitspaceId, Port)> {
    if let Some((gitspace, digits)) = label.rsplit_once('-')
        && (1..=5).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_digit())
    {
        // One spelling per port: a leading zero would make a second origin of the same port.
        let port = digits
            .parse::<u16>()
            .ok()
            .filter(|port| *port > 0 && !digits.starts_with('0'))?;
        return Some((gitspace.parse().ok()?, Port::App(port)));
    }
    Some((label.parse().ok()?, Port::Ide))
}

/// The host of an `Origin` (RFC 6454 §7): scheme, host and perhaps a port, nothing else.
pub(crate) fn origin_host(origin: &str) -> Option<&str> {
    let (_, authority) = origin.split_once("://")?;
    split_authority(authority).ok().map(|(host, _)| host)
}

/// Whether `Connection` nominates `upgrade` and there is an `Upgrade` (HTTP/1.1 only).
fn asks_for_upgrade<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_11
        && request.headers().contains_key(header::UPGRADE)
        && nominated(request.headers()).any(|option| option.eq_ignore_ascii_case("upgrade"))
}

/// The options of every `Connection` field (RFC 9110 §7.6.1).
pub(crate) fn nominated(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Whether a browser goes there as a page (Fetch Metadata; `Accept` where a client sends none).
fn navigates(method: &Method, headers: &HeaderMap) -> bool {
    const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
    if !matches!(*method, Method::GET | Method::HEAD) {
        return false;
    }
    match headers.get(MODE) {
        Some(mode) => mode == "navigate",
        None => headers
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .is_some_and(|accept| accept.contains("text/html")),
    }
}

/// Leaves the target in origin form, byte for byte: what upstreams get.
pub(crate) fn origin_form(parts: &mut Parts) {
    let mut target = http::uri::Parts::default();
    target.path_and_query = parts.uri.path_and_query().cloned();
    if let Ok(uri) = Uri::from_parts(target) {
        parts.uri = uri;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domains() -> Vec<Box<str>> {
        vec!["gitspaces.localhost".into()]
    }

    fn get() -> http::request::Builder {
        Request::builder().uri("/a//b?x=%2f")
    }

    fn reason(request: &Request<()>) -> &'static str {
        match parse(request, &domains()) {
            Err(Rejection::BadRequest(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_host_becomes_canonical_and_names_gitspace_and_port() {
        let request = get()
            .header("host", "Api-K3x9q2-3000.Gitspaces.Localhost.:8443")
            .body(())
            .unwrap();
        let head = parse(&request, &domains()).unwrap();
        assert_eq!(&*head.host, "api-k3x9q2-3000.gitspaces.localhost");
        assert_eq!(head.authority_port, Some(8443));
        assert_eq!(
            head.destination,
            Destination::Gitspace("api-k3x9q2".parse().unwrap(), Port::App(3000))
        );
    }

    #[test]
    fn a_label_without_port_is_the_ide() {
        let id = |text: &str| Destination::Gitspace(text.parse().unwrap(), Port::Ide);
        assert_eq!(
            destination("api-k3x9q2.gitspaces.localhost", &domains()),
            id("api-k3x9q2")
        );
        assert_eq!(
            destination("api-123456.gitspaces.localhost", &domains()),
            id("api-123456")
        );
        for other in [
            "api-0.gitspaces.localhost",
            "api-03000.gitspaces.localhost",
            "api-99999.gitspaces.localhost",
            "a.b.gitspaces.localhost",
            "gitspaces.localhost",
            "xgitspaces.localhost",
            "app.example.test",
            "-3000.gitspaces.localhost",
        ] {
            assert_eq!(destination(other, &domains()), Destination::Host, "{other}");
        }
    }

    #[test]
    fn ambiguous_hosts_are_refused() {
        assert_eq!(reason(&get().body(()).unwrap()), "no Host");
        let two = get()
            .header("host", "a.test")
            .header("host", "a.test")
            .body(())
            .unwrap();
        assert_eq!(reason(&two), "more than one Host");
        let other = Request::builder()
            .uri("http://b.test/")
            .header("host", "a.test")
            .body(())
            .unwrap();
        assert_eq!(reason(&other), "Host differs from the request target");
        for bad in [
            "a b",
            "u@a.test",
            "a.test:x",
            "a..",
            "[::1",
            "",
            "a/b",
            "a.test:99999",
        ] {
            let request = get().header("host", bad).body(()).unwrap();
            assert_eq!(reason(&request), "Host is no host name", "{bad}");
        }
    }

    #[test]
    fn trace_and_connect_are_refused() {
        for method in [Method::TRACE, Method::CONNECT] {
            let request = get()
                .method(method)
                .header("host", "a.test")
                .body(())
                .unwrap();
            assert!(matches!(
                parse(&request, &domains()),
                Err(Rejection::MethodNotAllowed)
            ));
        }
    }

    #[test]
    fn an_upgrade_in_absolute_form_without_host_takes_its_authority() {
        let request = Request::builder()
            .uri("http://api-k3x9q2.gitspaces.localhost/ws")
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "websocket")
            .body(())
            .unwrap();
        let head = parse(&request, &domains()).unwrap();
        assert!(head.upgrade && !head.navigation);
        assert_eq!(&*head.host, "api-k3x9q2.gitspaces.localhost");
    }

    #[test]
    fn navigations_are_recognised() {
        let headers = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            headers
        };
        assert!(navigates(
            &Method::GET,
            &headers("sec-fetch-mode", "navigate")
        ));
        assert!(!navigates(&Method::GET, &headers("sec-fetch-mode", "cors")));
        assert!(navigates(&Method::GET, &headers("accept", "text/html,*/*")));
        assert!(!navigates(&Method::GET, &headers("accept", "*/*")));
        assert!(!navigates(
            &Method::POST,
            &headers("sec-fetch-mode", "navigate")
        ));
    }
}
