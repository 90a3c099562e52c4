//! What the gateway knows of a gitspace: where it is, which ports it has, who may use them.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    access::{Port, Visibility},
    id::{GitspaceId, InstanceId},
    path::RoutePath,
    pin::Pin,
    share::Share,
    upgrade::Upgrade,
    wake::Wakers,
};

/// Whether a gitspace can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteState {
    /// Its instance is on the way up.
    Starting,
    /// It answers.
    #[default]
    Running,
    /// It is on the way down.
    Stopping,
    /// Nothing runs; its data is kept.
    Stopped,
    /// Its instance failed.
    Error,
}

/// How the gateway speaks to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.1 in the clear.
    #[default]
    Http,
    /// HTTP over TLS: HTTP/2 or HTTP/1.1, whichever the other end picks (ALPN, RFC 7301).
    Https,
    /// HTTP/2 in the clear, with prior knowledge (RFC 9113 §3.3).
    H2c,
}

/// Which Host and Origin an app sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostHeader {
    /// The host that the client asked for.
    #[default]
    Public,
    /// `localhost:<port>`, for development servers that refuse other hosts.
    Localhost,
    /// The address of the upstream.
    Upstream,
}

/// What an app that is reached by a path sees of that path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prefix {
    /// Nothing: its own paths begin at `/`, and its answers are put under the path.
    #[default]
    Strip,
    /// All of it: it knows the path itself, and its answers stay as they are.
    Keep,
}

/// Who tells who is asking, at the host that a route claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// The gateway, by the port's visibility.
    #[default]
    Gateway,
    /// The app alone: everybody reaches it, with whatever token they have.
    App,
}

/// One port of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRoute {
    /// The port on the instance's address; it may differ from the public one.
    pub port: u16,
    /// How to speak to it.
    #[serde(default)]
    pub protocol: Protocol,
    /// Who may use it.
    #[serde(default)]
    pub visibility: Visibility,
    /// Which Host it gets.
    #[serde(default)]
    pub host_header: HostHeader,
    /// Which Origin it gets where its own pages ask. None: the same as the Host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<HostHeader>,
    /// Origins that may send unsafe requests and open WebSockets beside the gitspace's own hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cors: Vec<String>,
    /// What it may switch to beside WebSockets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upgrades: Vec<Upgrade>,
    /// How the other end is known, where the protocol is `https`. None: by a certificate for its address from an authority that
    /// this machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Arc<UpstreamTls>>,
    /// Another place than the route's address: an address, or the path of a Unix socket. Static routes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Upstream>,
}

impl PortRoute {
    /// A private port in the clear, and nothing else said of it.
    pub fn private(port: u16) -> Self {
        Self {
            port,
            protocol: Protocol::default(),
            visibility: Visibility::default(),
            host_header: HostHeader::default(),
            origin: None,
            cors: Vec::new(),
            upgrades: Vec::new(),
            tls: None,
            upstream: None,
        }
    }
}

/// How the other end of a TLS connection is known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamTls {
    /// The authorities that count (PEM certificates) instead of those that this machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<Arc<str>>,
    /// The one key that counts. Without `ca` nothing else is checked: neither name nor authority nor dates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// The name that it is asked for and must have, instead of its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
}

/// Where a port is, when it is not on the route's address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Upstream {
    /// A host name or address, with the port of the [`PortRoute`].
    Host(Arc<str>),
    /// A Unix socket.
    Unix(Arc<str>),
}

/// A route, as the feed, the routes file and the admin API carry it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Whose route it is.
    pub gitspace: GitspaceId,
    /// Orders updates of one gitspace; an older one never overwrites a newer.
    #[serde(default)]
    pub generation: u64,
    /// The incarnation that it leads to. None: a static route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// Whether it can be reached.
    #[serde(default)]
    pub state: RouteState,
    /// The principal who owns it (with its issuer's prefix).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Arc<str>>,
    /// Its organization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<Arc<str>>,
    /// Another host under which it is reached. Static routes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Arc<str>>,
    /// The part of that host that is its own. None: the host, but for the paths of other routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<RoutePath>,
    /// What the app sees of the path.
    #[serde(default, skip_serializing_if = "is_default")]
    pub prefix: Prefix,
    /// Who tells who is asking there. With `app` its IDE port is public, under its gitspace's host too.
    #[serde(default, skip_serializing_if = "is_default")]
    pub auth: Auth,
    /// The instance's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The IDE's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ide: Option<PortRoute>,
    /// App ports by their public number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<u16, PortRoute>,
    /// Principals who may use its private ports beside the owner.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Arc<str>>,
    /// Who may use single ports for a time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
    /// Who starts it by opening it while it is stopped. Where routes come from a control plane.
    #[serde(default, skip_serializing_if = "is_default")]
    pub wake: Wakers,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Route {
    /// The listed port, if it is.
    pub fn port(&self, port: Port) -> Option<&PortRoute> {
        match port {
            Port::Ide => self.ide.as_ref(),
            Port::App(number) => self.ports.get(&number),
            Port::Ssh => None,
        }
    }
}
