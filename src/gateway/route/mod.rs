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
mod hosts;
mod names;
mod reach;
mod reading;
mod target;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use dashmap::{DashMap, Entry as Slot};
use ipnet::IpNet;

use crate::api::{GitspaceId, access::Port, route::Route};

pub(crate) use entry::{Endpoint, Place};
pub(crate) use names::Names;
pub(crate) use reach::Seat;
pub(crate) use target::{Address, Target};
pub use {entry::Entry, error::RouteError};

use {allowed::Allowed, entry::Builder, hosts::Hosts};

use super::activity::Acted;

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
    /// The API of configurable-http-proxy: its routes are paths of one host.
    Chp,
    /// A control plane.
    Feed,
}

/// All routes.
#[derive(Debug)]
pub struct Table {
    gitspaces: DashMap<GitspaceId, Arc<Entry>>,
    /// How often one came or changed.
    changes: AtomicU64,
    hosts: Hosts,
    allowed: Allowed,
}

impl Table {
    /// An empty table; routes of the feed and the API may lead to the networks in `allow` only (empty: anything that is not local to the gateway).
    pub fn new(allow: Vec<IpNet>) -> Self {
        Self {
            gitspaces: DashMap::new(),
            changes: AtomicU64::new(0),
            hosts: Hosts::default(),
            allowed: Allowed(allow),
        }
    }

    /// What answers for a host, and on hosts that are claimed by path for a path as it was sent.
    pub fn find(
        &self,
        destination: &Destination,
        host: &str,
        path: &str,
    ) -> Option<(Arc<Entry>, Port)> {
        match destination {
            Destination::Gitspace(gitspace, port) => self
                .gitspaces
                .get(gitspace)
                // A path of a host and no more: at a host of its own all of its upstream could be reached.
                .filter(|entry| entry.source != Source::Chp)
                .map(|entry| (Arc::clone(&entry), *port)),
            Destination::Host => {
                let gitspace = self.hosts.find(host, path)?;
                self.gitspaces
                    .get(&gitspace)
                    .map(|entry| (Arc::clone(&entry), Port::Ide))
            }
        }
    }

    /// A gitspace's route.
    pub(crate) fn get(&self, gitspace: &GitspaceId) -> Option<Arc<Entry>> {
        self.gitspaces.get(gitspace).map(|entry| Arc::clone(&entry))
    }

    /// How often a route came or changed since the start.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Whether a route claims the host, or a path of it.
    pub(crate) fn claims(&self, host: &str) -> bool {
        self.hosts.has(host)
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
        self.claim(&entry)?;
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
        self.changes.fetch_add(1, Ordering::AcqRel);
        Ok(true)
    }

    /// Forgets a route of `source`. Its streams end. Whether there was one.
    pub(crate) fn remove(&self, source: Source, gitspace: &GitspaceId) -> Result<bool, RouteError> {
        let removed = self
            .gitspaces
            .remove_if(gitspace, |_, entry| entry.source == source);
        if let Some((_, entry)) = removed {
            if let Some(place) = &entry.place {
                self.hosts.release(place, gitspace);
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
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn replace(&self, source: Source, routes: &[Route]) -> Result<(), RouteError> {
        self.replace_all(&[(source, routes)])
    }

    /// Makes all that some sources have what is given here. Everything is checked before anything changes.
    pub(crate) fn replace_all(&self, sets: &[(Source, &[Route])]) -> Result<(), RouteError> {
        self.check(sets)?;
        for (source, routes) in sets {
            self.retain(*source, routes);
            self.give_way(*source, routes);
        }
        for (source, routes) in sets {
            for route in *routes {
                self.apply(*source, route)?;
            }
        }
        Ok(())
    }

    /// Whether these may be all that their sources have.
    fn check(&self, sets: &[(Source, &[Route])]) -> Result<(), RouteError> {
        let stays = |owner: &Source| sets.iter().all(|(source, _)| source != owner);
        let (mut places, mut seen) = (HashMap::new(), HashMap::new());
        let all = sets
            .iter()
            .flat_map(|&(source, routes)| routes.iter().map(move |route| (source, route)));
        for (source, route) in all {
            let entry = self.entry(source, route, None)?;
            let owner = self.other_source(source, &route.gitspace).filter(stays);
            let twin = seen.insert(&route.gitspace, source);
            if let Some(owner) = owner.or(twin.filter(|twin| *twin != source)) {
                return Err(RouteError::OtherSource {
                    gitspace: route.gitspace.clone(),
                    owner,
                });
            }
            let Some(place) = entry.place else {
                continue;
            };
            let owner = self.hosts.owner(&place);
            let owner = owner.filter(|owner| {
                let other = self.other_source(source, owner);
                other.is_some_and(|other| stays(&other))
            });
            let twin = places.insert(place.to_string(), &route.gitspace);
            let twin = twin.filter(|twin| **twin != route.gitspace).cloned();
            if let Some(owner) = owner.or(twin) {
                return Err(RouteError::taken(&place, owner));
            }
        }
        Ok(())
    }

    /// Whose a gitspace's route is, if not this source's.
    fn other_source(&self, source: Source, gitspace: &GitspaceId) -> Option<Source> {
        let owner = self.gitspaces.get(gitspace).map(|entry| entry.source);
        owner.filter(|owner| *owner != source)
    }

    /// Lets go of the places that routes of `source` are about to leave: another one may be about to take them.
    fn give_way(&self, source: Source, routes: &[Route]) {
        for route in routes {
            let old = self.gitspaces.get(&route.gitspace);
            let old = old.filter(|entry| entry.source == source);
            let left = old.and_then(|entry| entry.place.clone());
            let stays = |place: &Place| Place::of(route).is_some_and(|next| next.is(place));
            if let Some(place) = left.filter(|place| !stays(place)) {
                self.hosts.release(&place, &route.gitspace);
            }
        }
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
                    wake: entry.wake,
                    place: entry.place.clone(),
                    endpoints: entry.endpoints.iter().map(Endpoint::copy).collect(),
                    visibilities: entry.visibilities.clone(),
                    activity: Arc::clone(&entry.activity),
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

    /// Gitspaces where a person did something at this second or later (seconds since 1970), and when that was last.
    pub(crate) fn acted_since(&self, second: u64) -> Vec<(GitspaceId, u64)> {
        let acted = self.gitspaces.iter().filter_map(|entry| {
            let at = entry.activity.acted().filter(|at| *at >= second)?;
            Some((entry.gitspace.clone(), at))
        });
        acted.collect()
    }

    /// What another process is told of who did what at this second or later.
    pub(crate) fn activity_since(&self, second: u64) -> Vec<Acted> {
        let entries = self.gitspaces.iter();
        entries
            .filter_map(|entry| entry.activity.since(second, &entry.gitspace))
            .collect()
    }

    /// Takes in what another process tells of it. What has no route here is passed over.
    pub(crate) fn take_activity(&self, all: &[Acted]) {
        for acted in all {
            if let Some(entry) = self.gitspaces.get(&acted.gitspace) {
                entry.activity.take(acted);
            }
        }
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

    fn claim(&self, entry: &Entry) -> Result<(), RouteError> {
        let Some(place) = &entry.place else {
            return Ok(());
        };
        let claimed = self.hosts.claim(place, &entry.gitspace);
        claimed.map_err(|owner| RouteError::taken(place, owner))
    }

    /// Ends what only the old entry had.
    fn retire(&self, old: &Entry, new: &Entry) {
        if let Some(place) = &old.place
            && new.place.as_ref().is_none_or(|kept| !kept.is(place))
        {
            self.hosts.release(place, &old.gitspace);
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
        table.find(&destination, "", "/").unwrap().0
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
        assert!(
            table
                .find(&Destination::Host, "app.example.test", "/")
                .is_some()
        );
        let mut second = first.clone();
        second.gitspace = "other".parse().unwrap();
        assert!(matches!(
            table.apply(Source::Config, &second),
            Err(RouteError::HostTaken { .. })
        ));
        first.host = None;
        table.apply(Source::Config, &first).unwrap();
        assert!(
            table
                .find(&Destination::Host, "app.example.test", "/")
                .is_none()
        );
    }

    #[test]
    fn routes_of_one_source_may_change_places_and_a_taken_one_changes_nothing() {
        let at = |gitspace: &str, path: &str| {
            let mut at = route(0, 8080);
            at.gitspace = gitspace.parse().unwrap();
            (at.host, at.path) = (Some("dev.test".into()), Some(path.parse().unwrap()));
            at
        };
        let table = Table::new(vec![]);
        let owner = |path| {
            let found = table.find(&Destination::Host, "dev.test", path);
            found.map(|(entry, _)| entry.gitspace.to_string())
        };
        let replace = |source, routes: &[Route]| table.replace(source, routes);
        replace(Source::Config, &[at("a", "/a"), at("b", "/b")]).unwrap();
        replace(Source::Config, &[at("a", "/b"), at("b", "/a")]).unwrap();
        assert_eq!(
            (owner("/a").as_deref(), owner("/b").as_deref()),
            (Some("b"), Some("a"))
        );
        for taken in [
            replace(Source::Config, &[at("a", "/c"), at("b", "/c")]),
            replace(Source::File, &[at("c", "/c"), at("d", "/a")]),
        ] {
            assert!(
                matches!(taken, Err(RouteError::HostTaken { .. })),
                "{taken:?}"
            );
        }
        assert_eq!(
            (owner("/a").as_deref(), owner("/b").as_deref()),
            (Some("b"), Some("a"))
        );
        assert_eq!(owner("/c"), None);
        replace(Source::Config, &[at("b", "/b")]).unwrap();
        assert_eq!((owner("/a"), owner("/b").as_deref()), (None, Some("b")));
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
