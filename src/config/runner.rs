//! `[runner]`

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;

/// `[runner]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Runner {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its token. Unset: `runner.token` in `state_dir`. Made if absent, mode 0600.
    pub token_file: Option<PathBuf>,
    /// How instances are made.
    pub driver: Driver,
    /// `process`: where instances keep their files. Unset: `instances` in `state_dir`.
    pub instances: Option<PathBuf>,
}

impl Default for Runner {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8183)),
            token_file: None,
            driver: Driver::Process,
            instances: None,
        }
    }
}

/// How instances are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A child process on this host: for development, it isolates nothing. Refused beside a listener that is not loopback.
    Process,
}
