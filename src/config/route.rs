//! `[[route]]`: static routes.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::api::{GitspaceId, access::Visibility, route::HostHeader};

/// `[[route]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteEntry {
    /// The label under every configured domain. It or `host` must be there.
    pub gitspace: Option<GitspaceId>,
    /// A whole host beside or instead of it.
    pub host: Option<String>,
    /// `http://address:port` or `unix:/path`.
    pub upstream: String,
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
    /// `http://address:port` or `unix:/path`.
    pub upstream: String,
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
