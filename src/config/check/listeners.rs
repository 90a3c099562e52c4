//! Addresses: none twice, and nothing dangerous off loopback.

use std::net::SocketAddr;

use super::Findings;
use crate::config::{Config, Driver, Listen, ListenProtocol, Role};

pub(super) fn check(config: &Config, findings: &mut Findings) {
    if config.runs(Role::Gateway) && config.gateway.listen.is_empty() {
        findings.add(
            "gateway.listen",
            "is an empty list, so nobody could reach the gateway",
            "add a [[gateway.listen]] table, or remove the key for the default (127.0.0.1:8443 and [::1]:8443)",
        );
    }
    let listeners = listeners(config);
    mapped(&listeners, findings);
    twice(&listeners, findings);
    protocols(config, findings);
    process_driver(config, &listeners, findings);
}

/// Every address on which this process listens, with its key.
fn listeners(config: &Config) -> Vec<(String, SocketAddr)> {
    let mut listeners = Vec::new();
    if config.runs(Role::Gateway) {
        for (index, listen) in config.gateway.listen.iter().enumerate() {
            listeners.push((format!("gateway.listen[{index}].address"), listen.address));
        }
        if let Some(address) = config.gateway.admin.address {
            listeners.push(("gateway.admin.address".into(), address));
        }
    }
    if config.runs(Role::ControlPlane) {
        listeners.push(("control_plane.address".into(), config.control_plane.address));
    }
    if config.runs(Role::Runner) {
        listeners.push(("runner.address".into(), config.runner.address));
    }
    listeners
}

/// Sockets for IPv6 take IPv6 only.
fn mapped(listeners: &[(String, SocketAddr)], findings: &mut Findings) {
    for (key, address) in listeners {
        let canonical = SocketAddr::new(address.ip().to_canonical(), address.port());
        if canonical.is_ipv4() != address.is_ipv4() {
            findings.add(
                key,
                format!("is {address}, an IPv4 address written as an IPv6 one"),
                format!("write \"{canonical}\""),
            );
        }
    }
}

fn twice(listeners: &[(String, SocketAddr)], findings: &mut Findings) {
    for (index, (key, address)) in listeners.iter().enumerate() {
        let other = listeners[..index]
            .iter()
            .find(|(_, other)| collide(*address, *other));
        if let Some((other_key, other)) = other {
            findings.add(
                key,
                format!("is {address}, which `{other_key}` ({other}) takes already"),
                "give each listener a port of its own",
            );
        }
    }
}

/// Whether both cannot be bound: the same port, and the same address or all addresses.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() != 0
        && a.port() == b.port()
        && a.is_ipv4() == b.is_ipv4()
        && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

fn protocols(config: &Config, findings: &mut Findings) {
    for (index, listen) in config.gateway.listen.iter().enumerate() {
        let https = listen.protocol == ListenProtocol::Https;
        if https && listen.redirect_to_https {
            findings.add(
                format!("gateway.listen[{index}].redirect_to_https"),
                "is true on a listener that speaks https itself",
                "remove it, or write protocol = \"http\"",
            );
        }
        if listen.redirect_port.is_some() && !listen.redirect_to_https {
            findings.add(
                format!("gateway.listen[{index}].redirect_port"),
                "is set on a listener that does not redirect",
                "remove it, or write protocol = \"http\" and redirect_to_https = true",
            );
        }
        client_certificates(index, listen, findings);
        let bare = https && config.gateway.certificate.is_empty();
        if bare && !listen.address.ip().is_loopback() {
            findings.add(
                format!("gateway.listen[{index}].address"),
                format!(
                    "is {}, and without a [[gateway.certificate]] there is only the development certificate, which serves loopback addresses only",
                    listen.address
                ),
                "add a [[gateway.certificate]] with chain and key, or listen on 127.0.0.1 or [::1]",
            );
        }
    }
}

/// What only a TLS handshake can do, and modes without the authorities that they need.
fn client_certificates(index: usize, listen: &Listen, findings: &mut Findings) {
    let key = |name: &str| format!("gateway.listen[{index}].{name}");
    if listen.protocol != ListenProtocol::Https {
        for (name, is_set) in [
            ("strict_sni", listen.strict_sni),
            ("client_ca", listen.client_ca.is_some()),
            ("client_certificates", listen.client_certificates.is_some()),
        ] {
            if is_set {
                findings.add(
                    key(name),
                    "is set on a listener in the clear, where there is no TLS handshake",
                    "remove it, or write protocol = \"https\"",
                );
            }
        }
    } else if listen.client_certificates.is_some() && listen.client_ca.is_none() {
        findings.add(
            key("client_certificates"),
            "is set without `client_ca`, so that no certificate could be checked",
            "name the file with the authorities in `client_ca`, or remove it",
        );
    }
}

/// The process driver gives whoever reaches a gitspace a shell on this host.
fn process_driver(config: &Config, listeners: &[(String, SocketAddr)], findings: &mut Findings) {
    let Driver::Process = config.runner.driver;
    if !config.runs(Role::Runner) {
        return;
    }
    for (key, address) in listeners {
        if !address.ip().is_loopback() {
            findings.add(
                key,
                format!(
                    "is {address}, which is not loopback, beside `runner.driver` = \"process\" (the only driver), which isolates nothing: gitspaces would be shells on this host",
                ),
                "listen on 127.0.0.1 or [::1], or run the runner elsewhere (remove \"runner\" from `roles`)",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_collide_with_each_address_of_their_family() {
        let collide = |a: &str, b: &str| collide(a.parse().unwrap(), b.parse().unwrap());
        assert!(collide("127.0.0.1:1", "127.0.0.1:1"));
        assert!(collide("0.0.0.0:1", "127.0.0.1:1"));
        assert!(!collide("127.0.0.1:1", "[::1]:1"));
        assert!(!collide("127.0.0.1:0", "127.0.0.1:0"));
        assert!(!collide("127.0.0.1:1", "127.0.0.2:1"));
    }
}
