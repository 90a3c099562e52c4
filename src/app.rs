//! Builds the chosen roles, joins them over loopback HTTP, drains them. The only module that knows every role.
//!
//! All addresses are bound before any role runs: "port in use" is an error and not a half-started process.
//!
//! Not here: arguments and signals (`cli`), what the roles do.

mod browser;
pub mod client;
pub mod demo;
mod error;
mod join;
mod name;
mod role;
pub mod state;

use std::path::{Path, PathBuf};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub use browser::open as open_browser;
pub use error::AppError;
pub use name::name_after;

use crate::{
    config::{Config, ConfigError},
    gateway,
    telemetry::Chain,
};
use role::Role;
use state::StateDir;

/// Where the roles of this process can be reached.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// The gateway, as users reach it: `https://gitspaces.localhost:8443`.
    pub gateway: Option<String>,
    /// The control plane: `http://127.0.0.1:8182`.
    pub control_plane: Option<String>,
    /// The runner.
    pub runner: Option<String>,
    /// The development CA's certificate, if the gateway serves it.
    pub certificate_authority: Option<PathBuf>,
}

/// Roles under way.
pub struct Running {
    /// In the order in which they drain.
    roles: Vec<Role>,
    places: Places,
    gateway: Option<gateway::Handle>,
    reloads: tokio::sync::mpsc::Receiver<gateway::ReloadRequest>,
    state: StateDir,
}

/// Runs what `config` describes until `stop`, then drains. `path` is read again on reload.
pub async fn run(
    config: Config,
    path: Option<PathBuf>,
    stop: CancellationToken,
) -> Result<(), AppError> {
    let mut running = start(&config).await?;
    let served = running.serve(path.as_deref(), &stop).await;
    tracing::info!("stopping: streams may go on until the drain deadline");
    let drained = running.drain().await;
    served.and(drained)
}

/// Binds every address, then starts the chosen roles.
pub async fn start(config: &Config) -> Result<Running, AppError> {
    join::start(config).await
}

impl Running {
    /// Where the roles can be reached.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// The state directory.
    pub fn state(&self) -> &StateDir {
        &self.state
    }

    /// Returns when stopped, or when a role ends by itself. Reloads in between.
    pub async fn serve(
        &mut self,
        path: Option<&Path>,
        stop: &CancellationToken,
    ) -> Result<(), AppError> {
        let mut hangups = signal(SignalKind::hangup()).map_err(|source| AppError::System {
            action: "listen for SIGHUP",
            source,
        })?;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                error = role::first_end(&mut self.roles) => return Err(error),
                Some(_) = hangups.recv() => {
                    // Told by the log alone: nobody waits for an answer.
                    let _ = self.reload(path).await;
                }
                Some(answer) = self.reloads.recv() => {
                    let outcome = self.reload(path).await;
                    // Whoever asked may be gone.
                    let _ = answer.send(outcome);
                }
            }
        }
    }

    /// Reads the configuration again and gives the gateway its part. A mistake changes nothing.
    async fn reload(&self, path: Option<&Path>) -> Result<(), String> {
        let outcome = self.try_reload(path).await;
        match &outcome {
            Ok(()) => tracing::info!("configuration reloaded"),
            Err(problem) => {
                tracing::error!("configuration not reloaded, the old one holds: {problem}")
            }
        }
        outcome
    }

    async fn try_reload(&self, path: Option<&Path>) -> Result<(), String> {
        let Some(handle) = &self.gateway else {
            return Err("this process runs no gateway, and only a gateway reloads".into());
        };
        let config = read(path).await.map_err(|error| error.to_string())?;
        let settings =
            join::gateway_settings(&config, &self.state, self.places.control_plane.as_deref())
                .map_err(|error| Chain(&error).to_string())?;
        let handle = handle.clone();
        tokio::task::spawn_blocking(move || handle.reload(&settings))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| Chain(&error).to_string())
    }

    /// Stops the gateway: it accepts nobody, and its streams end by the drain deadline.
    pub async fn drain_gateway(&mut self) -> Result<(), AppError> {
        let mut outcome = Ok(());
        let (gateways, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.roles)
            .into_iter()
            .partition(|role| role.name() == role::GATEWAY);
        self.roles = others;
        for role in gateways {
            outcome = outcome.and(role.drain().await);
        }
        outcome
    }

    /// Stops the roles, one after the other: gateway, delegate, runner, control plane. The first error is returned.
    pub async fn drain(self) -> Result<(), AppError> {
        let mut outcome = Ok(());
        for role in self.roles {
            outcome = outcome.and(role.drain().await);
        }
        outcome
    }
}

/// Reading files blocks, so it leaves the runtime's threads.
async fn read(path: Option<&Path>) -> Result<Config, ConfigError> {
    let path = path.map(Path::to_owned);
    let reading = tokio::task::spawn_blocking(move || match path {
        Some(path) => Config::load(&path),
        None => Config::without_file(),
    });
    match reading.await {
        Ok(outcome) => outcome,
        Err(error) => Err(ConfigError::Read {
            path: PathBuf::new(),
            source: std::io::Error::other(error),
        }),
    }
}
