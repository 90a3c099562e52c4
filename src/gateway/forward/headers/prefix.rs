//! An app that is reached by a path and does not know it: the path is taken off its requests, and its answers are put under it.
//!
//! One part of the header policy. What an app says of its own paths in fields is repaired here: where it sends a browser, which
//! paths its cookies are for, how far its service worker reaches. What it says in its pages is its own: relative links hold, and
//! `X-Forwarded-Prefix` tells it the rest.
//!
//! Not here: which path leads to which app (`route`).

use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{self, Entry},
    request::Parts,
    uri::PathAndQuery,
};

use crate::{
    api::route::Prefix as Seen,
    gateway::{
        http::{Head, host_and_port},
        rejection::Rejection,
        route,
    },
};

const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const SERVICE_WORKER_ALLOWED: HeaderName = HeaderName::from_static("service-worker-allowed");

/// The path by which an app was reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prefix<'a> {
    path: &'a str,
    /// Whether the app sees none of it.
    strip: bool,
    /// Whether the request was for the path itself: what is relative to it would be beside it.
    bare: bool,
}

impl<'a> Prefix<'a> {
    /// The one by which a request for this path came. None: the app has a host of its own.
    pub(crate) fn of(entry: &'a route::Entry, head: &Head, requested: &str) -> Option<Self> {
        let place = entry.place(&head.destination)?;
        let path = place.path.as_ref()?.as_str();
        Some(Self {
            path,
            strip: place.prefix == Seen::Strip,
            bare: requested == path,
        })
    }

    /// Where a page goes that was asked for by the path itself: into the folder, so that its relative links stay under it. None: it
    /// is another page, or the app knows the path.
    pub(crate) fn folder(&self, head: &Head, uri: &Uri) -> Option<String> {
        if !(self.strip && self.bare && head.navigation) {
            return None;
        }
        let query = uri.query();
        let (mark, query) = query.map_or(("", ""), |query| ("?", query));
        Some(format!("{}/{mark}{query}", self.path))
    }

    /// Takes it off a request whose target is in origin form.
    pub(super) fn take_off(&self, parts: &mut Parts) -> Result<(), Rejection> {
        const BAD: Rejection = Rejection::BadRequest("the target is no path");
        if !self.strip {
            return Ok(());
        }
        let target = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let Some(rest) = target.strip_prefix(self.path) else {
            return Ok(());
        };
        let rest = match rest.starts_with('/') {
            true => PathAndQuery::try_from(rest),
            false => PathAndQuery::try_from(format!("/{rest}")),
        };
        parts.uri = Uri::from(rest.map_err(|_| BAD)?);
        let path = HeaderValue::from_str(self.path).map_err(|_| BAD)?;
        parts.headers.insert(X_FORWARDED_PREFIX, path);
        Ok(())
    }

    /// Puts an app's answer under it. `port` is the one that the client came to.
    pub(in crate::gateway::forward) fn put_under(
        &self,
        headers: &mut HeaderMap,
        head: &Head,
        port: u16,
    ) {
        if self.strip {
            for name in [header::LOCATION, header::CONTENT_LOCATION] {
                change(headers, name, |value| self.location(value, head, port));
            }
            change(headers, header::SET_COOKIE, |value| self.cookie(value));
            change(headers, SERVICE_WORKER_ALLOWED, |value| {
                self.under(absolute_path(value)?)
            });
        }
        let inside = |value: &HeaderValue| self.holds(value.as_bytes()) && is_plain(value);
        if !headers.get_all(&SERVICE_WORKER_ALLOWED).iter().all(inside) {
            // Its worker has its own folder still, and no other app's.
            headers.remove(SERVICE_WORKER_ALLOWED);
        }
    }

    /// A path of the app, or a URL of this host with one.
    fn location(&self, value: &[u8], head: &Head, port: u16) -> Option<Vec<u8>> {
        if let Some(path) = absolute_path(value) {
            return self.under(path);
        }
        let begins = |scheme: &&&str| {
            let begin = value.get(..scheme.len());
            begin.is_some_and(|begin| begin.eq_ignore_ascii_case(scheme.as_bytes()))
        };
        let scheme = ["//", "http://", "https://"].iter().find(begins)?.len();
        let rest = value.split_at(scheme).1;
        let end = rest.iter().position(|byte| b"/?#\\".contains(byte));
        let (origin, path) = value.split_at(scheme + end.unwrap_or(rest.len()));
        let authority = std::str::from_utf8(origin.split_at(scheme).1).ok()?;
        let (host, named) = host_and_port(authority)?;
        if !host.eq_ignore_ascii_case(&head.host) || named.is_some_and(|named| named != port) {
            return None;
        }
        let path = match path.first() {
            Some(b'/') => self.under(path)?,
            _ => self.under(&[b"/", path].concat())?,
        };
        Some([origin, &path].concat())
    }

    /// A `Set-Cookie`, for paths that the app has. One that is bound to the host by its name (RFC 6265bis §4.1.3.2) would be refused
    /// with another path than `/`.
    fn cookie(&self, value: &[u8]) -> Option<Vec<u8>> {
        const BOUND: &[u8] = b"__host-";
        let mut parts = value.split(|byte| *byte == b';');
        let mut out = parts.next()?.to_vec();
        let name = out.trim_ascii_start().get(..BOUND.len());
        if name.is_some_and(|name| name.eq_ignore_ascii_case(BOUND)) {
            return None;
        }
        let mut said = false;
        for attribute in parts {
            out.push(b';');
            match path_of(attribute) {
                Some(path) => {
                    said = path.starts_with(b"/");
                    out.extend_from_slice(b" Path=");
                    out.extend_from_slice(&match path {
                        b"/" => self.path.as_bytes().to_vec(),
                        path if said => self.under(path).unwrap_or_else(|| path.to_vec()),
                        path => path.to_vec(),
                    });
                }
                None => out.extend_from_slice(attribute),
            }
        }
        // Without a path it would be for the folder that the request's path lies in (RFC 6265 §5.1.4).
        if !said && self.bare {
            out.extend_from_slice(b"; Path=");
            out.extend_from_slice(self.path.as_bytes());
        }
        Some(out)
    }

    /// The path with the prefix in front. None: it is there already, from an app that heeds `X-Forwarded-Prefix`.
    fn under(&self, path: &[u8]) -> Option<Vec<u8>> {
        (!self.holds(path)).then(|| [self.path.as_bytes(), path].concat())
    }

    /// Whether a path is this one or below it.
    fn holds(&self, path: &[u8]) -> bool {
        let rest = path.strip_prefix(self.path.as_bytes());
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'/' | b'?' | b'#')))
    }
}

/// A path of the same host, as a browser reads it: two slashes would begin another one.
fn absolute_path(value: &[u8]) -> Option<&[u8]> {
    let path = value.first() == Some(&b'/') && !matches!(value.get(1), Some(b'/' | b'\\'));
    path.then_some(value)
}

/// The value of an attribute `Path`.
fn path_of(attribute: &[u8]) -> Option<&[u8]> {
    let equals = attribute.iter().position(|byte| *byte == b'=')?;
    let (name, value) = attribute.split_at(equals);
    name.trim_ascii()
        .eq_ignore_ascii_case(b"path")
        .then(|| value.split_at(1).1.trim_ascii())
}

/// Whether a path leads nowhere else than it says: no dot segments, nothing encoded.
fn is_plain(path: &HeaderValue) -> bool {
    let path = path.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(byte);
    path.iter().all(plain) && !path.windows(2).any(|pair| pair == b"/.")
}

fn change(headers: &mut HeaderMap, name: HeaderName, change: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    if let Entry::Occupied(mut values) = headers.entry(name) {
        for value in values.iter_mut() {
            // Pieces of valid values are valid.
            let changed = change(value.as_bytes()).map(HeaderValue::try_from);
            if let Some(Ok(changed)) = changed {
                *value = changed;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::map, *};
    use crate::gateway::http::{Transport, parse};

    const STRIP: Prefix<'_> = Prefix {
        path: "/alice/code",
        strip: true,
        bare: false,
    };
    const BARE: Prefix<'_> = Prefix {
        bare: true,
        ..STRIP
    };
    const KEEP: Prefix<'_> = Prefix {
        strip: false,
        ..STRIP
    };

    fn request(target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder()
            .uri(target)
            .header("host", "dev.test:8443");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn head(headers: &[(&str, &str)]) -> Head {
        parse(&request("/", headers), &[], Transport::Tls).unwrap()
    }

    fn put_under(prefix: Prefix<'_>, name: &'static str, value: &'static str) -> String {
        let mut headers = map(&[(name, value)]);
        prefix.put_under(&mut headers, &head(&[]), 8443);
        let value = headers.remove(name);
        value.map_or_else(String::new, |value| value.to_str().unwrap().into())
    }

    #[test]
    fn the_app_sees_its_own_paths_and_is_told_the_prefix() {
        for (sent, seen) in [
            ("/alice/code", "/"),
            ("/alice/code?a=%2f", "/?a=%2f"),
            ("/alice/code/", "/"),
            ("/alice/code/a%2Fb//c?d", "/a%2Fb//c?d"),
        ] {
            let mut parts = request(sent, &[]);
            STRIP.take_off(&mut parts).unwrap();
            assert_eq!(parts.uri, seen, "{sent}");
            assert_eq!(parts.headers[X_FORWARDED_PREFIX], "/alice/code");
            let mut parts = request(sent, &[]);
            KEEP.take_off(&mut parts).unwrap();
            assert_eq!(parts.uri, sent);
            assert!(!parts.headers.contains_key(X_FORWARDED_PREFIX));
        }
    }

    #[test]
    fn a_page_at_the_prefix_itself_goes_into_the_folder() {
        let page = head(&[("sec-fetch-mode", "navigate")]);
        let folder =
            |prefix: Prefix<'_>, target: &str| prefix.folder(&page, &target.parse().unwrap());
        let at = |target| folder(BARE, target);
        assert_eq!(at("/alice/code").as_deref(), Some("/alice/code/"));
        assert_eq!(at("/alice/code?a=/b").as_deref(), Some("/alice/code/?a=/b"));
        assert_eq!(folder(STRIP, "/alice/code/"), None);
        assert_eq!(folder(Prefix { bare: true, ..KEEP }, "/alice/code"), None);
        let fetched = head(&[("sec-fetch-mode", "cors")]);
        assert_eq!(
            BARE.folder(&fetched, &Uri::from_static("/alice/code")),
            None
        );
    }

    #[test]
    fn where_an_app_sends_a_browser_is_under_the_prefix() {
        for (said, expected) in [
            ("/", "/alice/code/"),
            ("/login?to=/x", "/alice/code/login?to=/x"),
            ("/alice/codex", "/alice/code/alice/codex"),
            (
                "https://dev.test:8443/a",
                "https://dev.test:8443/alice/code/a",
            ),
            ("https://DEV.test:8443", "https://DEV.test:8443/alice/code/"),
            ("http://dev.test?a", "http://dev.test/alice/code/?a"),
            ("//dev.test/a#b", "//dev.test/alice/code/a#b"),
            ("HTTPS://dev.test#a", "HTTPS://dev.test/alice/code/#a"),
        ] {
            assert_eq!(put_under(STRIP, "location", said), expected, "{said}");
            assert_eq!(put_under(STRIP, "content-location", said), expected);
            assert_eq!(put_under(KEEP, "location", said), said);
        }
        for same in [
            "",
            "a",
            "./a/../b",
            "?a",
            "#a",
            "/alice/code",
            "/alice/code/login",
            "/alice/code?a",
            "https://dev.test:8443/alice/code/a",
            "https://other.test/a",
            "https://dev.test:9000/a",
            "https://dev.test.evil/a",
            "https://u@dev.test/a",
            "//other.test/a",
            "/\\other.test/a",
            "ftp://dev.test/a",
            "vscode://dev.test/a",
        ] {
            assert_eq!(put_under(STRIP, "location", same), same, "{same}");
        }
    }

    #[test]
    fn cookies_are_for_paths_under_the_prefix() {
        for (said, expected) in [
            ("a=1; Path=/", "a=1; Path=/alice/code"),
            ("a=1; path = /x ; Secure", "a=1; Path=/alice/code/x; Secure"),
            (
                "a=/b;PATH=/;Path=/x",
                "a=/b; Path=/alice/code; Path=/alice/code/x",
            ),
            ("a=1; Path=/alice/code/", "a=1; Path=/alice/code/"),
            ("a=1; Path=x", "a=1; Path=x"),
            ("a=1; HttpOnly", "a=1; HttpOnly"),
            ("a=\"Path=/\"; Max-Age=1", "a=\"Path=/\"; Max-Age=1"),
            ("__Host-a=1; Secure; Path=/", "__Host-a=1; Secure; Path=/"),
            ("__host-a=1; Path=/", "__host-a=1; Path=/"),
        ] {
            assert_eq!(put_under(STRIP, "set-cookie", said), expected, "{said}");
            assert_eq!(put_under(KEEP, "set-cookie", said), said);
        }
        for (said, expected) in [
            ("a=1", "a=1; Path=/alice/code"),
            ("a=1; Path=", "a=1; Path=; Path=/alice/code"),
            ("a=1; Path=/x", "a=1; Path=/alice/code/x"),
        ] {
            assert_eq!(put_under(BARE, "set-cookie", said), expected, "{said}");
        }
    }

    #[test]
    fn a_service_worker_reaches_no_further_than_the_prefix() {
        for (said, strip, keep) in [
            ("/", "/alice/code/", ""),
            ("/x/", "/alice/code/x/", ""),
            ("/alice/code/", "/alice/code/", "/alice/code/"),
            ("/alice/code/../../", "", ""),
            ("/alice/code/%2e%2e/", "", ""),
            ("../", "", ""),
            ("https://dev.test/", "", ""),
            ("//dev.test/", "", ""),
        ] {
            let under = |prefix| put_under(prefix, "service-worker-allowed", said);
            assert_eq!((&*under(STRIP), &*under(KEEP)), (strip, keep), "{said}");
        }
    }

    #[test]
    fn what_is_no_text_stays_what_it_is() {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_bytes(b"/caf\xe9").unwrap();
        headers.insert(header::LOCATION, value);
        STRIP.put_under(&mut headers, &head(&[]), 8443);
        assert_eq!(headers[header::LOCATION].as_bytes(), b"/alice/code/caf\xe9");
    }
}
