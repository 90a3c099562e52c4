//! `[control_plane]`

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;

/// `[control_plane]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlPlane {
    /// Where its API listens.
    pub address: SocketAddr,
    /// Its name as an issuer of tokens and in links. Unset: `http://<address>`.
    pub public_url: Option<String>,
    /// How users reach gitspaces: scheme, domain and port. Identifiers are put before the domain. Unset: the embedded gateway's.
    pub gateway_url: Option<String>,
    /// The database. Unset: `control-plane.db` in `state_dir`.
    pub database: Option<PathBuf>,
    /// Bearer token of users of the API. Unset: `user.token` in `state_dir`. Made if absent, mode 0600.
    pub user_token_file: Option<PathBuf>,
    /// Who the holder of that token is.
    pub user: String,
    /// Bearer token of gateways. Unset: `gateway.token` in `state_dir`.
    pub gateway_token_file: Option<PathBuf>,
    /// Bearer token of delegates. Unset: `delegate.token` in `state_dir`.
    pub delegate_token_file: Option<PathBuf>,
}

impl Default for ControlPlane {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8182)),
            public_url: None,
            gateway_url: None,
            database: None,
            user_token_file: None,
            user: "admin".into(),
            gateway_token_file: None,
            delegate_token_file: None,
        }
    }
}
