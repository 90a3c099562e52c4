//! `config.toml`: one struct per table, with defaults. Read once at start and again on reload; each role gets its own table only.
//!
//! Unknown keys are refused. Checks across keys are in `check`. The file `config.toml` in the repository explains every key.

mod bytes;
mod check;
mod control_plane;
mod delegate;
mod duration;
mod error;
mod gateway;
mod limits;
mod load;
mod network;
mod route;
mod runner;
mod source;

pub use bytes::ByteLimit;
pub use control_plane::ControlPlane;
pub use delegate::Delegate;
pub use duration::Timeout;
pub use error::{ConfigError, Origin, Problem};
pub use gateway::{
    AccessLog, Admin, Algorithm, Auth, Certificate, Chp, ClientAddress, ClientCertificates,
    ControlPlaneLink, FailMode, Gateway, Headers, Issuer, IssuerKey, Keys, LineFormat, Listen,
    ListenProtocol, Timeouts, Traces, Upstreams,
};
pub use limits::{Allowed, Limits, Scope, twice};
pub use load::{accepted_keys, default_file};
pub use route::{PortEntry, RouteEntry};
pub use runner::{Driver, Runner};
pub use source::OVERRIDE_PREFIX;

use std::path::PathBuf;

use serde::Deserialize;

/// The whole of `config.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Which roles this process runs.
    pub roles: Vec<Role>,
    /// Where databases, keys and last routes live. Mode 0700, with a lock file.
    pub state_dir: PathBuf,
    /// `[gateway]`
    pub gateway: Gateway,
    /// `[control_plane]`
    pub control_plane: ControlPlane,
    /// `[delegate]`
    pub delegate: Delegate,
    /// `[runner]`
    pub runner: Runner,
    /// `[[route]]`: static routes.
    pub route: Vec<RouteEntry>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            roles: vec![
                Role::Gateway,
                Role::ControlPlane,
                Role::Delegate,
                Role::Runner,
            ],
            state_dir: "state".into(),
            gateway: Gateway::default(),
            control_plane: ControlPlane::default(),
            delegate: Delegate::default(),
            runner: Runner::default(),
            route: Vec::new(),
        }
    }
}

impl Config {
    /// Whether this process runs `role`.
    pub fn runs(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

/// A part of the system that this process can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The data path.
    Gateway,
    /// Lifecycle, store, feed.
    ControlPlane,
    /// Takes tasks from a control plane.
    Delegate,
    /// Executes them.
    Runner,
}
