//! Where the demo lives: its configuration, with ports that are free.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    path::Path,
    time::Duration,
};

use super::DemoError;
use crate::config::{Config, Listen};

const GATEWAY_PORT: u16 = 8443;
const ATTEMPTS: usize = 100;
/// Streams of a demo need not survive it for long.
const DRAIN: Duration = Duration::from_secs(2);

/// The default configuration on temporary state.
pub(super) fn config(folder: &Path) -> Result<Config, DemoError> {
    let mut config = Config {
        state_dir: folder.join("state"),
        ..Config::default()
    };
    let gateway = &mut config.gateway;
    gateway.listen = listeners()?;
    gateway.timeouts.drain = DRAIN;
    // Standard output belongs to what the demo prints.
    gateway.access_log.path = folder.join("access.log").to_string_lossy().into_owned();
    // The process driver's instances are on loopback.
    gateway.upstreams.allow = [
        (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
        (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
    ]
    .into_iter()
    .filter_map(|(address, length)| ipnet::IpNet::new(address, length).ok())
    .collect();
    gateway.admin.address = gateway.admin.address.map(free_or_any);
    config.control_plane.address = free_or_any(config.control_plane.address);
    config.runner.address = free_or_any(config.runner.address);
    Ok(config)
}

/// 8443 on 127.0.0.1 and [::1], or another port that is free on both.
fn listeners() -> Result<Vec<Listen>, DemoError> {
    let v4 = IpAddr::from(Ipv4Addr::LOCALHOST);
    let v6 = IpAddr::from(Ipv6Addr::LOCALHOST);
    // Some machines have no IPv6 at all; a taken port is another matter.
    let addresses = match TcpListener::bind((v6, 0)) {
        Ok(_) => vec![v4, v6],
        Err(_) => vec![v4],
    };
    let free = |port: u16| {
        let held: Vec<_> = addresses
            .iter()
            .map(|address| TcpListener::bind((*address, port)))
            .collect();
        held.iter().all(Result::is_ok)
    };
    let any = || {
        let probe = TcpListener::bind((v4, 0)).ok()?;
        Some(probe.local_addr().ok()?.port())
    };
    let port = std::iter::once(Some(GATEWAY_PORT))
        .chain(std::iter::repeat_with(any).take(ATTEMPTS))
        .flatten()
        .find(|port| free(*port))
        .ok_or(DemoError::NoPort)?;
    let listen = |address| Listen {
        address: SocketAddr::new(address, port),
        ..Listen::default()
    };
    Ok(addresses.into_iter().map(listen).collect())
}

/// The address if it is free, else any port of it.
fn free_or_any(address: SocketAddr) -> SocketAddr {
    match TcpListener::bind(address) {
        Ok(_) => address,
        Err(_) => SocketAddr::new(address.ip(), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_address_becomes_another() {
        // What was let go may be taken by another test, or be held by a process that one has just forked.
        assert!((0..100).any(|_| is_free_when_it_is_let_go()));
    }

    fn is_free_when_it_is_let_go() -> bool {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(free_or_any(address).port(), 0);
        drop(taken);
        free_or_any(address) == address
    }
}
