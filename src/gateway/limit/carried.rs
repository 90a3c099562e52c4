//! What was used, told from one process to another: who takes over goes on where the other one is.
//!
//! Rates come along as the time until all of them is back; what runs at once in another process counts with what runs here.
//!
//! Not here: when it is asked for (`app::handover`), connections in total, of which every process has its own number.

use std::{hash::Hash, sync::Arc, sync::atomic::Ordering};

use governor::clock::Clock;
use serde::{Deserialize, Serialize};

use super::{
    Limits,
    buckets::{Bucket, Buckets},
    doors::Network,
};
use crate::api::GitspaceId;

/// What keys have used, of each kind.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Carried {
    principals: Vec<(Arc<str>, Left)>,
    anonymous: Vec<(Network, Left)>,
    gitspaces: Vec<(GitspaceId, Left)>,
    shares: Vec<(Arc<str>, Left)>,
    networks: Vec<(Network, Left)>,
    failures: Vec<(Network, Left)>,
}

/// What one key has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Left {
    /// Nanoseconds until all requests have come back.
    requests: u64,
    /// The same of new streams.
    streams: u64,
    /// What runs.
    at_once: usize,
}

impl Left {
    fn of(bucket: &Bucket, now: u64) -> Option<Self> {
        let left = Self {
            requests: bucket.requests.left(now),
            streams: bucket.new_streams.left(now),
            at_once: bucket.at_once.load(Ordering::Relaxed),
        };
        let nothing = left.requests == 0 && left.streams == 0 && left.at_once == 0;
        (!nothing).then_some(left)
    }
}

impl<C: Clock> Limits<C> {
    /// What is used here.
    pub(crate) fn used(&self) -> Carried {
        let now = self.now();
        Carried {
            principals: used(&self.principals, now),
            anonymous: used(&self.anonymous, now),
            gitspaces: used(&self.gitspaces, now),
            shares: used(&self.shares, now),
            networks: used(&self.doors.networks, now),
            failures: used(&self.doors.failures, now),
        }
    }

    /// Counts what all other processes use now with what is used here.
    pub(crate) fn count_elsewhere(&self, others: Vec<Carried>) {
        let now = self.now();
        let mut all = Carried::default();
        for other in others {
            all.principals.extend(other.principals);
            all.anonymous.extend(other.anonymous);
            all.gitspaces.extend(other.gitspaces);
            all.shares.extend(other.shares);
            all.networks.extend(other.networks);
            all.failures.extend(other.failures);
        }
        count(&self.principals, all.principals, now);
        count(&self.anonymous, all.anonymous, now);
        count(&self.gitspaces, all.gitspaces, now);
        count(&self.shares, all.shares, now);
        count(&self.doors.networks, all.networks, now);
        count(&self.doors.failures, all.failures, now);
    }
}

fn used<K: Eq + Hash + Clone>(buckets: &Buckets<K>, now: u64) -> Vec<(K, Left)> {
    let each = buckets.map.iter();
    each.filter_map(|entry| Some((entry.key().clone(), Left::of(entry.value(), now)?)))
        .collect()
}

fn count<K: Eq + Hash + Clone>(buckets: &Buckets<K>, all: Vec<(K, Left)>, now: u64) {
    for entry in &buckets.map {
        entry.value().elsewhere.store(0, Ordering::Relaxed);
    }
    for (key, left) in all {
        let bucket = buckets.bucket(&key, now, || key.clone());
        bucket.requests.raise(now.saturating_add(left.requests));
        bucket.new_streams.raise(now.saturating_add(left.streams));
        bucket.elsewhere.fetch_add(left.at_once, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;
    use crate::gateway::limit::Asker;

    fn limits() -> Limits<FakeRelativeClock> {
        let text = "requests_per_principal = 1\nburst_per_principal = 2\nstreams_per_gitspace = 3\nfailed_logins_per_network = 1";
        Limits::with_clock(&toml::from_str(text).unwrap(), FakeRelativeClock::default())
    }

    #[test]
    fn who_takes_over_goes_on_where_the_other_one_is() {
        let (old, new) = (limits(), limits());
        let gitspace: GitspaceId = "api-k3x9q2".parse().unwrap();
        let network = Network::from(std::net::IpAddr::from([192, 0, 2, 1]));
        let ask = |limits: &Limits<FakeRelativeClock>, name: &str| {
            limits.admit(Asker::Principal(&name.into()), &gitspace, None, false)
        };
        let held = [ask(&old, "ada").unwrap(), ask(&old, "ada").unwrap()];
        old.failed_login(network);
        let text = serde_json::to_string(&old.used()).unwrap();
        new.count_elsewhere(vec![serde_json::from_str(&text).unwrap()]);
        assert!(ask(&new, "ada").is_err(), "the rate of the principal");
        assert!(new.may_log_in(network).is_err());
        let third = ask(&new, "bob").unwrap();
        assert!(ask(&new, "cy").is_err(), "three at once of the gitspace");
        drop(held);
        new.count_elsewhere(vec![old.used()]);
        ask(&new, "cy").unwrap();
        drop(third);
        new.count_elsewhere(Vec::new());
        assert!(ask(&new, "ada").is_err(), "a rate is not given back");
    }
}
