//! `[[route]]`: each can be reached, under one host, and leads somewhere.

use std::net::IpAddr;

use super::{Findings, text};
use crate::{api::route::Auth, config::RouteEntry};

pub(super) fn check(routes: &[RouteEntry], domains: &[String], findings: &mut Findings) {
    for (index, route) in routes.iter().enumerate() {
        let key = format!("route[{index}]");
        findings.unless_ok(format!("{key}.upstream"), text::upstream(&route.upstream));
        tls(
            &key,
            &route.upstream,
            [route.tls_ca.is_some(), route.tls_pin.is_some()],
            route.tls_name.as_deref(),
            findings,
        );
        names(&key, route, &routes[..index], findings);
        place(&key, route, domains, &routes[..index], findings);
        people(&key, route, findings);
        ports(&key, route, findings);
    }
}

fn names(key: &str, route: &RouteEntry, before: &[RouteEntry], findings: &mut Findings) {
    if route.gitspace.is_none() && route.host.is_none() {
        findings.add(
            key,
            "has neither `gitspace` nor `host`, so no request could reach it",
            "add `gitspace = \"…\"` (a label under the domains) or `host = \"…\"` (a whole host)",
        );
    }
    let Some(gitspace) = &route.gitspace else {
        let twin = |other: &RouteEntry| other.label() == route.label();
        if let (Some(label), true) = (route.label(), before.iter().any(twin)) {
            findings.add(
                key,
                format!("is called {label:?}, which an earlier [[route]] is already"),
                "add another `gitspace = \"…\"`: the name for tokens, tickets and logs",
            );
        }
        return;
    };
    let key = format!("{key}.gitspace");
    if before
        .iter()
        .any(|other| other.gitspace.as_ref() == Some(gitspace))
    {
        findings.add(
            &key,
            format!("is \"{gitspace}\", which an earlier [[route]] has already"),
            "give each gitspace one route; its other ports go into [route.ports.<number>]",
        );
    }
    let port_like = |(name, port): (&str, &str)| {
        !name.is_empty() && !name.ends_with('-') && text::port_number(port).is_some()
    };
    if gitspace.as_str().rsplit_once('-').is_some_and(port_like) && route.host.is_none() {
        findings.add(
            key,
            format!("is \"{gitspace}\", which reads as a port of another gitspace, and there is no `host` to reach it by"),
            "choose a name that does not end in a dash and up to five digits",
        );
    }
}

/// The domain of which a host is a gitspace's.
pub(super) fn gitspaces_own<'a>(host: &str, domains: &'a [String]) -> Option<&'a String> {
    domains.iter().find(|domain| {
        let label = host
            .strip_suffix(domain.as_str())
            .and_then(|rest| rest.strip_suffix('.'));
        label.is_some_and(|label| !label.contains('.'))
    })
}

/// A host, or a path of one, is one route's; what belongs to hosts and paths needs them.
fn place(
    key: &str,
    route: &RouteEntry,
    domains: &[String],
    before: &[RouteEntry],
    findings: &mut Findings,
) {
    let Some(host) = &route.host else {
        if route.path.is_some() {
            findings.add(
                format!("{key}.path"),
                "belongs to a `host`, and the route has none",
                "add `host = \"…\"`; a gitspace's own hosts have no paths of others",
            );
        }
        if route.auth == Auth::App {
            findings.add(
                format!("{key}.auth"),
                "is \"app\", and the route has no `host`: at gitspaces' own hosts the gateway tells who is asking",
                "remove it, or add `host = \"…\"`",
            );
        }
        return;
    };
    let key_of = |name: &str| format!("{key}.{name}");
    findings.unless_ok(key_of("host"), text::host(host));
    if let Some(domain) = gitspaces_own(host, domains) {
        findings.add(
            key_of("host"),
            format!("is {host:?}, which is a gitspace's own host under the domain {domain:?}"),
            "write `gitspace = \"…\"` instead, or take a host outside `gateway.domains`",
        );
    }
    let twin = |other: &&RouteEntry| other.host.as_ref() == Some(host) && other.path == route.path;
    if before.iter().any(|other| twin(&other)) {
        let (name, found, change) = match &route.path {
            Some(path) => (
                "path",
                format!("\"{path}\" of {host:?}"),
                "give each path one route",
            ),
            None => (
                "host",
                format!("{host:?}"),
                "give each host one route, or each route a `path` of it",
            ),
        };
        findings.add(
            key_of(name),
            format!("is {found}, which an earlier [[route]] has already"),
            change,
        );
    }
    if route.prefix.is_some() && route.path.is_none() {
        findings.add(
            key_of("prefix"),
            "belongs to a `path`, and the route has none",
            "remove it, or add `path = \"…\"`",
        );
    }
    if route.auth == Auth::App && route.gitspace.is_some() {
        findings.add(
            key_of("auth"),
            "is \"app\", and the route has a `gitspace`, at whose own host the gateway tells who is asking",
            "remove `gitspace`, or write two routes",
        );
    }
}

/// What tells who is at the other end of TLS belongs to TLS.
fn tls(
    key: &str,
    upstream: &str,
    [ca, pin]: [bool; 2],
    name: Option<&str>,
    findings: &mut Findings,
) {
    let given = [
        ("tls_ca", ca),
        ("tls_pin", pin),
        ("tls_name", name.is_some()),
    ];
    for (name, _) in given.into_iter().filter(|(_, given)| *given) {
        if !upstream.starts_with("https://") {
            findings.add(
                format!("{key}.{name}"),
                format!("belongs to an `upstream` of https, and this one is {upstream:?}"),
                format!("write `upstream = \"https://…\"`, or remove `{name}`"),
            );
        }
    }
    if let Some(name) = name.filter(|name| name.parse::<IpAddr>().is_err()) {
        findings.unless_ok(format!("{key}.tls_name"), text::dns_name(name));
    }
}

fn people(key: &str, route: &RouteEntry, findings: &mut Findings) {
    let named = [("owner", &route.owner), ("org", &route.org)];
    for (name, value) in named {
        if value.as_ref().is_some_and(|value| value.trim().is_empty()) {
            findings.add(
                format!("{key}.{name}"),
                "is empty",
                "remove it or write a name",
            );
        }
    }
    for (index, principal) in route.allow.iter().enumerate() {
        if principal.trim().is_empty() {
            findings.add(
                format!("{key}.allow[{index}]"),
                "is empty",
                "remove it or write a principal",
            );
        }
    }
}

fn ports(key: &str, route: &RouteEntry, findings: &mut Findings) {
    for (number, port) in &route.ports {
        let key = format!("{key}.ports.{number}");
        if text::port_number(number).is_none() {
            findings.add(
                &key,
                format!("{number:?} is no port; 1 to 65535 are accepted, without zeros in front"),
                "write a number such as [route.ports.3000]",
            );
        }
        match &route.gitspace {
            None => findings.add(
                &key,
                "belongs to a route without `gitspace`, so it has no host <gitspace>-<port>.<domain>",
                "add `gitspace = \"…\"` to the route, or write a [[route]] with a `host` of its own",
            ),
            Some(gitspace) if gitspace.as_str().len() + 1 + number.len() > 63 => findings.add(
                &key,
                format!("\"{gitspace}-{number}\" is longer than the 63 characters of a DNS label"),
                "choose a shorter `gitspace`",
            ),
            Some(_) => {}
        }
        findings.unless_ok(format!("{key}.upstream"), text::upstream(&port.upstream));
        tls(
            &key,
            &port.upstream,
            [port.tls_ca.is_some(), port.tls_pin.is_some()],
            port.tls_name.as_deref(),
            findings,
        );
        for (index, origin) in port.cors.iter().enumerate() {
            findings.unless_ok(format!("{key}.cors[{index}]"), text::origin(origin));
        }
    }
}
