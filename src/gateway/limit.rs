//! Limit: how much one network, principal or gitspace may ask for.
//!
//! Per network before authentication (connections, failed logins), all connections and requests together, per principal and gitspace after authorization. Rates are
//! governor's GCRA; what runs at once is counted by permits. The number of keys is bounded: beyond it, newcomers share one bucket,
//! so a flood of new keys can neither grow memory nor push out those who are known.
//!
//! Not here: limits on heads and bodies (`connection`, `forward`).

mod buckets;

use std::{
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota,
    clock::{Clock, DefaultClock},
};

use super::rejection::Rejection;
use crate::{api::GitspaceId, config};

use buckets::{Buckets, Count};

/// Beside the places of connections there are some, one for so many, for those who are only told that all are taken.
const RESERVE_SHARE: usize = 64;
const RESERVE_MIN: usize = 4;
const RESERVE_MAX: usize = 256;

/// An IPv4 address, or the /64 of an IPv6 address: what one customer of a network usually has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

/// Who is counted together after authentication.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Principal {
    /// A principal by name.
    Name(Arc<str>),
    /// The anonymous of one network.
    Anonymous(Network),
}

/// All limits of a gateway.
pub(crate) struct Limits<C: Clock = DefaultClock> {
    connections: Arc<AtomicUsize>,
    connections_max: usize,
    reserve: Arc<AtomicUsize>,
    reserve_max: usize,
    requests_max: usize,
    networks: Buckets<Network, C>,
    failures: Buckets<Network, C>,
    principals: Buckets<Principal, C>,
    gitspaces: Buckets<GitspaceId, C>,
}

impl Limits {
    /// As configured, by the clock of the machine.
    pub(crate) fn new(limits: &config::Limits) -> Self {
        Self::with_clock(limits, &DefaultClock::default())
    }
}

impl<C: Clock + Clone> Limits<C> {
    /// As configured, by a given clock.
    pub(crate) fn with_clock(limits: &config::Limits, clock: &C) -> Self {
        let per_second =
            |rate: NonZeroU32| Quota::per_second(rate).allow_burst(rate.saturating_mul(two()));
        let principal = match limits.burst_per_principal {
            Some(burst) => Quota::per_second(limits.requests_per_principal).allow_burst(burst),
            None => per_second(limits.requests_per_principal),
        };
        let unlimited = Quota::per_second(NonZeroU32::MAX);
        Self {
            connections: Arc::default(),
            connections_max: limits.connections,
            reserve: Arc::default(),
            reserve_max: (limits.connections / RESERVE_SHARE).clamp(RESERVE_MIN, RESERVE_MAX),
            requests_max: limits.requests,
            networks: Buckets::new(
                per_second(limits.new_connections_per_network),
                limits.connections_per_network,
                limits.keys,
                clock,
            ),
            failures: Buckets::new(
                Quota::per_minute(limits.failed_logins_per_network),
                usize::MAX,
                limits.keys,
                clock,
            ),
            principals: Buckets::new(principal, limits.streams_per_principal, limits.keys, clock),
            gitspaces: Buckets::new(unlimited, limits.streams_per_gitspace, limits.keys, clock),
        }
    }

    /// Before anything is read from a connection. Nobody who is there already is let go for a newcomer.
    pub(crate) fn connection(&self, network: Network) -> Admission {
        match self.place() {
            Some(place) => self.settle(place, network),
            None => Admission::Refused(Full::Total),
        }
    }

    /// A place in total for a connection whose network is not known before something of it was read.
    pub(crate) fn place(&self) -> Option<Place> {
        if let Some(count) = Count::take(&self.connections, self.connections_max) {
            return Some(Place { count, shed: false });
        }
        let count = Count::take(&self.reserve, self.reserve_max)?;
        Some(Place { count, shed: true })
    }

    /// Gives a connection that has a place in total its place among those of its network.
    pub(crate) fn settle(&self, place: Place, network: Network) -> Admission {
        let bucket = self.networks.bucket(&network);
        if bucket.rate.check().is_err() {
            return Admission::Refused(Full::Network);
        }
        let Some(counted) = Count::take(&bucket.streams, self.networks.streams_max) else {
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

    /// Whether one request more than so many is one too many.
    pub(crate) fn has_room(&self, requests: i64) -> bool {
        usize::try_from(requests).is_ok_and(|requests| requests <= self.requests_max)
    }

    /// Whether this network may still try tokens.
    pub(crate) fn may_log_in(&self, network: Network) -> Result<(), Rejection> {
        match self.failures.peek(&network) {
            Some(bucket) if bucket.blocked_until.load(Ordering::Relaxed) > self.failures.now() => {
                let wait = bucket
                    .blocked_until
                    .load(Ordering::Relaxed)
                    .saturating_sub(self.failures.now());
                Err(self.failures.limited(Duration::from_nanos(wait)))
            }
            _ => Ok(()),
        }
    }

    /// Counts a refused token.
    pub(crate) fn failed_login(&self, network: Network) {
        let bucket = self.failures.bucket(&network);
        if let Err(not_until) = bucket.rate.check() {
            let now = self.failures.clock.now();
            let wait = not_until.wait_time_from(now).as_nanos() as u64;
            bucket
                .blocked_until
                .store(self.failures.now().saturating_add(wait), Ordering::Relaxed);
        }
    }

    /// After authorization: one more request or stream of a principal to a gitspace.
    pub(crate) fn admit(
        &self,
        principal: &Principal,
        gitspace: &GitspaceId,
    ) -> Result<Permit, Rejection> {
        let bucket = self.principals.bucket(principal);
        if let Err(not_until) = bucket.rate.check() {
            return Err(self
                .principals
                .limited(not_until.wait_time_from(self.principals.clock.now())));
        }
        let principal = Count::take(&bucket.streams, self.principals.streams_max)
            .ok_or(Rejection::TooManyStreams)?;
        let bucket = self.gitspaces.bucket(gitspace);
        let gitspace = Count::take(&bucket.streams, self.gitspaces.streams_max)
            .ok_or(Rejection::TooManyStreams)?;
        Ok(Permit {
            _principal: principal,
            _gitspace: gitspace,
        })
    }

    /// Forgets those who have not asked for a while. To be called now and then, off the request path.
    pub(crate) fn sweep(&self) {
        self.networks.sweep();
        self.failures.sweep();
        self.principals.sweep();
        self.gitspaces.sweep();
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
    _network: Count,
}

/// A request or stream is counted for as long as this lives.
#[derive(Debug)]
pub(crate) struct Permit {
    _principal: Count,
    _gitspace: Count,
}

const fn two() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(1)
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::{buckets::FORGET_AFTER, *};

    fn limits(text: &str) -> (Limits<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (
            Limits::with_clock(&toml::from_str(text).unwrap(), &clock),
            clock,
        )
    }

    fn network(text: &str) -> Network {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn name(text: &str) -> Principal {
        Principal::Name(text.into())
    }

    #[test]
    fn a_network_is_an_ipv4_address_or_an_ipv6_64() {
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_ne!(network("10.0.0.1"), network("10.0.0.2"));
        assert_eq!(network("10.0.0.1"), network("::ffff:10.0.0.1"));
    }

    #[test]
    fn a_principal_has_its_rate_and_gets_it_back_with_time() {
        let (limits, clock) = limits("requests_per_principal = 2\nburst_per_principal = 2");
        let gitspace = "api-k3x9q2".parse().unwrap();
        for _ in 0..2 {
            limits.admit(&name("alice"), &gitspace).unwrap();
        }
        let refused = limits.admit(&name("alice"), &gitspace).unwrap_err();
        assert!(
            matches!(refused, Rejection::RateLimited { limit: 2, .. }),
            "{refused:?}"
        );
        limits.admit(&name("bob"), &gitspace).unwrap();
        clock.advance(Duration::from_millis(500));
        limits.admit(&name("alice"), &gitspace).unwrap();
    }

    #[test]
    fn streams_at_once_are_counted_until_their_permit_goes() {
        let (limits, _) = limits("streams_per_principal = 1");
        let gitspace = "api-k3x9q2".parse().unwrap();
        let permit = limits.admit(&name("alice"), &gitspace).unwrap();
        assert!(matches!(
            limits.admit(&name("alice"), &gitspace),
            Err(Rejection::TooManyStreams)
        ));
        drop(permit);
        limits.admit(&name("alice"), &gitspace).unwrap();
    }

    #[test]
    fn connections_are_bounded_in_total_and_per_network() {
        let (limits, _) = limits("connections = 2\nconnections_per_network = 1");
        let connect = |ip: &str| limits.connection(network(ip));
        let Admission::Open(first) = connect("10.0.0.1") else {
            panic!("there is a place");
        };
        assert!(matches!(
            connect("10.0.0.1"),
            Admission::Refused(Full::Network)
        ));
        let _second = connect("10.0.0.2");
        let told: Vec<_> = (3..3 + RESERVE_MIN)
            .map(|n| connect(&format!("10.0.0.{n}")))
            .collect();
        assert!(told.iter().all(|shed| matches!(shed, Admission::Shed(_))));
        assert!(matches!(
            connect("10.0.0.9"),
            Admission::Refused(Full::Total)
        ));
        drop(first);
        assert!(matches!(connect("10.0.0.9"), Admission::Open(_)));
    }

    #[test]
    fn requests_are_bounded_in_total() {
        let (limits, _) = limits("requests = 2");
        assert!(limits.has_room(2));
        assert!(!limits.has_room(3));
    }

    #[test]
    fn refused_tokens_close_the_door_for_a_while() {
        let (limits, clock) = limits("failed_logins_per_network = 3");
        let here = network("10.0.0.1");
        for _ in 0..4 {
            assert!(limits.may_log_in(here).is_ok());
            limits.failed_login(here);
        }
        assert!(matches!(
            limits.may_log_in(here),
            Err(Rejection::RateLimited { .. })
        ));
        assert!(limits.may_log_in(network("10.0.0.2")).is_ok());
        clock.advance(Duration::from_secs(20));
        assert!(limits.may_log_in(here).is_ok());
    }

    #[test]
    fn keys_are_bounded_and_forgotten() {
        let (limits, clock) =
            limits("keys = 10\nrequests_per_principal = 1\nburst_per_principal = 1");
        let gitspace: GitspaceId = "api-k3x9q2".parse().unwrap();
        for n in 0..10 {
            limits.admit(&name(&format!("user{n}")), &gitspace).unwrap();
        }
        limits.admit(&name("one more"), &gitspace).unwrap();
        assert!(
            limits.admit(&name("another"), &gitspace).is_err(),
            "newcomers share one bucket"
        );
        assert_eq!(limits.principals.map.len(), 10);
        clock.advance(FORGET_AFTER + Duration::from_secs(1));
        limits.sweep();
        assert_eq!(limits.principals.map.len(), 0);
        limits.admit(&name("another"), &gitspace).unwrap();
    }
}
