//! Where routes of the feed and the admin API may lead: a control plane that was taken over must not be able to make the gateway
//! reach what is local to it.
//!
//! Only addresses are judged: names are for static routes alone, and so are Unix sockets (`entry`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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

/// Loopback, link-local, metadata services, unspecified, multicast: nothing that a VM should be.
fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4_is_local(v4),
        IpAddr::V6(v6) => v6_is_local(v6) || embedded(v6).is_some_and(v4_is_local),
    }
}

fn v4_is_local(ip: Ipv4Addr) -> bool {
    /// Metadata and host services of clouds outside the link-local network.
    const METADATA: [Ipv4Addr; 2] = [
        Ipv4Addr::new(100, 100, 100, 200),
        Ipv4Addr::new(168, 63, 129, 16),
    ];
    match ip.octets() {
        // "This network" (RFC 791 §3.2: 0.0.0.1 reaches the host itself on Linux), and IETF assignments, with a metadata service.
        [0, ..] | [192, 0, 0, _] => true,
        _ => {
            ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast()
                || METADATA.contains(&ip)
        }
    }
}

fn v6_is_local(ip: Ipv6Addr) -> bool {
    ip.is_loopback()
        || ip.is_unicast_link_local()
        || ip.is_unspecified()
        || ip.is_multicast()
        || match ip.segments() {
            // Site-local, which RFC 3879 took back: links of this host again.
            [site, ..] if site & 0xffc0 == 0xfec0 => true,
            // Metadata services: of AWS (fd00:ec2::254) and Google (fd20:ce::254).
            [0xfd00, 0xec2, ..] | [0xfd20, 0xce, ..] => true,
            // Teredo (RFC 4380) and NAT64 of a local prefix (RFC 8215): they lead to IPv4 addresses that cannot be judged.
            [0x2001, 0, ..] | [0x64, 0xff9b, 1, ..] => true,
            _ => false,
        }
}

/// The IPv4 address that a translator on the way would send this to: compatible (RFC 4291 §2.5.5.1), NAT64 (RFC 6052), 6to4
/// (RFC 3056), ISATAP (RFC 5214).
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(v4(high, low))
        }
        [0x2002, high, low, ..] => Some(v4(high, low)),
        [.., 0 | 0x200, 0x5efe, high, low] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(allow: &[&str], ip: &str) -> bool {
        let networks = allow.iter().map(|network| network.parse().unwrap());
        Allowed(networks.collect()).permits(ip.parse().unwrap())
    }

    #[test]
    fn what_is_local_to_the_gateway_is_refused_however_it_is_written() {
        for local in [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "::169.254.169.254",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::7f00:1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:db8::5efe:127.0.0.1",
            "2001:db8::200:5efe:169.254.169.254",
            "fe80::1",
            "fec0::1",
            "feff::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
        ] {
            assert!(!permits(&[], local), "{local}");
        }
    }

    #[test]
    fn addresses_of_machines_are_allowed() {
        for machine in [
            "10.0.0.5",
            "172.16.0.1",
            "192.168.1.1",
            "192.0.2.1",
            "100.64.0.1",
            "8.8.8.8",
            "::ffff:10.0.0.5",
            "64:ff9b::10.0.0.5",
            "2001:db8::1",
            "fd12:3456::1",
            "2002:a00:5::1",
        ] {
            assert!(permits(&[], machine), "{machine}");
        }
    }

    #[test]
    fn a_list_is_the_whole_truth() {
        assert!(permits(&["127.0.0.0/8"], "127.0.0.1"));
        assert!(permits(&["127.0.0.0/8"], "::ffff:127.0.0.1"));
        assert!(!permits(&["127.0.0.0/8"], "10.0.0.5"));
        assert!(!permits(&["10.0.0.0/8"], "64:ff9b::10.0.0.5"));
        assert!(!permits(&["::/0"], "127.0.0.1"));
    }
}
