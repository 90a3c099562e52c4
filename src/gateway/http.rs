//! Parse: the head of a request made canonical.
//!
//! Third step of the path. hyper has framed the message; here the host becomes one lower-case name without port and
//! trailing dot, and says which gitspace and port are meant. What is ambiguous is refused, never repaired.
//!
//! Not here: who is asking (`auth`), what the host leads to (`route`).

mod authority;
mod navigation;

use std::fmt::Write;

use http::{HeaderMap, HeaderValue, Method, Uri, Version, header, request::Parts};

use crate::api::{GitspaceId, access::Port};

use super::rejection::{Form, Rejection};

pub(crate) use authority::{host_and_port, origin_host};
pub(crate) use navigation::is_ahead;

use authority::Authority;
use navigation::{is_top, navigates};

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
    /// And as the page that its user sees, not in a frame of another one.
    pub(crate) top: bool,
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

/// How a request came, as far as its scheme is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// In the clear.
    Plain,
    /// Over TLS to us.
    Tls,
    /// In the clear from a trusted proxy to which it came over TLS: either scheme is true.
    TlsBefore,
}

impl Transport {
    /// `ours`: over TLS to us; `clients`: as the client sees it.
    pub(crate) fn of(ours: bool, clients: bool) -> Self {
        match (ours, clients) {
            (true, _) => Self::Tls,
            (false, true) => Self::TlsBefore,
            (false, false) => Self::Plain,
        }
    }
}

/// Makes the head canonical, or refuses it.
pub(crate) fn parse(
    request: &Parts,
    domains: &[Box<str>],
    transport: Transport,
) -> Result<Head, Rejection> {
    refuse_methods(&request.method)?;
    check_target(request, transport)?;
    check_expect(request)?;
    let authority = Authority::of(request)?;
    let upgrade = asks_for_upgrade(request);
    let navigation = navigates(&request.method, &request.headers) && !upgrade;
    Ok(Head {
        destination: destination(&authority.host, domains),
        authority_port: authority.port,
        form: Form::of(&request.headers, navigation),
        navigation,
        top: navigation && is_top(&request.headers),
        upgrade,
        host: authority.host,
    })
}

/// The form for whoever sent a head that could not be made canonical.
pub(crate) fn form(request: &Parts) -> Form {
    let navigation = navigates(&request.method, &request.headers) && !asks_for_upgrade(request);
    Form::of(&request.headers, navigation)
}

/// TRACE would show the VM's view of our headers to a script; CONNECT is no request for a gitspace.
fn refuse_methods(method: &Method) -> Result<(), Rejection> {
    match *method {
        Method::TRACE | Method::CONNECT => Err(Rejection::MethodNotAllowed),
        _ => Ok(()),
    }
}

/// A target is a path, an absolute URI of this connection's scheme, or `*` of OPTIONS (RFC 9112 §3.2, RFC 9113 §8.3.1).
fn check_target(request: &Parts, transport: Transport) -> Result<(), Rejection> {
    let uri = &request.uri;
    let h2 = request.version == Version::HTTP_2;
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    if !target.is_ascii() {
        return Err(Rejection::BadRequest("the request target is not ASCII"));
    }
    match target.as_bytes().first() {
        Some(b'/') => {}
        Some(b'*') if target == "*" && request.method == Method::OPTIONS => {}
        // `http://host?query`: the path is empty, which is `/` (RFC 9110 §4.2.3).
        Some(b'?') if !h2 && uri.authority().is_some() => {}
        _ => return Err(Rejection::BadRequest("the request target is no path")),
    }
    let fits = match uri.scheme_str() {
        None => true,
        // HTTP/2 names the scheme of its own connection. In an absolute target only the claim to be secure is checked
        // (RFC 9110 §7.4): VS Code's Node client sends these through proxies that end TLS.
        Some("https" | "wss") => transport != Transport::Plain,
        Some("http" | "ws") => !h2 || transport != Transport::Tls,
        Some(_) => false,
    };
    match fits {
        true => Ok(()),
        false => Err(Rejection::BadRequest(
            "the target's scheme is not the connection's",
        )),
    }
}

/// The only expectation is 100-continue, and HTTP/1.0 has none (RFC 9110 §10.1.1).
fn check_expect(request: &Parts) -> Result<(), Rejection> {
    if request.version == Version::HTTP_10 {
        return Ok(());
    }
    let known = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    match request.headers.get_all(header::EXPECT).iter().all(known) {
        true => Ok(()),
        false => Err(Rejection::ExpectationFailed),
    }
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

/// Whether `Connection` nominates `upgrade` and there is an `Upgrade`. To what is `forward`'s to judge. A client can say so over
/// HTTP/1.1 only; over HTTP/2 it was `connection::h2` (RFC 8441).
fn asks_for_upgrade(request: &Parts) -> bool {
    let headers = &request.headers;
    matches!(request.version, Version::HTTP_11 | Version::HTTP_2)
        && headers.contains_key(header::UPGRADE)
        && nominated(headers).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

/// The options of every `Connection` field (RFC 9110 §7.6.1).
pub(crate) fn nominated(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}

/// Method and path as a log line may hold them: ASCII on one line, of bounded length. A query is left out: it may hold secrets.
/// Records wait for the writer of the log: their memory is bounded too.
pub(crate) fn for_the_log(request: &Parts) -> (Method, Box<str>) {
    const METHOD_MAX: usize = 32;
    const PATH_MAX: usize = 2048;
    let method = &request.method;
    // Methods are ASCII.
    let method = match method.as_str().get(..METHOD_MAX) {
        Some(begin) => Method::from_bytes(begin.as_bytes()).unwrap_or_default(),
        None => method.clone(),
    };
    let path = request.uri.path();
    if path.is_ascii() && path.len() <= PATH_MAX {
        return (method, path.into());
    }
    let mut shown = String::with_capacity(PATH_MAX + 8);
    for byte in path.bytes() {
        if shown.len() >= PATH_MAX {
            shown.push_str("...");
            break;
        }
        if byte.is_ascii() {
            shown.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(shown, "%{byte:02X}");
        }
    }
    (method, shown.into())
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
    use http::Request;

    use super::*;

    fn domains() -> Vec<Box<str>> {
        vec!["gitspaces.localhost".into()]
    }

    fn get() -> http::request::Builder {
        Request::builder().uri("/a//b?x=%2f")
    }

    fn head(request: &Request<()>) -> Parts {
        request.clone().into_parts().0
    }

    fn reason(request: &Request<()>) -> &'static str {
        match parse(&head(request), &domains(), Transport::Plain) {
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
        let found = parse(&head(&request), &domains(), Transport::Plain).unwrap();
        assert_eq!(&*found.host, "api-k3x9q2-3000.gitspaces.localhost");
        assert_eq!(found.authority_port, Some(8443));
        assert_eq!(
            found.destination,
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
                parse(&head(&request), &domains(), Transport::Plain),
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
        let found = parse(&head(&request), &domains(), Transport::Plain).unwrap();
        assert!(found.upgrade && !found.navigation);
        assert_eq!(&*found.host, "api-k3x9q2.gitspaces.localhost");
    }
}
