//! Networks of a listener's configuration: who must announce itself, who is believed.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// A set of networks; an IPv4 address is the same however it is written.
#[derive(Debug, Default)]
pub(crate) struct Networks(Box<[IpNet]>);

/// The bits before the IPv4 address in a mapped one (RFC 4291 §2.5.5.2).
const MAPPED: u8 = 96;

impl Networks {
    /// As configured; networks of mapped addresses become IPv4 networks.
    pub(crate) fn new(networks: &[IpNet]) -> Self {
        Self(networks.iter().copied().map(canonical).collect())
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them has this address.
    pub(crate) fn contain(&self, ip: IpAddr) -> bool {
        !self.is_empty() && {
            let ip = ip.to_canonical();
            self.0.iter().any(|network| network.contains(&ip))
        }
    }
}

fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else {
        return network;
    };
    let v4 = v6
        .addr()
        .to_ipv4_mapped()
        .zip(v6.prefix_len().checked_sub(MAPPED));
    v4.and_then(|(address, length)| Ipv4Net::new(address, length).ok())
        .map_or(network, IpNet::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_and_networks_are_those_of_ipv4() {
        let networks = |text: &[&str]| {
            let all: Vec<IpNet> = text.iter().map(|text| text.parse().unwrap()).collect();
            Networks::new(&all)
        };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for text in ["10.0.0.0/8", "::ffff:10.0.0.0/104"] {
            let set = networks(&[text]);
            for inside in ["10.1.2.3", "::ffff:10.1.2.3"] {
                assert!(set.contain(ip(inside)), "{text} {inside}");
            }
            for outside in ["11.0.0.1", "::ffff:11.0.0.1", "::1", "::10.1.2.3"] {
                assert!(!set.contain(ip(outside)), "{text} {outside}");
            }
        }
        let set = networks(&["2001:db8::/32", "::1/128"]);
        assert!(set.contain(ip("2001:db8:1::1")) && set.contain(ip("::1")));
        assert!(!set.contain(ip("2001:db9::1")) && !set.contain(ip("127.0.0.1")));
        assert!(!Networks::default().contain(ip("127.0.0.1")));
    }
}
