//! A route as the data path uses it, and how one is built from what sources say.

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use super::{
    Destination, Source,
    allowed::Allowed,
    error::RouteError,
    names::{Names, Shared},
    target::{Address, Target},
};
use crate::api::{
    GitspaceId,
    access::{Port, Visibility},
    path::RoutePath,
    route::{Auth, HostHeader, PortRoute, Prefix, Protocol, Route, RouteState, Upstream},
    share::Share,
    upgrade::Upgrade,
    wake::Wakers,
};
use crate::gateway::activity::Activity;

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
    pub(crate) allow: Names,
    /// Who may use single ports for a time.
    pub(crate) shares: Shared,
    /// Who starts it by opening it.
    pub(crate) wake: Wakers,
    /// What it claims beside its gitspace's hosts.
    pub(crate) place: Option<Box<Place>>,
    /// Its ports, in their order.
    pub(crate) endpoints: Box<[Endpoint]>,
    /// The visibilities that its ports have, each once.
    pub(crate) visibilities: Box<[Visibility]>,
    /// What people did there. It is the gitspace's, and stays when its route changes.
    pub(crate) activity: Arc<Activity>,
}

/// A host that a route claims, or a path of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The host.
    pub(crate) host: Arc<str>,
    /// The path of it.
    pub(crate) path: Option<RoutePath>,
    /// What the app sees of the path.
    pub(crate) prefix: Prefix,
    /// Who tells who is asking.
    pub(crate) auth: Auth,
}

impl Place {
    /// The one that a route claims.
    pub(super) fn of(route: &Route) -> Option<Self> {
        Some(Self {
            host: Arc::clone(route.host.as_ref()?),
            path: route.path.clone(),
            prefix: route.prefix,
            auth: route.auth,
        })
    }

    /// Whether both are the same part of the same host.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.host == other.host && self.path == other.path
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        f.write_str(self.path.as_ref().map_or("", RoutePath::as_str))
    }
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
    /// Which Origin it gets where its own pages ask.
    pub(crate) origin: HostHeader,
    /// Origins allowed beside the gitspace's own.
    pub(crate) cors: Names,
    /// What it may switch to beside WebSockets.
    pub(crate) upgrades: Names,
    /// Where it is.
    pub(crate) target: Arc<Target>,
}

impl Entry {
    /// The place by which a request came, if it came by one.
    pub(crate) fn place(&self, destination: &Destination) -> Option<&Place> {
        let claimed = self.place.as_deref();
        claimed.filter(|_| matches!(destination, Destination::Host))
    }

    /// Whether the app of this request tells itself who is asking.
    pub(crate) fn leaves_to_app(&self, destination: &Destination) -> bool {
        let place = self.place(destination);
        place.is_some_and(|place| place.auth == Auth::App)
    }

    /// The port, if the route lists it.
    pub(crate) fn endpoint(&self, port: Port) -> Option<&Endpoint> {
        let found = self
            .endpoints
            .binary_search_by_key(&place(port), |endpoint| place(endpoint.port));
        found.ok().map(|at| &self.endpoints[at])
    }

    /// What is looked at where there is no gitspace, so that the look takes as long as at one that is private. Nothing leads to it.
    pub(crate) fn absent() -> &'static Self {
        static ABSENT: LazyLock<Entry> = LazyLock::new(|| {
            let target = Target::new(None, Address::Nowhere, Protocol::Http, None);
            let endpoint = Endpoint {
                port: Port::Ide,
                visibility: Visibility::Private,
                host_header: HostHeader::default(),
                origin: HostHeader::default(),
                cors: Names::of([]),
                upgrades: Names::of([]),
                target: Arc::new(target),
            };
            Entry {
                gitspace: GitspaceId::nobodys(),
                generation: 0,
                source: Source::Config,
                state: RouteState::Stopped,
                owner: Some("".into()),
                org: Some("".into()),
                allow: Names::of([]),
                shares: Shared::of(&[]),
                wake: Wakers::Off,
                place: None,
                endpoints: [endpoint].into(),
                visibilities: [Visibility::Private].into(),
                activity: Arc::default(),
            }
        });
        &ABSENT
    }

    /// Ends the connections and streams of every port.
    pub(super) fn fence(&self) {
        for endpoint in &self.endpoints {
            endpoint.target.fence();
        }
    }
}

impl Endpoint {
    /// What is looked at where there is no such port.
    pub(crate) fn absent() -> &'static Self {
        &Entry::absent().endpoints[0] // its only one
    }

    pub(super) fn copy(&self) -> Self {
        Self {
            port: self.port,
            visibility: self.visibility,
            host_header: self.host_header,
            origin: self.origin,
            cors: self.cors.clone(),
            upgrades: self.upgrades.clone(),
            target: Arc::clone(&self.target),
        }
    }
}

/// Builds an entry; targets that stay the same are taken over from the old one, with their connections.
pub(super) struct Builder<'a> {
    pub(super) source: Source,
    pub(super) route: &'a Route,
    pub(super) old: Option<&'a Entry>,
    pub(super) allowed: &'a Allowed,
}

impl Builder<'_> {
    /// The entry, or why the route cannot be used.
    pub(super) fn build(&self) -> Result<Entry, RouteError> {
        let route = self.route;
        // Where its IDE will be is known when it runs: until then its host is answered by its state, and not as a closed port.
        let later = PortRoute::private(0);
        let ide = route.ide.as_ref();
        let ide = ide.or((route.state != RouteState::Running).then_some(&later));
        let ide = ide.map(|port| (Port::Ide, port));
        let apps = route
            .ports
            .iter()
            .map(|(number, port)| (Port::App(*number), port));
        let mut endpoints: Box<[Endpoint]> = ide
            .into_iter()
            .chain(apps)
            .map(|(name, port)| self.endpoint(name, port))
            .collect::<Result<_, _>>()?;
        endpoints.sort_by_key(|endpoint| place(endpoint.port));
        Ok(Entry {
            gitspace: route.gitspace.clone(),
            generation: route.generation,
            source: self.source,
            state: route.state,
            owner: route.owner.clone(),
            org: route.org.clone(),
            allow: Names::of(route.allow.iter().map(|name| &**name)),
            visibilities: visibilities(&endpoints),
            activity: self
                .old
                .map_or_else(Arc::default, |old| Arc::clone(&old.activity)),
            shares: self.shares()?,
            wake: route.wake,
            place: self.place()?,
            endpoints,
        })
    }

    fn shares(&self) -> Result<Shared, RouteError> {
        let invalid = |share: &Share, error| RouteError::Invalid {
            gitspace: self.route.gitspace.clone(),
            problem: format!("share {:?}: {error}", share.id),
        };
        let mut shares = self.route.shares.iter();
        shares.try_for_each(|share| share.check().map_err(|error| invalid(share, error)))?;
        Ok(Shared::of(&self.route.shares))
    }

    fn place(&self) -> Result<Option<Box<Place>>, RouteError> {
        let route = self.route;
        let problem = match (&route.host, &route.path, route.auth) {
            (None, Some(_), _) => "it has a `path` without a `host`",
            (None, None, Auth::App) => "its `auth` is the app's, without a `host`",
            _ => return Ok(Place::of(route).map(Box::new)),
        };
        Err(RouteError::Invalid {
            gitspace: route.gitspace.clone(),
            problem: problem.into(),
        })
    }

    fn endpoint(&self, port: Port, of: &PortRoute) -> Result<Endpoint, RouteError> {
        let route = self.route;
        let address = self.address(port, of)?;
        self.tls(port, of)?;
        let same = self
            .old
            .filter(|old| old.state == RouteState::Running && route.state == RouteState::Running)
            .and_then(|old| old.endpoint(port))
            .map(|endpoint| &endpoint.target)
            .filter(|target| {
                target.is(
                    route.instance.as_ref(),
                    &address,
                    of.protocol,
                    of.tls.as_ref(),
                )
            });
        let target = match same {
            Some(target) => Arc::clone(target),
            None => Arc::new(Target::new(
                route.instance.clone(),
                address,
                of.protocol,
                of.tls.clone(),
            )),
        };
        Ok(Endpoint {
            port,
            visibility: match (port, route.auth) {
                (Port::Ide, Auth::App) => Visibility::Public,
                _ => of.visibility,
            },
            host_header: of.host_header,
            origin: of.origin.unwrap_or(of.host_header),
            cors: Names::of(of.cors.iter().map(String::as_str)),
            upgrades: Names::of(of.upgrades.iter().map(Upgrade::as_str)),
            target,
        })
    }

    /// What would never connect is refused here.
    fn tls(&self, port: Port, of: &PortRoute) -> Result<(), RouteError> {
        let https = of.protocol == Protocol::Https;
        let problem = match (&of.tls, &of.upstream) {
            (Some(_), _) if !https => "says how TLS is checked, and its protocol is not https",
            (_, Some(Upstream::Unix(_))) if https => "speaks https to a Unix socket",
            (Some(tls), _) if tls.ca.as_deref().is_some_and(|ca| !has_certificate(ca)) => {
                "has a `ca` without a PEM certificate"
            }
            _ => return Ok(()),
        };
        Err(RouteError::Invalid {
            gitspace: self.route.gitspace.clone(),
            problem: format!("port {port} {problem}"),
        })
    }

    fn address(&self, port: Port, of: &PortRoute) -> Result<Address, RouteError> {
        let route = self.route;
        let fixed = matches!(self.source, Source::Config | Source::File);
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
            (None, Some(ip)) if fixed || self.allowed.permits(ip) => {
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
}

/// A port's place among others.
fn place(port: Port) -> u32 {
    match port {
        Port::Ide => 0,
        Port::App(number) => number.into(),
        Port::Ssh => u32::MAX,
    }
}

fn visibilities(endpoints: &[Endpoint]) -> Box<[Visibility]> {
    let all = [
        Visibility::Private,
        Visibility::Organization,
        Visibility::Public,
    ];
    let there = |wanted: &Visibility| {
        let mut ports = endpoints.iter();
        ports.any(|endpoint| endpoint.visibility == *wanted)
    };
    all.into_iter().filter(there).collect()
}

/// Whether a text holds a PEM certificate that can be read, and none that cannot.
pub(super) fn has_certificate(pem: &str) -> bool {
    let mut count = 0;
    for block in x509_parser::pem::Pem::iter_from_buffer(pem.as_bytes()) {
        match block {
            Ok(block) if block.label == "CERTIFICATE" && block.parse_x509().is_ok() => count += 1,
            Ok(block) if block.label != "CERTIFICATE" => {}
            _ => return false,
        }
    }
    count > 0
}
