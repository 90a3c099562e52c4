//! Limits before authentication: connections and failed logins, of all and of one network.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{
    buckets::{Buckets, Held},
    quota::Quota,
};
use crate::{
    config::{self, Allowed, Scope, twice},
    gateway::rejection::{Policy, Rejection},
};

/// Beside the places of connections there are some, one for so many, for those who are only told that all are taken.
const RESERVE_SHARE: usize = 64;
const RESERVE_MIN: usize = 4;
const RESERVE_MAX: usize = 256;

/// An IPv4 address, or the /64 of an IPv6 address: what one customer of a network usually has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub(crate) struct Network(u64, bool);

impl From<IpAddr> for Network {
    fn from(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(v4) => Self(u64::from(u32::from(v4)), false),
            // The upper half is the network; the shift leaves 64 bits.
            IpAddr::V6(v6) => Self((u128::from(v6) >> 64) as u64, true),
        }
    }
}

/// One of a bounded number at once.
#[derive(Debug)]
struct Count(Arc<AtomicUsize>);

impl Count {
    fn take(counter: &Arc<AtomicUsize>, max: &AtomicUsize) -> Option<Self> {
        let taken = Self(Arc::clone(counter));
        // `taken` gives back on drop also when there were too many.
        let before = counter.fetch_add(1, Ordering::Relaxed);
        (before < max.load(Ordering::Relaxed)).then_some(taken)
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Connections and failed logins.
pub(super) struct Doors {
    connections: Arc<AtomicUsize>,
    connections_max: AtomicUsize,
    reserve: Arc<AtomicUsize>,
    reserve_max: AtomicUsize,
    pub(super) networks: Buckets<Network>,
    pub(super) failures: Buckets<Network>,
}

impl Doors {
    /// Closed until they are set.
    pub(super) fn new() -> Self {
        Self {
            connections: Arc::default(),
            connections_max: AtomicUsize::new(0),
            reserve: Arc::default(),
            reserve_max: AtomicUsize::new(0),
            networks: Buckets::new(Scope::Anonymous, Duration::from_secs(1)),
            failures: Buckets::new(Scope::Anonymous, Duration::from_secs(60)),
        }
    }

    pub(super) fn set(&self, limits: &config::Limits) {
        let reserve = (limits.connections / RESERVE_SHARE).clamp(RESERVE_MIN, RESERVE_MAX);
        self.connections_max
            .store(limits.connections, Ordering::Relaxed);
        self.reserve_max.store(reserve, Ordering::Relaxed);
        let (connections, failures) = (
            limits.new_connections_per_network,
            limits.failed_logins_per_network,
        );
        let allowed = |requests, burst, streams| Allowed {
            requests,
            burst,
            new_streams: requests,
            streams,
            bytes: None,
        };
        let at_once = limits.connections_per_network;
        let networks = allowed(connections, twice(connections), at_once);
        self.networks.set(networks, limits.keys);
        let failures = allowed(failures, failures, usize::MAX);
        self.failures.set(failures, limits.keys);
    }

    /// A place in total.
    pub(super) fn place(&self) -> Option<Place> {
        if let Some(count) = Count::take(&self.connections, &self.connections_max) {
            return Some(Place { count, shed: false });
        }
        let count = Count::take(&self.reserve, &self.reserve_max)?;
        Some(Place { count, shed: true })
    }

    /// A place among those of its network, for who has one in total.
    pub(super) fn settle(&self, place: Place, network: Network, now: u64) -> Admission {
        let bucket = self.networks.bucket(&network, now, || network);
        let Ok(counted) = bucket.enter(now, false) else {
            return Admission::Refused(Full::Network);
        };
        let permit = ConnectionPermit {
            _total: place.count,
            _network: counted,
        };
        match place.shed {
            false => Admission::Open(permit),
            true => Admission::Shed(permit),
        }
    }

    /// Whether this network may still try tokens.
    pub(super) fn may_log_in(&self, network: Network, now: u64) -> Result<(), Rejection> {
        let Some(bucket) = self.failures.known(&network) else {
            return Ok(());
        };
        let quota: &Quota = &bucket.allowance.requests;
        let peeked = bucket.requests.peek(quota, now);
        peeked.map_err(|wait| quota.refusal(Policy::FailedLogins, wait))
    }

    /// Counts a refused token.
    pub(super) fn failed_login(&self, network: Network, now: u64) {
        let bucket = self.failures.bucket(&network, now, || network);
        // Who is over the rate already is not held off for longer.
        let _ = bucket.requests.take(&bucket.allowance.requests, now);
    }

    pub(super) fn sweep(&self, now: u64) {
        self.networks.sweep(now);
        self.failures.sweep(now);
    }
}

/// A connection whose network is not known yet is counted for as long as this lives.
#[derive(Debug)]
pub(crate) struct Place {
    count: Count,
    /// Whether it is one of the few for those that are told 503.
    shed: bool,
}

/// What becomes of a new connection.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It is served.
    Open(ConnectionPermit),
    /// All places are taken: it is told so, in one of a few places for that.
    Shed(ConnectionPermit),
    /// It is closed at once.
    Refused(Full),
}

/// Which limit refused a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// That of its network: number or rate.
    Network,
    /// That of all connections, and of the places to say so.
    Total,
}

/// A connection is counted for as long as this lives.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    _total: Count,
    _network: Held,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn doors(text: &str) -> Doors {
        let doors = Doors::new();
        doors.set(&toml::from_str(text).unwrap());
        doors
    }

    fn connect(doors: &Doors, ip: &str) -> Admission {
        match doors.place() {
            Some(place) => doors.settle(place, network(ip), 0),
            None => Admission::Refused(Full::Total),
        }
    }

    fn network(text: &str) -> Network {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn a_network_is_an_ipv4_address_or_an_ipv6_64() {
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_ne!(network("10.0.0.1"), network("10.0.0.2"));
        assert_eq!(network("10.0.0.1"), network("::ffff:10.0.0.1"));
    }

    #[test]
    fn connections_are_bounded_in_total_and_per_network() {
        let doors = doors("connections = 2\nconnections_per_network = 1");
        let Admission::Open(first) = connect(&doors, "10.0.0.1") else {
            panic!("there is a place");
        };
        assert!(matches!(
            connect(&doors, "10.0.0.1"),
            Admission::Refused(Full::Network)
        ));
        let _second = connect(&doors, "10.0.0.2");
        let told: Vec<_> = (3..3 + RESERVE_MIN)
            .map(|n| connect(&doors, &format!("10.0.0.{n}")))
            .collect();
        assert!(told.iter().all(|shed| matches!(shed, Admission::Shed(_))));
        assert!(matches!(
            connect(&doors, "10.0.0.9"),
            Admission::Refused(Full::Total)
        ));
        drop(first);
        assert!(matches!(connect(&doors, "10.0.0.9"), Admission::Open(_)));
    }

    #[test]
    fn refused_tokens_close_the_door_for_a_while() {
        let doors = doors("failed_logins_per_network = 3");
        let here = network("10.0.0.1");
        for _ in 0..3 {
            doors.may_log_in(here, 0).unwrap();
            doors.failed_login(here, 0);
        }
        let Err(Rejection::RateLimited {
            policy,
            window,
            retry_after,
            ..
        }) = doors.may_log_in(here, 0)
        else {
            panic!("the door is open");
        };
        assert_eq!(policy, Policy::FailedLogins);
        assert_eq!(window, Duration::from_secs(60));
        assert_eq!(retry_after, Duration::from_secs(20));
        doors.may_log_in(network("10.0.0.2"), 0).unwrap();
        // Who goes on does not lock the others behind the address out for longer.
        for _ in 0..100 {
            doors.failed_login(here, 0);
        }
        doors.may_log_in(here, 20 * SECOND - 1).unwrap_err();
        doors.may_log_in(here, 20 * SECOND).unwrap();
    }
}
