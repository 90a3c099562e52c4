//! The routing table: what answers for a gitspace.
//!
//! Fifth step of the path. A lookup clones an `Arc` out of the map: no guard lives across an await. A route has one source, and
//! an update with an older generation never overwrites a newer one. A target that stays the same keeps its connections over an
//! update; one that changes, or whose gitspace leaves `running`, is fenced: its pooled connections and streams end.
//!
//! Not here: reaching the target (`forward`), whether it should run (the control plane).

mod allowed;
mod entry;
mod error;
pub(crate) mod feed;
pub(crate) mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod reach;
mod target;

use std::sync::Arc;

use dashmap::{DashMap, Entry as Slot};
use ipnet::IpNet;

use crate::api::{GitspaceId, access::Port, route::Route};

pub(crate) use entry::Endpoint;
pub(crate) use reach::Seat;
pub(crate) use target::{Address, Target};
pub use {entry::Entry, error::RouteError};

use {allowed::Allowed, entry::Builder};

pub use super::http::{Destination, destination};

/// Where a route came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// `[[route]]`
    Config,
    /// `gateway.routes_file`
    File,
    /// The admin API.
    Api,
    /// A control plane.
    Feed,
}

/// All routes.
#[derive(Debug)]
pub struct Table {
    gitspaces: DashMap<GitspaceId, Arc<Entry>>,
    hosts: DashMap<Arc<str>, GitspaceId>,
    allowed: Allowed,
}

impl Table {
    /// An empty table; routes of the feed and the API may lead to the networks in `allow` only (empty: anything that is not local to the gateway).
    pub fn new(allow: Vec<IpNet>) -> Self {
        Self {
            gitspaces: DashMap::new(),
            hosts: DashMap::new(),
            allowed: Allowed(allow),
        }
    }

    /// What answers for a host.
    pub fn find(&self, destination: &Destination, host: &str) -> Option<(Arc<Entry>, Port)> {
        match destination {
            Destination::Gitspace(gitspace, port) => self
                .gitspaces
                .get(gitspace)
                .map(|entry| (Arc::clone(&entry), *port)),
            Destination::Host => {
                let gitspace = self.hosts.get(host).map(|gitspace| gitspace.clone())?;
                self.gitspaces
                    .get(&gitspace)
                    .map(|entry| (Arc::clone(&entry), Port::Ide))
            }
        }
    }

    /// Takes a route. `Ok(false)`: what is there is as new or newer.
    pub fn apply(&self, source: Source, route: &Route) -> Result<bool, RouteError> {
        let current = self
            .gitspaces
            .get(&route.gitspace)
            .map(|entry| Arc::clone(&entry));
        if let Some(current) = &current {
            if current.source != source {
                return Err(RouteError::OtherSource {
                    gitspace: route.gitspace.clone(),
                    owner: current.source,
                });
            }
            if source == Source::Feed && route.generation < current.generation {
                return Ok(false);
            }
        }
        let entry = Arc::new(self.entry(source, route, current.as_deref())?);
        self.claim_host(&entry)?;
        match self.gitspaces.entry(route.gitspace.clone()) {
            Slot::Occupied(mut slot) => {
                // Another writer of the same source may have been faster; the newer generation stays.
                if slot.get().source != source
                    || (source == Source::Feed && slot.get().generation > entry.generation)
                {
                    return Ok(false);
                }
                slot.insert(Arc::clone(&entry));
            }
            Slot::Vacant(slot) => {
                slot.insert(Arc::clone(&entry));
            }
        }
        if let Some(old) = current {
            self.retire(&old, &entry);
        }
        Ok(true)
    }

    /// Forgets a route of `source`. Its streams end. Whether there was one.
    pub(crate) fn remove(&self, source: Source, gitspace: &GitspaceId) -> Result<bool, RouteError> {
        let removed = self
            .gitspaces
            .remove_if(gitspace, |_, entry| entry.source == source);
        if let Some((_, entry)) = removed {
            if let Some(host) = &entry.host {
                self.hosts.remove_if(host, |_, owner| owner == gitspace);
            }
            entry.fence();
            return Ok(true);
        }
        match self.gitspaces.get(gitspace) {
            Some(entry) => Err(RouteError::OtherSource {
                gitspace: gitspace.clone(),
                owner: entry.source,
            }),
            None => Ok(false),
        }
    }

    /// Makes `routes` all that `source` has. Everything is checked before anything changes.
    pub(crate) fn replace(&self, source: Source, routes: &[Route]) -> Result<(), RouteError> {
        for route in routes {
            self.entry(source, route, None)?;
            if let Some(owner) = self
                .gitspaces
                .get(&route.gitspace)
                .map(|entry| entry.source)
                .filter(|s| *s != source)
            {
                return Err(RouteError::OtherSource {
                    gitspace: route.gitspace.clone(),
                    owner,
                });
            }
        }
        self.retain(source, routes);
        for route in routes {
            self.apply(source, route)?;
        }
        Ok(())
    }

    /// Forgets the routes of `source` that are not among `routes`.
    pub(crate) fn retain(&self, source: Source, routes: &[Route]) {
        let keep: std::collections::HashSet<&GitspaceId> =
            routes.iter().map(|route| &route.gitspace).collect();
        for gitspace in self.of(source) {
            if !keep.contains(&gitspace) {
                // Of this source a moment ago; if another took it over since, it is not ours to remove.
                let _ = self.remove(source, &gitspace);
            }
        }
    }

    /// Forgets the generations of a source: its numbers start anew (another epoch).
    pub(crate) fn forget_generations(&self, source: Source) {
        for gitspace in self.of(source) {
            self.gitspaces.alter(&gitspace, |_, entry| {
                Arc::new(Entry {
                    generation: 0,
                    gitspace: entry.gitspace.clone(),
                    source: entry.source,
                    state: entry.state,
                    owner: entry.owner.clone(),
                    org: entry.org.clone(),
                    allow: entry.allow.clone(),
                    shares: entry.shares.clone(),
                    host: entry.host.clone(),
                    endpoints: entry.endpoints.iter().map(Endpoint::copy).collect(),
                })
            });
        }
    }

    /// Every route, for the admin API.
    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        self.gitspaces
            .iter()
            .map(|entry| Arc::clone(&entry))
            .collect()
    }

    /// How many routes there are.
    pub(crate) fn len(&self) -> usize {
        self.gitspaces.len()
    }

    fn of(&self, source: Source) -> Vec<GitspaceId> {
        self.gitspaces
            .iter()
            .filter(|entry| entry.source == source)
            .map(|entry| entry.gitspace.clone())
            .collect()
    }

    fn claim_host(&self, entry: &Entry) -> Result<(), RouteError> {
        let Some(host) = &entry.host else {
            return Ok(());
        };
        match self.hosts.entry(Arc::clone(host)) {
            Slot::Occupied(slot) if *slot.get() != entry.gitspace => Err(RouteError::HostTaken {
                host: Arc::clone(host),
                owner: slot.get().clone(),
            }),
            Slot::Occupied(_) => Ok(()),
            Slot::Vacant(slot) => {
                slot.insert(entry.gitspace.clone());
                Ok(())
            }
        }
    }

    /// Ends what only the old entry had.
    fn retire(&self, old: &Entry, new: &Entry) {
        if old.host != new.host
            && let Some(host) = &old.host
        {
            self.hosts
                .remove_if(host, |_, owner| *owner == old.gitspace);
        }
        for endpoint in &old.endpoints {
            if !new
                .endpoints
                .iter()
                .any(|kept| Arc::ptr_eq(&kept.target, &endpoint.target))
            {
                endpoint.target.fence();
            }
        }
    }

    fn entry(
        &self,
        source: Source,
        route: &Route,
        old: Option<&Entry>,
    ) -> Result<Entry, RouteError> {
        let allowed = &self.allowed;
        Builder {
            source,
            route,
            old,
            allowed,
        }
        .build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::route::RouteState;

    fn route(generation: u64, port: u16) -> Route {
        serde_json::from_value(serde_json::json!({
            "gitspace": "api-k3x9q2", "generation": generation, "instance": "api-k3x9q2.aaaaaa", "state": "running",
            "owner": "alice", "address": "10.0.0.7", "ide": {"port": port}, "ports": {"3000": {"port": 3000}},
        }))
        .unwrap()
    }

    fn find(table: &Table) -> Arc<Entry> {
        let destination = Destination::Gitspace("api-k3x9q2".parse().unwrap(), Port::Ide);
        table.find(&destination, "").unwrap().0
    }

    #[test]
    fn an_older_generation_never_overwrites_a_newer() {
        let table = Table::new(vec![]);
        assert!(table.apply(Source::Feed, &route(5, 8080)).unwrap());
        assert!(!table.apply(Source::Feed, &route(4, 9090)).unwrap());
        assert_eq!(find(&table).generation, 5);
    }

    #[test]
    fn a_target_that_stays_keeps_its_connections_and_one_that_changes_is_fenced() {
        let table = Table::new(vec![]);
        table.apply(Source::Feed, &route(1, 8080)).unwrap();
        let before = find(&table);
        table.apply(Source::Feed, &route(2, 9090)).unwrap();
        let after = find(&table);
        let target = |entry: &Entry, port| Arc::clone(&entry.endpoint(port).unwrap().target);
        assert!(target(&before, Port::Ide).fenced().is_cancelled());
        assert!(Arc::ptr_eq(
            &target(&before, Port::App(3000)),
            &target(&after, Port::App(3000))
        ));
        assert!(!target(&after, Port::App(3000)).fenced().is_cancelled());
    }

    #[test]
    fn leaving_running_fences_and_removal_too() {
        let table = Table::new(vec![]);
        table.apply(Source::Feed, &route(1, 8080)).unwrap();
        let running = find(&table);
        let mut stopped = route(2, 8080);
        stopped.state = RouteState::Stopped;
        table.apply(Source::Feed, &stopped).unwrap();
        assert!(
            running
                .endpoint(Port::Ide)
                .unwrap()
                .target
                .fenced()
                .is_cancelled()
        );
        table.apply(Source::Feed, &route(3, 8080)).unwrap();
        let again = find(&table);
        assert!(table.remove(Source::Feed, &again.gitspace).unwrap());
        assert!(
            again
                .endpoint(Port::Ide)
                .unwrap()
                .target
                .fenced()
                .is_cancelled()
        );
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_route_has_one_source() {
        let table = Table::new(vec![]);
        table.apply(Source::Config, &route(0, 8080)).unwrap();
        assert!(matches!(
            table.apply(Source::Feed, &route(9, 1)),
            Err(RouteError::OtherSource { .. })
        ));
        assert!(matches!(
            table.remove(Source::Api, &"api-k3x9q2".parse().unwrap()),
            Err(RouteError::OtherSource {
                owner: Source::Config,
                ..
            })
        ));
    }

    #[test]
    fn a_host_has_one_route() {
        let table = Table::new(vec![]);
        let mut first = route(0, 8080);
        first.host = Some("app.example.test".into());
        table.apply(Source::Config, &first).unwrap();
        assert!(table.find(&Destination::Host, "app.example.test").is_some());
        let mut second = first.clone();
        second.gitspace = "other".parse().unwrap();
        assert!(matches!(
            table.apply(Source::Config, &second),
            Err(RouteError::HostTaken { .. })
        ));
        first.host = None;
        table.apply(Source::Config, &first).unwrap();
        assert!(table.find(&Destination::Host, "app.example.test").is_none());
    }

    #[test]
    fn the_feed_leads_to_no_place_local_to_the_gateway() {
        let table = Table::new(vec![]);
        for bad in [
            "127.0.0.1",
            "::1",
            "169.254.169.254",
            "0.0.0.0",
            "::ffff:127.0.0.1",
            "fd00:ec2::254",
            "fe80::1",
        ] {
            let mut local = route(1, 8080);
            local.address = Some(bad.parse().unwrap());
            assert!(
                matches!(
                    table.apply(Source::Feed, &local),
                    Err(RouteError::Forbidden { .. })
                ),
                "{bad}"
            );
        }
        let table = Table::new(vec!["127.0.0.0/8".parse().unwrap()]);
        let mut local = route(1, 8080);
        local.address = Some("127.0.0.1".parse().unwrap());
        assert!(table.apply(Source::Feed, &local).unwrap());
        assert!(table.apply(Source::Feed, &route(2, 8080)).is_err());
    }

    #[test]
    fn replace_changes_nothing_when_one_route_is_bad() {
        let table = Table::new(vec![]);
        table.replace(Source::Feed, &[route(1, 8080)]).unwrap();
        let mut bad = route(2, 8080);
        bad.gitspace = "other".parse().unwrap();
        bad.address = Some("127.0.0.1".parse().unwrap());
        assert!(table.replace(Source::Feed, &[bad]).is_err());
        assert_eq!(find(&table).generation, 1);
        table.replace(Source::Feed, &[]).unwrap();
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_route_is_small() {
        assert!(
            size_of::<Entry>() + 2 * size_of::<Endpoint>() <= 400,
            "{}",
            size_of::<Entry>() + 2 * size_of::<Endpoint>()
        );
    }
}
