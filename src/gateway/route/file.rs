//! Static routes: `[[route]]` of the configuration, and `gateway.routes_file`, a JSON array of routes.

use std::{collections::BTreeMap, io, path::Path, sync::Arc};

use super::entry::has_certificate;
use crate::{
    api::{
        GitspaceId,
        route::{PortRoute, Protocol, Route, RouteState, Upstream, UpstreamTls},
        wake::Wakers,
    },
    config::{PortEntry, RouteEntry},
};

/// Why static routes cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("cannot read the routes file {path}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no JSON array of routes.
    #[error("the routes file {path} is no JSON array of routes")]
    Parse {
        /// Which file.
        path: String,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A `[[route]]` cannot be used.
    #[error("[[route]] {route}: {problem}")]
    Entry {
        /// Its gitspace or host.
        route: String,
        /// What was found and what is accepted.
        problem: String,
    },
}

/// Reads `gateway.routes_file`.
pub(crate) fn read(path: &Path) -> Result<Vec<Route>, FileError> {
    let name = path.display().to_string();
    let text = std::fs::read(path).map_err(|source| FileError::Read {
        path: name.clone(),
        source,
    })?;
    serde_json::from_slice(&text).map_err(|source| FileError::Parse { path: name, source })
}

/// Turns a `[[route]]` into a route.
pub(crate) fn route(entry: &RouteEntry) -> Result<Route, FileError> {
    let name = entry
        .gitspace
        .as_ref()
        .map(GitspaceId::as_str)
        .or(entry.host.as_deref())
        .unwrap_or("?")
        .to_owned();
    let fail = |problem: String| FileError::Entry {
        route: name.clone(),
        problem,
    };
    let gitspace = gitspace(entry).map_err(fail)?;
    let ide = port_route(&ide(entry)).map_err(fail)?;
    let mut ports = BTreeMap::new();
    for (number, port) in &entry.ports {
        let number = number
            .parse::<u16>()
            .ok()
            .filter(|number| *number > 0)
            .ok_or_else(|| fail(format!("`ports.{number}` is no port; 1 to 65535 is")))?;
        ports.insert(number, port_route(port).map_err(fail)?);
    }
    let arc = |text: &String| Arc::<str>::from(text.as_str());
    Ok(Route {
        gitspace,
        generation: 0,
        instance: None,
        state: RouteState::Running,
        owner: entry.owner.as_ref().map(arc),
        org: entry.org.as_ref().map(arc),
        host: entry
            .host
            .as_ref()
            .map(|host| host.trim_end_matches('.').to_ascii_lowercase().into()),
        path: entry.path.clone(),
        prefix: entry.prefix.unwrap_or_default(),
        auth: entry.auth,
        address: None,
        ide: Some(ide),
        ports,
        allow: entry.allow.iter().map(arc).collect(),
        shares: Vec::new(),
        wake: Wakers::default(),
    })
}

/// The named gitspace, or one made of host and path.
fn gitspace(entry: &RouteEntry) -> Result<GitspaceId, String> {
    match (&entry.gitspace, entry.label()) {
        (Some(gitspace), _) => {
            let digits = gitspace
                .as_str()
                .rsplit_once('-')
                .map_or("", |(_, end)| end);
            if (1..=5).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(format!(
                    "`gitspace` ends like a port (-{digits}); its host would mean another gitspace's port. Choose another label"
                ));
            }
            Ok(gitspace.clone())
        }
        (None, Some(label)) => label
            .parse()
            .map_err(|error| format!("`host` {error}; name a `gitspace` beside it")),
        (None, None) => Err("needs `gitspace` or `host`".into()),
    }
}

/// The IDE's part of a `[[route]]`, in the form of any other port's.
fn ide(entry: &RouteEntry) -> PortEntry {
    PortEntry {
        upstream: entry.upstream.clone(),
        tls_ca: entry.tls_ca.clone(),
        tls_pin: entry.tls_pin,
        tls_name: entry.tls_name.clone(),
        visibility: entry.visibility,
        host_header: entry.host_header,
        origin: entry.origin,
        cors: Vec::new(),
        upgrades: entry.upgrades.clone(),
    }
}

fn port_route(entry: &PortEntry) -> Result<PortRoute, String> {
    let (protocol, upstream, port) = parse_upstream(&entry.upstream)?;
    Ok(PortRoute {
        port,
        protocol,
        visibility: entry.visibility,
        host_header: entry.host_header,
        origin: entry.origin,
        cors: entry.cors.clone(),
        upgrades: entry.upgrades.clone(),
        tls: tls(entry)?.map(Arc::new),
        upstream: Some(upstream),
    })
}

fn tls(entry: &PortEntry) -> Result<Option<UpstreamTls>, String> {
    let ca = entry.tls_ca.as_deref().map(authorities).transpose()?;
    let tls = UpstreamTls {
        ca,
        pin: entry.tls_pin,
        name: entry.tls_name.as_deref().map(Arc::from),
    };
    Ok(Some(tls).filter(|tls| *tls != UpstreamTls::default()))
}

/// Reads `tls_ca`. What is in it is part of the target: other authorities are another target.
fn authorities(path: &Path) -> Result<Arc<str>, String> {
    let problem = |why: &str| format!("`tls_ca` is {}, {why}", path.display());
    let text = std::fs::read_to_string(path)
        .map_err(|error| problem(&format!("which cannot be read: {error}")))?;
    match has_certificate(&text) {
        true => Ok(text.into()),
        false => Err(problem(
            "in which no certificate, or one that cannot be read, is found; a PEM file is accepted",
        )),
    }
}

/// Reads `http://host:port`, `https://…`, `h2c://…` or `unix:/path`.
fn parse_upstream(text: &str) -> Result<(Protocol, Upstream, u16), String> {
    let problem = || {
        format!(
            "`upstream` is {text:?}; `http://host:port`, `https://host:port`, `h2c://host:port` or `unix:/path` is accepted"
        )
    };
    if let Some(path) = text.strip_prefix("unix:") {
        return path
            .starts_with('/')
            .then(|| (Protocol::Http, Upstream::Unix(path.into()), 0))
            .ok_or_else(problem);
    }
    let uri: http::Uri = text.parse().map_err(|_| problem())?;
    let bare = uri.path_and_query().is_none_or(|path| path == "/");
    let (protocol, port) = match uri.scheme_str() {
        Some("http") => (Protocol::Http, 80),
        Some("https") => (Protocol::Https, 443),
        Some("h2c") => (Protocol::H2c, 80),
        _ => return Err(problem()),
    };
    match uri.host() {
        Some(host) if bare && !host.is_empty() => Ok((
            protocol,
            Upstream::Host(host.into()),
            uri.port_u16().unwrap_or(port),
        )),
        _ => Err(problem()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{
        access::Visibility,
        route::{Auth, Prefix},
    };

    fn entry(text: &str) -> RouteEntry {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_static_route_has_its_upstreams() {
        let entry = entry(
            "gitspace = 'api-k3x9q2'\nupstream = 'http://127.0.0.1:8089'\nowner = 'alice'\n\
             [ports.3000]\nupstream = 'unix:/run/app.sock'\nvisibility = 'public'",
        );
        let route = route(&entry).unwrap();
        assert_eq!(route.ide.unwrap().port, 8089);
        assert_eq!(
            route.ports[&3000].upstream,
            Some(Upstream::Unix("/run/app.sock".into()))
        );
        assert_eq!(route.ports[&3000].visibility, Visibility::Public);
    }

    #[test]
    fn a_host_alone_is_enough() {
        let route = route(&entry(
            "host = 'App.Example.test'\nupstream = 'http://10.0.0.1'",
        ))
        .unwrap();
        assert_eq!(route.gitspace.as_str(), "app-example-test");
        assert_eq!(route.host.as_deref(), Some("app.example.test"));
        assert_eq!(route.ide.unwrap().port, 80);
    }

    #[test]
    fn a_path_of_a_host_is_a_route_of_its_own() {
        let route = route(&entry(
            "host = 'dev.test'\npath = '/Alice/code'\nprefix = 'keep'\nauth = 'app'\nupstream = 'http://10.0.0.1'",
        ))
        .unwrap();
        assert_eq!(route.gitspace.as_str(), "dev-test-alice-code");
        assert_eq!(route.path.unwrap().as_str(), "/Alice/code");
        assert_eq!((route.prefix, route.auth), (Prefix::Keep, Auth::App));
    }

    #[test]
    fn the_scheme_says_what_is_spoken() {
        for (upstream, protocol, port) in [
            ("http://a.test", Protocol::Http, 80),
            ("https://a.test", Protocol::Https, 443),
            ("h2c://a.test:50051", Protocol::H2c, 50051),
        ] {
            let entry = entry(&format!("gitspace = 'a'\nupstream = '{upstream}'"));
            let ide = route(&entry).unwrap().ide.unwrap();
            assert_eq!((ide.protocol, ide.port), (protocol, port), "{upstream}");
        }
    }

    #[test]
    fn mistakes_say_what_is_accepted() {
        for (text, expected) in [
            ("upstream = 'http://a:1'", "needs `gitspace` or `host`"),
            (
                "gitspace = 'a'\nupstream = 'ftp://a:1'",
                "`h2c://host:port` or `unix:/path` is accepted",
            ),
            (
                "gitspace = 'a'\nupstream = 'http://a:1/x'",
                "`http://host:port`",
            ),
            ("gitspace = 'a'\nupstream = 'unix:x'", "`unix:/path`"),
            (
                "gitspace = 'app-3000'\nupstream = 'http://a:1'",
                "ends like a port",
            ),
            (
                "gitspace = 'a'\nupstream = 'http://a:1'\n[ports.0]\nupstream = 'http://a:2'",
                "`ports.0` is no port",
            ),
        ] {
            let error = route(&entry(text)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
