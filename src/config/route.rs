//! `[[route]]`: static routes.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;

use crate::api::{
    GitspaceId,
    access::Visibility,
    path::RoutePath,
    pin::Pin,
    route::{Auth, HostHeader, Prefix},
    upgrade::Upgrade,
};

/// `[[route]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteEntry {
    /// The label under every configured domain. It or `host` must be there.
    pub gitspace: Option<GitspaceId>,
    /// A whole host beside or instead of it.
    pub host: Option<String>,
    /// The part of that host that is its own; other routes may have the rest.
    pub path: Option<RoutePath>,
    /// With `path`: what the app sees of it. None: nothing.
    pub prefix: Option<Prefix>,
    /// Who tells who is asking at that host.
    #[serde(default)]
    pub auth: Auth,
    /// `http://`, `https://` or `h2c://` with host and port, or `unix:/path`.
    pub upstream: String,
    /// `https` only: PEM file with the authorities that count for it, instead of those that this machine trusts.
    pub tls_ca: Option<PathBuf>,
    /// `https` only: the one key that counts.
    pub tls_pin: Option<Pin>,
    /// `https` only: its name there, instead of the upstream's host.
    pub tls_name: Option<String>,
    /// Who may use private ports.
    pub owner: Option<String>,
    /// Its organization.
    pub org: Option<String>,
    /// Others who may.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Who may use it.
    #[serde(default)]
    pub visibility: Visibility,
    /// Which Host the upstream gets.
    #[serde(default)]
    pub host_header: HostHeader,
    /// Which Origin it gets where its own pages ask; unset: the same.
    pub origin: Option<HostHeader>,
    /// What it may switch to beside WebSockets.
    #[serde(default)]
    pub upgrades: Vec<Upgrade>,
    /// `[route.ports.<number>]`
    #[serde(default)]
    pub ports: BTreeMap<String, PortEntry>,
}

impl RouteEntry {
    /// The gitspace's label: as it is written, or made of host and path.
    pub fn label(&self) -> Option<String> {
        let named = self.gitspace.as_ref().map(ToString::to_string);
        named.or_else(|| {
            let host = self.host.as_ref()?.to_ascii_lowercase();
            let path = self.path.as_ref().map_or("", RoutePath::as_str);
            let place = format!("{host}{path}").to_ascii_lowercase();
            Some(place.replace(['.', '_', '~', '/'], "-"))
        })
    }
}

/// `[route.ports.<number>]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortEntry {
    /// `http://`, `https://` or `h2c://` with host and port, or `unix:/path`.
    pub upstream: String,
    /// `https` only: PEM file with the authorities that count for it, instead of those that this machine trusts.
    pub tls_ca: Option<PathBuf>,
    /// `https` only: the one key that counts.
    pub tls_pin: Option<Pin>,
    /// `https` only: its name there, instead of the upstream's host.
    pub tls_name: Option<String>,
    /// Who may use it.
    #[serde(default)]
    pub visibility: Visibility,
    /// Which Host the upstream gets.
    #[serde(default)]
    pub host_header: HostHeader,
    /// Which Origin it gets where its own pages ask; unset: the same.
    pub origin: Option<HostHeader>,
    /// Origins that may send unsafe requests beside the gitspace's own hosts.
    #[serde(default)]
    pub cors: Vec<String>,
    /// What it may switch to beside WebSockets.
    #[serde(default)]
    pub upgrades: Vec<Upgrade>,
}
