//! `[[route]]`: static routes.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;

use crate::api::{GitspaceId, access::Visibility, pin::Pin, route::HostHeader};

/// `[[route]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteEntry {
    /// The label under every configured domain. It or `host` must be there.
    pub gitspace: Option<GitspaceId>,
    /// A whole host beside or instead of it.
    pub host: Option<String>,
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
    /// `[route.ports.<number>]`
    #[serde(default)]
    pub ports: BTreeMap<String, PortEntry>,
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
    /// Origins that may send unsafe requests beside the gitspace's own hosts.
    #[serde(default)]
    pub cors: Vec<String>,
}
