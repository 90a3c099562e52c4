//! The fuzz target of static routes: the routes file and `[[route]]`. What is taken can be found under its own names, says what
//! the file said, and a file with a mistake changes nothing.

use std::net::IpAddr;

use super::{Address, Destination, Source, Table, destination, file};
use crate::{
    api::{access::Port, path::RoutePath, route::Route},
    config::RouteEntry,
};

const DOMAIN: &str = "gitspaces.localhost";

/// A routes file in JSON, or a `[[route]]` in TOML.
pub fn routes_file(data: &[u8]) {
    if let Ok(routes) = serde_json::from_slice::<Vec<Route>>(data) {
        taken(&routes);
        by_the_api(&routes);
    }
    let entry = std::str::from_utf8(data)
        .ok()
        .and_then(|text| toml::from_str::<RouteEntry>(text).ok());
    if let Some(Ok(route)) = entry.map(|entry| file::route(&entry)) {
        let host = destination(&format!("{}.{DOMAIN}", route.gitspace), &[DOMAIN.into()]);
        assert_eq!(
            host,
            Destination::Gitspace(route.gitspace.clone(), Port::Ide)
        );
        assert!(
            route
                .host
                .as_ref()
                .is_none_or(|host| **host == *host.to_ascii_lowercase())
        );
        taken(&[route]);
    }
}

fn taken(routes: &[Route]) {
    let table = Table::new(Vec::new());
    if table.replace(Source::File, routes).is_err() {
        return;
    }
    for route in routes {
        // The last of a name counts.
        let Some(last) = routes
            .iter()
            .rfind(|other| other.gitspace == route.gitspace)
        else {
            continue;
        };
        let host = Destination::Gitspace(last.gitspace.clone(), Port::Ide);
        let Some((entry, _)) = table.find(&host, "", "/") else {
            panic!("{} was taken and is not there", last.gitspace);
        };
        assert_eq!((&entry.owner, entry.state), (&last.owner, last.state));
        let mut named = last.allow.iter().filter(|name| !name.is_empty());
        assert!(named.all(|name| entry.allow.have(name)));
        for (number, port) in &last.ports {
            let Some(endpoint) = entry.endpoint(Port::App(*number)) else {
                panic!("port {number} of {} is not there", last.gitspace);
            };
            assert_eq!(endpoint.visibility, port.visibility);
        }
        assert_eq!(
            entry.endpoints.len(),
            last.ports.len() + usize::from(last.ide.is_some())
        );
        let place = entry.place.as_deref();
        let place = place.map(|place| (&place.host, place.path.as_ref(), place.prefix, place.auth));
        let said = last.host.as_ref();
        let said = said.map(|host| (host, last.path.as_ref(), last.prefix, last.auth));
        assert_eq!(place, said);
        if let Some((host, path, ..)) = said {
            let path = path.map_or("/", RoutePath::as_str);
            let found = table.find(&Destination::Host, host, path);
            assert!(
                found.is_some_and(|(found, _)| found.gitspace == last.gitspace),
                "{host}{path} leads elsewhere"
            );
        }
    }
}

/// What the admin API takes leads to nothing that is local to the gateway.
fn by_the_api(routes: &[Route]) {
    let table = Table::new(Vec::new());
    for route in routes {
        // Refusing is fine; the table is looked at.
        let _ = table.apply(Source::Api, route);
    }
    for entry in table.all() {
        for endpoint in &entry.endpoints {
            match &endpoint.target.address {
                Address::Socket(address) => assert!(remote(address.ip()), "{address}"),
                Address::Nowhere => {}
                Address::Name(..) | Address::Unix(_) => {
                    panic!("the API leads to {}", endpoint.target.address)
                }
            }
        }
    }
}

fn remote(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            !(a == 127 || (a == 169 && b == 254) || v4.is_unspecified() || (224..240).contains(&a))
        }
        IpAddr::V6(v6) => {
            let mapped = v6.to_ipv4_mapped().map(IpAddr::V4);
            let [first, ..] = v6.segments();
            !v6.is_loopback()
                && !v6.is_unspecified()
                && first & 0xffc0 != 0xfe80
                && first & 0xff00 != 0xff00
                && mapped.is_none_or(remote)
        }
    }
}
