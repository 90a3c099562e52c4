//! The demo: all roles in this process on temporary state, one gitspace in it, and how to use it.
//!
//! Steps are told on standard error with their times. When all is ready, `Ready` goes to the caller; when stopped, the
//! gitspace is deleted, the roles drain, and the temporary folder goes.
//!
//! Not here: what is printed when it is ready, and standard output (`cli::demo`).

mod folder;
mod place;
mod road;
mod sample;
mod steps;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use steps::Steps;

use super::{
    AppError, Running,
    client::{Client, ClientError},
    name_after,
    state::{StateError, read_token},
};
use crate::{
    api::gitspace::{CreateGitspace, Gitspace, Ide, State},
    telemetry::Chain,
};
use folder::Folder;

/// A clone over a slow line may take long; the demo's own sample takes none of it.
const START_PATIENCE: Duration = Duration::from_secs(600);
const START_ATTEMPTS: u32 = 5;
const DELETE_PATIENCE: Duration = Duration::from_secs(8);

/// What the demo shows.
#[derive(Debug, Clone)]
pub struct Options {
    /// A folder or URL to clone; None: a sample is written.
    pub repository: Option<String>,
    /// Which IDE.
    pub ide: Ide,
    /// Whether the start commands of a named repository may run. The sample's may: this program wrote them.
    pub trust: bool,
}

/// What a user needs to know of a demo that runs.
#[derive(Debug, Clone, Serialize)]
pub struct Ready {
    /// The IDE, with a ticket.
    pub url: String,
    /// The first forwarded port, with a ticket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_url: Option<String>,
    /// The development CA's certificate.
    pub ca: PathBuf,
    /// The gitspace's identifier.
    pub gitspace: String,
    /// The gateway.
    pub gateway: String,
    /// The gateway's admin API.
    pub admin: String,
    /// The token for it.
    pub admin_token_file: PathBuf,
    /// The control plane.
    pub control_plane: String,
    /// Where everything is kept while it runs.
    pub state_dir: PathBuf,
    /// The token for the control plane.
    pub user_token_file: PathBuf,
}

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A role.
    #[error(transparent)]
    App(#[from] AppError),
    /// The control plane said no, or the gitspace did not start.
    #[error("the gitspace did not start")]
    Gitspace(#[from] ClientError),
    /// A token.
    #[error(transparent)]
    State(#[from] StateError),
    /// The temporary folder.
    #[error("cannot make a temporary folder in {}\nset TMPDIR to a folder that can be written", path.display())]
    Folder {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The sample.
    #[error(
        "cannot write the sample repository: {0}\ninstall git, or name a repository with --repo"
    )]
    Sample(String),
    /// The named repository.
    #[error(
        "{0:?} is neither a folder nor a URL\nname a git repository by its folder, or by a URL that starts with https:// or ssh://"
    )]
    NoRepository(String),
    /// No port.
    #[error("no free port was found on 127.0.0.1 and [::1]\nstop a program that listens there")]
    NoPort,
    /// The gateway does not serve it.
    #[error(
        "the IDE does not answer through the gateway: {0}\nsee the lines above; CDE_LOG=debug says more"
    )]
    NotServed(String),
}

/// Runs the demo until `stop`. `ready` is called once.
pub async fn run(
    options: Options,
    steps: &Steps,
    stop: CancellationToken,
    ready: impl FnOnce(&Ready),
) -> Result<(), DemoError> {
    let folder = Folder::make()?;
    let (repository, trust) = repository(&options, &folder).await?;
    steps.step("repository", &repository);
    let mut running = start(&folder).await?;
    steps.step("roles", "control plane, delegate, runner and gateway run");

    let asked = CreateGitspace {
        name: name_after(options.repository.as_deref().unwrap_or("sample")),
        repository,
        branch: None,
        ide: options.ide,
        ports: Vec::new(),
        trust,
        start: true,
    };
    let outcome = show(&mut running, asked, steps, &stop, ready).await;
    steps.step("stopping", "the gateway drains, the gitspace is deleted");
    let drained = end(running, &outcome).await;
    folder.remove();
    steps.step("stopped", "nothing is left behind");
    outcome.map_err(|(error, _)| error).and(drained)
}

/// Starts the roles. A port that was free when it was looked at may be taken when it is bound: then others are looked for.
async fn start(folder: &Folder) -> Result<Running, DemoError> {
    let mut attempts = START_ATTEMPTS;
    loop {
        attempts -= 1;
        match super::start(&place::config(folder.path())?).await {
            Err(error) if attempts > 0 && error.is_about_an_address() => {}
            outcome => return Ok(outcome?),
        }
    }
}

/// From the first request to the stop. Whatever ends it, the gitspace is named if there is one.
async fn show(
    running: &mut Running,
    asked: CreateGitspace,
    steps: &Steps,
    stop: &CancellationToken,
    ready: impl FnOnce(&Ready),
) -> Result<Made, (DemoError, Made)> {
    let mut made = Made::default();
    let told = {
        let prepared = prepare(running, asked, steps, &mut made);
        stop.run_until_cancelled(prepared).await
    };
    match told {
        None => return Ok(made),
        Some(Err(error)) => return Err((error, made)),
        Some(Ok(told)) => ready(&told),
    }
    match running.serve(None, stop).await {
        Ok(()) => Ok(made),
        Err(error) => Err((error.into(), made)),
    }
}

/// What must be deleted in the end.
#[derive(Default)]
struct Made(Option<(Client, String)>);

async fn prepare(
    running: &Running,
    asked: CreateGitspace,
    steps: &Steps,
    made: &mut Made,
) -> Result<Ready, DemoError> {
    let places = running.places().clone();
    let user_token_file = running.state().file("user.token");
    let control_plane = places.control_plane.unwrap_or_default();
    let client = Client::new(&control_plane, read_token(&user_token_file)?)?;
    let gitspace = client.create(&asked).await?;
    let id = gitspace.id.to_string();
    made.0 = Some((client.clone(), id.clone()));
    steps.step("gitspace", &format!("{id} was asked for"));
    let gitspace = client
        .wait_for(&id, State::Running, START_PATIENCE, |event| {
            steps.step(&event.kind, &event.message);
        })
        .await?;

    let ca = places.certificate_authority.unwrap_or_default();
    let port = first_port(&gitspace);
    road::wait(&client, &id, port, &ca, steps).await?;
    let port_url = match port {
        Some(port) => Some(client.ticket(&id, Some(port)).await?.url),
        None => None,
    };
    Ok(Ready {
        url: client.ticket(&id, None).await?.url,
        port_url,
        ca,
        gitspace: id,
        gateway: places.gateway.unwrap_or_default(),
        admin: places.admin.unwrap_or_default(),
        admin_token_file: running.state().file("admin.token"),
        control_plane,
        state_dir: running.state().path().to_owned(),
        user_token_file,
    })
}

fn first_port(gitspace: &Gitspace) -> Option<u16> {
    gitspace.ports.first().map(|forwarded| forwarded.port)
}

/// Drains the gateway, deletes the gitspace, drains the rest.
async fn end(
    mut running: Running,
    outcome: &Result<Made, (DemoError, Made)>,
) -> Result<(), DemoError> {
    let (Ok(made) | Err((_, made))) = outcome;
    let gateway = running.drain_gateway().await;
    if let Some((client, id)) = &made.0 {
        let deleted = async {
            client.delete(id).await?;
            client.wait_gone(id, DELETE_PATIENCE).await
        };
        if let Err(error) = deleted.await {
            tracing::warn!(gitspace = id, error = %Chain(&error), "the gitspace was not deleted in order");
        }
    }
    // Whoever still had a page open is no reason to fail.
    let gateway = match gateway {
        Err(AppError::Gateway(crate::gateway::Error::Cut { .. })) => Ok(()),
        other => other,
    };
    let rest = running.drain().await;
    Ok(gateway.and(rest)?)
}

/// What is cloned, and whether its commands may run.
async fn repository(options: &Options, folder: &Folder) -> Result<(String, bool), DemoError> {
    let Some(named) = &options.repository else {
        return Ok((sample::write(folder.path()).await?, true));
    };
    let is_url = named.contains("://") || named.starts_with("git@");
    let found = Path::new(named)
        .canonicalize()
        .ok()
        .filter(|path| path.is_dir());
    match found {
        Some(path) => Ok((path.to_string_lossy().into_owned(), options.trust)),
        None if is_url => Ok((named.clone(), options.trust)),
        None => Err(DemoError::NoRepository(named.clone())),
    }
}
