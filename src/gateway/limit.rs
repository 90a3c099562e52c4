//! Limit: how much one network, principal, gitspace or share may ask for.
//!
//! Per network before authentication (connections, failed logins), all connections and requests together, and after authorization
//! per principal (the anonymous of a network are one), gitspace and share: requests and new streams by their rate, what runs at
//! once, and bytes each way. The number of keys is bounded: beyond it, newcomers share one bucket, so a flood of new keys can
//! neither grow memory nor push out those who are known. All of it can be changed while requests and streams are under way.
//!
//! Bytes within a stream, and frames of a WebSocket, are no requests: nothing here sees them but the rate of bytes.
//!
//! Not here: limits on heads (`connection`), and counting the bytes of a body whose length is not known before (`forward`).

mod buckets;
mod bytes;
mod carried;
mod doors;
mod quota;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use governor::clock::{Clock, DefaultClock, Reference};

use super::rejection::Rejection;
use crate::{
    api::GitspaceId,
    config::{self, Scope},
};

use buckets::Buckets;
use bytes::Owners;
use doors::Doors;

pub(crate) use bytes::{Payer, Permit, Turn, Way};
pub use carried::Carried;
pub(crate) use doors::{Admission, ConnectionPermit, Full, Network, Place};

const SECOND: Duration = Duration::from_secs(1);

/// Who asks, as it is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asker<'a> {
    /// A principal by name.
    Principal(&'a Arc<str>),
    /// The anonymous of one network.
    Anonymous(Network),
}

/// All limits of a gateway.
pub(crate) struct Limits<C: Clock = DefaultClock> {
    clock: C,
    start: C::Instant,
    requests_max: AtomicUsize,
    body_max: AtomicU64,
    doors: Doors,
    principals: Buckets<Arc<str>>,
    anonymous: Buckets<Network>,
    gitspaces: Buckets<GitspaceId>,
    shares: Buckets<Arc<str>>,
}

impl Limits {
    /// As configured, by the clock of the machine.
    pub(crate) fn new(limits: &config::Limits) -> Self {
        Self::with_clock(limits, DefaultClock::default())
    }
}

impl<C: Clock> Limits<C> {
    /// As configured, by a given clock.
    fn with_clock(limits: &config::Limits, clock: C) -> Self {
        let new = Self {
            start: clock.now(),
            clock,
            requests_max: AtomicUsize::new(0),
            body_max: AtomicU64::new(0),
            doors: Doors::new(),
            principals: Buckets::new(Scope::Principal, SECOND),
            anonymous: Buckets::new(Scope::Anonymous, SECOND),
            gitspaces: Buckets::new(Scope::Gitspace, SECOND),
            shares: Buckets::new(Scope::Share, SECOND),
        };
        new.set(limits);
        new
    }

    /// Takes other limits, for what is under way too: rates of bytes change at once, and nothing that is there ends.
    pub(crate) fn set(&self, limits: &config::Limits) {
        self.requests_max.store(limits.requests, Ordering::Relaxed);
        let body_max = limits.body_bytes.bytes().map_or(u64::MAX, u64::from);
        self.body_max.store(body_max, Ordering::Relaxed);
        self.doors.set(limits);
        let keys = limits.keys;
        self.principals.set(limits.of(Scope::Principal), keys);
        self.anonymous.set(limits.of(Scope::Anonymous), keys);
        self.gitspaces.set(limits.of(Scope::Gitspace), keys);
        self.shares.set(limits.of(Scope::Share), keys);
    }

    /// Nanoseconds since the start.
    fn now(&self) -> u64 {
        self.clock.now().duration_since(self.start).as_u64()
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
        self.doors.place()
    }

    /// Gives a connection that has a place in total its place among those of its network.
    pub(crate) fn settle(&self, place: Place, network: Network) -> Admission {
        self.doors.settle(place, network, self.now())
    }

    /// Whether one request more than so many is one too many.
    pub(crate) fn has_room(&self, requests: i64) -> bool {
        let max = self.requests_max.load(Ordering::Relaxed);
        usize::try_from(requests).is_ok_and(|requests| requests <= max)
    }

    /// How long the body of a request may be; one that is known to be longer is refused.
    pub(crate) fn body(&self, least: u64) -> Result<u64, Rejection> {
        let max = self.body_max.load(Ordering::Relaxed);
        match least <= max {
            true => Ok(max),
            false => Err(Rejection::BodyTooLarge),
        }
    }

    /// Whether this network may still try tokens.
    pub(crate) fn may_log_in(&self, network: Network) -> Result<(), Rejection> {
        self.doors.may_log_in(network, self.now())
    }

    /// Counts a refused token.
    pub(crate) fn failed_login(&self, network: Network) {
        self.doors.failed_login(network, self.now());
    }

    /// After authorization: one more request of somebody to a gitspace, by a share if it is by one; or one more stream.
    pub(crate) fn admit(
        &self,
        asker: Asker<'_>,
        gitspace: &GitspaceId,
        share: Option<&str>,
        stream: bool,
    ) -> Result<Permit, Rejection> {
        let now = self.now();
        let asker = match asker {
            Asker::Principal(name) => self.principals.bucket(&**name, now, || Arc::clone(name)),
            Asker::Anonymous(network) => self.anonymous.bucket(&network, now, || network),
        };
        let asker = asker.enter(now, stream)?;
        let share = share.map(|share| self.shares.bucket(share, now, || share.into()));
        let share = share.map(|share| share.enter(now, stream)).transpose()?;
        let gitspace = self.gitspaces.bucket(gitspace, now, || gitspace.clone());
        let gitspace = gitspace.enter(now, stream)?;
        Ok(Owners {
            asker,
            gitspace,
            share,
        })
    }

    /// Forgets those who have not asked for a while. To be called now and then, off the request path.
    pub(crate) fn sweep(&self) {
        let now = self.now();
        self.doors.sweep(now);
        self.principals.sweep(now);
        self.anonymous.sweep(now);
        self.gitspaces.sweep(now);
        self.shares.sweep(now);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use governor::clock::FakeRelativeClock;

    use super::{buckets::FORGET_AFTER, *};
    use crate::gateway::rejection::Policy;

    struct Setting {
        limits: Limits<FakeRelativeClock>,
        clock: FakeRelativeClock,
        gitspace: GitspaceId,
    }

    fn limits(text: &str) -> Setting {
        let clock = FakeRelativeClock::default();
        Setting {
            limits: Limits::with_clock(&toml::from_str(text).unwrap(), clock.clone()),
            clock,
            gitspace: "api-k3x9q2".parse().unwrap(),
        }
    }

    impl Setting {
        fn ask(&self, name: &str, share: Option<&str>, stream: bool) -> Result<Permit, Rejection> {
            let asker = Asker::Principal(&name.into());
            self.limits.admit(asker, &self.gitspace, share, stream)
        }

        fn admit(&self, name: &str) -> Result<Permit, Rejection> {
            self.ask(name, None, false)
        }

        fn set(&self, text: &str) {
            self.limits.set(&toml::from_str(text).unwrap());
        }
    }

    fn network(text: &str) -> Network {
        text.parse::<IpAddr>().unwrap().into()
    }

    /// Which limit refused.
    #[track_caller]
    fn refused(outcome: Result<Permit, Rejection>) -> Policy {
        match outcome.err().expect("a refusal") {
            Rejection::RateLimited { policy, .. } | Rejection::TooManyStreams { policy, .. } => {
                policy
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_principal_has_its_rate_and_gets_it_back_with_time() {
        let all = limits("requests_per_principal = 2\nburst_per_principal = 2");
        for _ in 0..2 {
            all.admit("alice").unwrap();
        }
        assert_eq!(
            refused(all.admit("alice")),
            Policy::Requests(Scope::Principal)
        );
        all.admit("bob").unwrap();
        all.clock.advance(Duration::from_millis(500));
        all.admit("alice").unwrap();
    }

    #[test]
    fn the_anonymous_of_a_network_are_counted_together_and_apart_from_principals() {
        let all = limits("requests_per_anonymous = 1\nburst_per_anonymous = 1");
        let ask = |ip: &str| {
            let asker = Asker::Anonymous(network(ip));
            all.limits.admit(asker, &all.gitspace, None, false)
        };
        ask("2001:db8::1").unwrap();
        assert_eq!(
            refused(ask("2001:db8::2")),
            Policy::Requests(Scope::Anonymous)
        );
        ask("2001:db8:0:1::1").unwrap();
        for _ in 0..10 {
            all.admit("alice").unwrap();
        }
    }

    #[test]
    fn a_gitspace_and_a_share_have_theirs_whoever_asks() {
        let all = limits(
            "requests_per_gitspace = 3\nburst_per_gitspace = 3\nrequests_per_share = 1\nburst_per_share = 1",
        );
        all.ask("alice", Some("a share"), false).unwrap();
        let again = all.ask("bob", Some("a share"), false);
        assert_eq!(refused(again), Policy::Requests(Scope::Share));
        all.ask("bob", Some("another"), false).unwrap();
        all.admit("carol").unwrap();
        assert_eq!(
            refused(all.admit("dave")),
            Policy::Requests(Scope::Gitspace)
        );
        let elsewhere = "web-k3x9q2".parse().unwrap();
        let dave = Asker::Principal(&"dave".into());
        all.limits.admit(dave, &elsewhere, None, false).unwrap();
    }

    #[test]
    fn new_streams_have_a_rate_in_each_scope_that_requests_do_not_use() {
        for scope in [Scope::Principal, Scope::Gitspace, Scope::Share] {
            let all = limits(&format!("new_streams_per_{} = 1", scope.name()));
            let open = || all.ask("alice", Some("a share"), true);
            for _ in 0..50 {
                all.ask("alice", Some("a share"), false).unwrap();
            }
            let _two = [open().unwrap(), open().unwrap()];
            assert_eq!(refused(open()), Policy::NewStreams(scope));
            all.clock.advance(SECOND);
            open().unwrap();
        }
    }

    #[test]
    fn streams_at_once_are_counted_until_their_permit_goes() {
        for scope in [Scope::Principal, Scope::Gitspace, Scope::Share] {
            let all = limits(&format!("streams_per_{} = 1", scope.name()));
            let permit = all.ask("alice", Some("a share"), false).unwrap();
            let second = || all.ask("alice", Some("a share"), true);
            assert_eq!(refused(second()), Policy::Streams(scope));
            // Who was refused by one holds no place at another.
            assert_eq!(refused(second()), Policy::Streams(scope));
            drop(permit);
            second().unwrap();
        }
    }

    #[test]
    fn a_changed_limit_counts_at_once_and_what_is_under_way_stays_counted() {
        let all = limits("requests_per_principal = 1\nburst_per_principal = 1");
        let held = all.admit("alice").unwrap();
        all.admit("alice").err().unwrap();
        all.set("streams_per_principal = 1\nrequests_per_principal = 1000");
        all.clock.advance(Duration::from_millis(2));
        assert_eq!(
            refused(all.admit("alice")),
            Policy::Streams(Scope::Principal)
        );
        drop(held);
        all.admit("alice").unwrap();
        all.set("requests = 1\nconnections_per_network = 1");
        assert!(!all.limits.has_room(2));
        let _first = all.limits.connection(network("10.0.0.1"));
        assert!(matches!(
            all.limits.connection(network("10.0.0.1")),
            Admission::Refused(Full::Network)
        ));
    }

    /// Fifty users, 320 files each, in three seconds, by the defaults.
    #[test]
    fn fifty_cold_ide_loads_behind_one_address_pass_by_every_way() {
        const USERS: usize = 50;
        const FILES: usize = 320;
        let here = network("10.0.0.1");
        for way in ["own gitspaces", "one gitspace", "one share", "no token"] {
            let all = limits("");
            let names: Vec<Arc<str>> = (0..USERS).map(|n| format!("user{n}").into()).collect();
            for _ in 0..FILES {
                for (n, name) in names.iter().enumerate() {
                    let asker = match way {
                        "no token" => Asker::Anonymous(here),
                        _ => Asker::Principal(name),
                    };
                    let gitspace = match way {
                        "own gitspaces" => format!("api{n}-k3x9q2").parse().unwrap(),
                        _ => all.gitspace.clone(),
                    };
                    let share = (way == "one share").then_some("a share");
                    if let Err(refused) = all.limits.admit(asker, &gitspace, share, false) {
                        panic!("{way}: {refused:?}");
                    }
                }
                all.clock.advance(Duration::from_secs(3) / FILES as u32);
            }
        }
    }

    #[test]
    fn requests_are_bounded_in_total() {
        let all = limits("requests = 2");
        assert!(all.limits.has_room(2));
        assert!(!all.limits.has_room(3));
    }

    #[test]
    fn keys_are_bounded_and_forgotten() {
        let all = limits("keys = 10\nrequests_per_principal = 1\nburst_per_principal = 1");
        for n in 0..10 {
            all.admit(&format!("user{n}")).unwrap();
        }
        all.admit("one more").unwrap();
        assert!(all.admit("another").is_err(), "newcomers share one bucket");
        assert_eq!(all.limits.principals.map.len(), 10);
        all.clock.advance(FORGET_AFTER + Duration::from_secs(1));
        all.limits.sweep();
        assert_eq!(all.limits.principals.map.len(), 0);
        all.admit("another").unwrap();
    }
}
