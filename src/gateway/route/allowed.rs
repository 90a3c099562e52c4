//! Where routes of the feed and the admin API may lead: a control plane that was taken over must not be able to make the gateway
//! reach what is local to it.

use std::net::IpAddr;

use ipnet::IpNet;

/// `gateway.upstreams.allow`; empty: anything that is not local to the gateway.
#[derive(Debug)]
pub(super) struct Allowed(pub(super) Vec<IpNet>);

impl Allowed {
    /// Whether a route may lead there.
    pub(super) fn permits(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        if self.0.is_empty() {
            return !is_local(ip);
        }
        self.0.iter().any(|network| network.contains(&ip))
    }
}

/// Loopback, link-local (cloud metadata is there), unspecified, multicast: nothing that a VM should be.
fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
        }
        IpAddr::V6(v6) => {
            // fd00:ec2::254 is the metadata address of one cloud.
            v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.segments()[..2] == [0xfd00, 0xec2]
        }
    }
}
