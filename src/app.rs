//! Builds the chosen roles, joins them over loopback HTTP, drains them. The only module that knows every role.
//!
//! All addresses are bound before any role runs: "port in use" is an error and not a half-started process.
//!
//! Not here: arguments and signals (`cli`), what the roles do.

mod browser;
pub mod client;
pub mod demo;
mod error;
pub mod handover;
mod join;
mod name;
mod role;
pub mod state;

use std::path::{Path, PathBuf};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

pub use browser::open as open_browser;
pub use error::AppError;
pub use name::name_after;

use crate::{
    config::{Config, ConfigError},
    gateway,
    telemetry::Chain,
};
use handover::{
    Asked,
    control::{self, Question},
    systemd,
    takeover::TakeOver,
};
use role::Role;
use state::StateDir;

/// Where the roles of this process can be reached.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// The gateway, as users reach it: `https://gitspaces.localhost:8443`.
    pub gateway: Option<String>,
    /// Its admin API: `http://127.0.0.1:8181`.
    pub admin: Option<String>,
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
    /// Roles that have not begun: another process still has them.
    rest: Vec<Box<dyn FnOnce() -> Role + Send>>,
    gateway: Option<gateway::Handle>,
    reloads: mpsc::Receiver<gateway::ReloadRequest>,
    elsewhere: mpsc::Receiver<gateway::Elsewhere>,
    /// All that listens here.
    sockets: gateway::Sockets,
    state: StateDir,
}

/// Runs what `config` describes until `stop`, then drains. `path` is read again on reload. With `taken`, in the place of another process.
pub async fn run(
    config: Config,
    path: Option<PathBuf>,
    stop: CancellationToken,
    taken: Option<TakeOver>,
) -> Result<(), AppError> {
    let link = taken.as_ref().map(|taken| taken.link.clone());
    let mut running = match taken {
        None => {
            let given = systemd::sockets().map_err(|source| AppError::System {
                action: "use the sockets that the system gave",
                source,
            })?;
            let origin = join::Origin {
                sockets: gateway::Sockets::given(given),
                lock: None,
            };
            let mut running = join::start(&config, origin).await?;
            running.start_rest();
            running
        }
        Some(TakeOver {
            link,
            sockets,
            lock,
        }) => {
            let lock = Some(lock);
            let mut running = join::start(&config, join::Origin { sockets, lock }).await?;
            running.take_over(&link, &stop).await?;
            running
        }
    };
    let (ask, questions) = mpsc::channel(1);
    let socket = control::serve(running.state.path(), running.gateway.clone(), ask);
    let socket = socket.map_err(|source| AppError::System {
        action: "listen on the control socket in `state_dir`",
        source,
    })?;
    if let Some(link) = link {
        link.serves();
    }
    systemd::ready();
    let served = running
        .serve_and_answer(path.as_deref(), &stop, questions)
        .await;
    let drained = running.drain().await;
    socket.close().await;
    served.and(drained)
}

/// Binds every address, then starts the chosen roles.
pub async fn start(config: &Config) -> Result<Running, AppError> {
    let mut running = join::start(config, join::Origin::default()).await?;
    running.start_rest();
    Ok(running)
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

    /// Starts the roles that had to wait.
    fn start_rest(&mut self) {
        let rest = std::mem::take(&mut self.rest);
        self.roles.extend(rest.into_iter().map(|start| start()));
    }

    /// Returns when stopped, or when a role ends by itself. Reloads in between.
    pub async fn serve(
        &mut self,
        path: Option<&Path>,
        stop: &CancellationToken,
    ) -> Result<(), AppError> {
        let (_nobody_asks, questions) = mpsc::channel(1);
        self.serve_and_answer(path, stop, questions).await
    }

    /// The same, and lets another process take over when it is asked to; then it returns when nothing is left here.
    async fn serve_and_answer(
        &mut self,
        path: Option<&Path>,
        stop: &CancellationToken,
        mut questions: mpsc::Receiver<Question>,
    ) -> Result<(), AppError> {
        let mut hangups = signal(SignalKind::hangup()).map_err(|source| AppError::System {
            action: "listen for SIGHUP",
            source,
        })?;
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    systemd::stopping();
                    tracing::info!("stopping: streams may go on until the drain deadline");
                    return Ok(());
                }
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
                Some(asked) = self.elsewhere.recv() => {
                    tokio::spawn(handover::elsewhere(self.state.path().to_owned(), asked));
                }
                Some(question) = questions.recv() => {
                    if self.asked(question, path, stop).await {
                        return self.outlive(path, stop, questions).await;
                    }
                }
            }
        }
    }

    /// Reads the configuration again and gives the gateway its part. A mistake changes nothing.
    async fn reload(&self, path: Option<&Path>) -> Result<(), String> {
        systemd::reloading();
        let outcome = self.try_reload(path).await;
        systemd::ready();
        match &outcome {
            Ok(()) => {
                tracing::info!("configuration reloaded");
                let folder = self.state.path().to_owned();
                // What is left of earlier processes goes by the same configuration.
                tokio::spawn(
                    async move { control::ask_others(&folder, &Asked::Reload).await.len() },
                );
            }
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
