//! The routing table: what answers for a gitspace.
//!
//! Fifth step of the path. A lookup clones an `Arc` out of the map: no guard lives across an await. A route has one source, and
//! an update with an older generation never overwrites a newer one. A target that stays the same keeps its connections over an
//! update; one that changes, or whose gitspace leaves `running`, is fenced: its pooled connections and streams end.
//!
//! Not here: reaching the target (`forward`), whether it should run (the control plane).

pub(crate) mod feed;
pub(crate) mod file;
mod target;

use std::{net::IpAddr, sync::Arc};

use dashmap::{DashMap, Entry as Slot};
use ipnet::IpNet;

use crate::api::{
    GitspaceId,
    access::{Port, Visibility},
    route::{HostHeader, PortRoute, Route, RouteState, Upstream},
};

pub(crate) use target::{Address, Target};

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

/// Why a route was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// Another source owns it.
    #[error("the route of {gitspace} comes from {owner:?}; change it there")]
    OtherSource {
        /// Whose route.
        gitspace: GitspaceId,
        /// Who owns it.
        owner: Source,
    },
    /// Its host belongs to another route.
    #[error("{host:?} is claimed by the route of {owner}")]
    HostTaken {
        /// Which host.
        host: Arc<str>,
        /// Whose it is.
        owner: GitspaceId,
    },
    /// It leads where routes of its source may not lead.
    #[error(
        "port {port} of {gitspace} leads to {address}, which `gateway.upstreams.allow` does not permit"
    )]
    Forbidden {
        /// Whose route.
        gitspace: GitspaceId,
        /// Which port.
        port: Port,
        /// Where it leads.
        address: String,
    },
    /// It cannot be used as it is.
    #[error("the route of {gitspace}: {problem}")]
    Invalid {
        /// Whose route.
        gitspace: GitspaceId,
        /// What was wrong.
        problem: String,
    },
}

/// A route as the data path uses it.
#[derive(Debug)]
pub struct Entry {
    /// The gitspace's identifier.
    pub(crate) gitspace: GitspaceId,
    /// Since when.
    pub(crate) generation: u64,
    /// From where.
    pub(crate) source: Source,
    /// Whether it can be reached.
    pub(crate) state: RouteState,
    /// Who owns it.
    pub(crate) owner: Option<Arc<str>>,
    /// Its organization.
    pub(crate) org: Option<Arc<str>>,
    /// Who else may use private ports.
    pub(crate) allow: Box<[Arc<str>]>,
    /// Its own host.
    pub(crate) host: Option<Arc<str>>,
    /// Its ports: few, so a list.
    pub(crate) endpoints: Box<[Endpoint]>,
}

/// One port of a gitspace.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Its public name.
    pub(crate) port: Port,
    /// Who may use it.
    pub(crate) visibility: Visibility,
    /// Which Host it gets.
    pub(crate) host_header: HostHeader,
    /// Origins allowed beside the gitspace's own.
    pub(crate) cors: Box<[Box<str>]>,
    /// Where it is.
    pub(crate) target: Arc<Target>,
}

impl Entry {
    /// The port, if the route lists it.
    pub(crate) fn endpoint(&self, port: Port) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.port == port)
    }

    fn fence(&self) {
        for endpoint in &self.endpoints {
            endpoint.target.fence();
        }
    }
}

/// All routes.
#[derive(Debug)]
pub struct Table {
    gitspaces: DashMap<GitspaceId, Arc<Entry>>,
    hosts: DashMap<Arc<str>, GitspaceId>,
    allow: Vec<IpNet>,
}

impl Table {
    /// An empty table; routes of the feed and the API may lead to the networks in `allow` only (empty: anything that is not local to the gateway).
    pub fn new(allow: Vec<IpNet>) -> Self {
        Self {
            gitspaces: DashMap::new(),
            hosts: DashMap::new(),
            allow,
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

    /// Builds an entry; targets that stay the same are taken over from `old`.
    fn entry(
        &self,
        source: Source,
        route: &Route,
        old: Option<&Entry>,
    ) -> Result<Entry, RouteError> {
        let ide = route.ide.as_ref().map(|port| (Port::Ide, port));
        let apps = route
            .ports
            .iter()
            .map(|(number, port)| (Port::App(*number), port));
        let endpoints = ide
            .into_iter()
            .chain(apps)
            .map(|(name, port)| self.endpoint(source, route, name, port, old))
            .collect::<Result<_, _>>()?;
        Ok(Entry {
            gitspace: route.gitspace.clone(),
            generation: route.generation,
            source,
            state: route.state,
            owner: route.owner.clone(),
            org: route.org.clone(),
            allow: route.allow.clone().into(),
            host: route.host.clone(),
            endpoints,
        })
    }

    fn endpoint(
        &self,
        source: Source,
        route: &Route,
        port: Port,
        of: &PortRoute,
        old: Option<&Entry>,
    ) -> Result<Endpoint, RouteError> {
        let address = self.address(source, route, port, of)?;
        let same = old
            .filter(|old| old.state == RouteState::Running && route.state == RouteState::Running)
            .and_then(|old| old.endpoint(port))
            .map(|endpoint| &endpoint.target)
            .filter(|target| target.is(route.instance.as_ref(), &address, of.protocol));
        let target = match same {
            Some(target) => Arc::clone(target),
            None => Arc::new(Target::new(route.instance.clone(), address, of.protocol)),
        };
        Ok(Endpoint {
            port,
            visibility: of.visibility,
            host_header: of.host_header,
            cors: of
                .cors
                .iter()
                .map(|origin| origin.as_str().into())
                .collect(),
            target,
        })
    }

    fn address(
        &self,
        source: Source,
        route: &Route,
        port: Port,
        of: &PortRoute,
    ) -> Result<Address, RouteError> {
        let fixed = matches!(source, Source::Config | Source::File);
        let invalid = |problem: String| RouteError::Invalid {
            gitspace: route.gitspace.clone(),
            problem,
        };
        match (&of.upstream, route.address) {
            (Some(Upstream::Unix(path)), _) if fixed => Ok(Address::Unix(Arc::clone(path))),
            (Some(Upstream::Host(host)), _) if fixed => {
                Ok(Address::Name(Arc::clone(host), of.port))
            }
            (Some(_), _) => Err(invalid(format!(
                "port {port} names an upstream of its own, which only static routes may"
            ))),
            (None, Some(ip)) if fixed || self.permits(ip) => {
                Ok(Address::Socket((ip, of.port).into()))
            }
            (None, Some(ip)) => Err(RouteError::Forbidden {
                gitspace: route.gitspace.clone(),
                port,
                address: ip.to_string(),
            }),
            // A gitspace that does not run may have no address yet.
            (None, None) if route.state != RouteState::Running => Ok(Address::Nowhere),
            (None, None) => Err(invalid("it is running and has no address".into())),
        }
    }

    fn permits(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        if self.allow.is_empty() {
            return !is_local(ip);
        }
        self.allow.iter().any(|network| network.contains(&ip))
    }
}

impl Endpoint {
    fn copy(&self) -> Self {
        Self {
            port: self.port,
            visibility: self.visibility,
            host_header: self.host_header,
            cors: self.cors.clone(),
            target: Arc::clone(&self.target),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

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
