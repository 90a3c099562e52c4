//! The agent's API: `POST /start /stop`, `GET /status`, `GET /logs?after=`, `GET /healthz`, guarded by a bearer token.
//!
//! Starting twice is starting once: what runs is told again.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Query, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::{net::TcpListener, sync::Mutex};
use tokio_util::sync::CancellationToken;

use super::{
    descendants,
    devcontainer::{self, Devcontainer},
    ide::{self, Running},
    logs::Log,
    ports::real_ports,
    program::Program,
    repository::Clone as CloneRepository,
    typing::Typing,
};
use crate::api::{
    Secret,
    agent::{INSTANCE_MARK, Logs, StartRequest, Started, Status},
    problem::{MEDIA_TYPE, Problem},
};

const BODY_MAX: usize = 256 * 1024;

/// What an agent needs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Guards the API.
    pub token: Secret,
    /// The instance's home folder.
    pub home: PathBuf,
    /// code-server's executable; None: looked for in `PATH`.
    pub code_server: Option<PathBuf>,
    /// How long a clone may take.
    pub clone_within: Duration,
    /// How long an IDE may take to answer.
    pub ide_within: Duration,
    /// Whether this process is nothing but the agent: then everything below it is the instance's, whoever started it. A stop ends
    /// it, and what is typed into its terminals is told.
    pub alone: bool,
}

impl Settings {
    /// With the usual deadlines.
    pub fn new(token: Secret, home: PathBuf, code_server: Option<PathBuf>) -> Self {
        Self {
            token,
            home,
            code_server,
            clone_within: Duration::from_secs(15 * 60),
            ide_within: Duration::from_secs(60),
            alone: false,
        }
    }
}

struct Agent {
    settings: Settings,
    log: Arc<Log>,
    typing: Arc<Typing>,
    /// Held while starting and stopping: they do not overlap.
    running: Mutex<Option<Up>>,
    /// Cuts the start short that is under way.
    starting: std::sync::Mutex<CancellationToken>,
    ending: CancellationToken,
}

/// What runs.
struct Up {
    ide: Running,
    post_start: Vec<Program>,
    started: Started,
}

/// Why a start failed: a label and a sentence.
type Failed = (&'static str, String);

/// Serves until the stop, then ends everything it started.
pub async fn serve(
    listener: TcpListener,
    settings: Settings,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let typing = Arc::<Typing>::default();
    let looking = settings
        .alone
        .then(|| tokio::spawn(descendants::look_after(Arc::clone(&typing))));
    let agent = Arc::new(Agent {
        settings,
        log: Arc::default(),
        typing,
        running: Mutex::default(),
        starting: std::sync::Mutex::default(),
        ending: stop.clone(),
    });
    let router = Router::new()
        .route("/start", post(start))
        .route("/stop", post(stop_ide))
        .route("/status", get(status))
        .route("/logs", get(logs))
        .layer(middleware::from_fn_with_state(Arc::clone(&agent), guard))
        .route("/healthz", get(|| async { "ok\n" }))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(Arc::clone(&agent));
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await;
    agent.stop().await;
    if let Some(looking) = looking {
        looking.abort();
    }
    served
}

async fn guard(State(agent): State<Arc<Agent>>, request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    match given.and_then(|value| value.strip_prefix("Bearer ")) {
        Some(token) if agent.settings.token.is(token) => next.run(request).await,
        _ => problem(
            StatusCode::UNAUTHORIZED,
            "invalid-token",
            "the agent is reached by its runner only",
        ),
    }
}

fn problem(status: StatusCode, reason: &str, title: &str) -> Response {
    let body = Problem {
        status: status.as_u16(),
        title: title.into(),
        reason: reason.into(),
        detail: None,
        request_id: None,
    };
    (
        status,
        [(header::CONTENT_TYPE, MEDIA_TYPE)],
        serde_json::to_string(&body).unwrap_or_default(),
    )
        .into_response()
}

async fn start(State(agent): State<Arc<Agent>>, Json(request): Json<StartRequest>) -> Response {
    // Not cut short when the runner hangs up: it asks again and gets the same answer.
    let started = tokio::spawn(async move { agent.start(&request).await });
    match started.await {
        Ok(Ok(started)) => Json(started).into_response(),
        Ok(Err((reason, message))) => problem(StatusCode::UNPROCESSABLE_ENTITY, reason, &message),
        Err(error) => problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "agent-failed",
            &error.to_string(),
        ),
    }
}

async fn stop_ide(State(agent): State<Arc<Agent>>) -> StatusCode {
    agent.stop().await;
    StatusCode::NO_CONTENT
}

async fn status(State(agent): State<Arc<Agent>>) -> Json<Status> {
    let ended = agent.running.lock().await.as_ref().map(|up| up.ide.ended());
    Json(Status {
        running: matches!(ended, Some(None)),
        ended: ended.flatten(),
        typed_ago: agent.typing.ago(SystemTime::now()),
    })
}

#[derive(serde::Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
}

async fn logs(State(agent): State<Arc<Agent>>, Query(After { after }): Query<After>) -> Json<Logs> {
    Json(agent.log.after(after))
}

impl Agent {
    /// Brings repository and IDE up, unless they are. A stop cuts it short.
    async fn start(&self, request: &StartRequest) -> Result<Started, Failed> {
        let mut running = self.running.lock().await;
        if let Some(up) = running.as_ref()
            && up.ide.ended().is_none()
        {
            return Ok(up.started.clone());
        }
        if let Some(up) = running.take() {
            up.stop().await;
        }
        let interrupted = self.ending.child_token();
        *self.starting() = interrupted.clone();
        let up = tokio::select! {
            up = self.bring_up(request) => up,
            () = interrupted.cancelled() => {
                Err(("interrupted", "the gitspace was stopped while it started".into()))
            }
        };
        match up {
            Ok(up) => {
                let started = up.started.clone();
                *running = Some(up);
                Ok(started)
            }
            Err((reason, message)) => {
                self.log.line(&message);
                Err((reason, message))
            }
        }
    }

    fn starting(&self) -> std::sync::MutexGuard<'_, CancellationToken> {
        self.starting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Repository, ports, IDE, the repository's own command: in this order, each told in a line when it is done.
    async fn bring_up(&self, request: &StartRequest) -> Result<Up, Failed> {
        let mut told = Told::new(&self.log);
        let folder = self.repository(request, &mut told).await?;
        let devcontainer = devcontainer::read(&folder).unwrap_or_else(|problem| {
            told.line(format!("devcontainer.json is ignored: {problem}"));
            Devcontainer::default()
        });
        let io = |error: std::io::Error| ("ide-failed", format!("cannot start the IDE: {error}"));
        let ports = real_ports(&forwarded(request, &devcontainer), &request.ports_before)
            .await
            .map_err(io)?;
        let environment = environment(&request.gitspace, &ports);
        let ide = ide::Start {
            ide: request.ide,
            title: &request.gitspace,
            home: &self.settings.home,
            folder: &folder,
            environment: &environment,
            port: request.ide_port_before,
            code_server: self.settings.code_server.as_deref(),
            within: self.settings.ide_within,
            log: &self.log,
        };
        let ide = ide
            .start()
            .await
            .map_err(|error| ("ide-failed", error.to_string()))?;
        told.line(format!("IDE {} is up", request.ide));
        let commands = devcontainer.post_start;
        let post_start = match request.trust {
            true => {
                let environment = with_port(environment, &ports);
                self.run_all(commands, &folder, &environment, &mut told)
            }
            false => {
                if !commands.is_empty() {
                    told.line("postStartCommand was not run: the repository is not trusted");
                }
                Vec::new()
            }
        };
        let started = Started {
            ide_port: ide.port,
            ide_path: ide.path.clone(),
            ports,
            lines: told.lines,
        };
        Ok(Up {
            ide,
            post_start,
            started,
        })
    }

    async fn repository(
        &self,
        request: &StartRequest,
        told: &mut Told<'_>,
    ) -> Result<PathBuf, Failed> {
        let clone = CloneRepository {
            repository: &request.repository,
            branch: request.branch.as_deref(),
            home: &self.settings.home,
            within: self.settings.clone_within,
            log: &self.log,
        };
        let (folder, cloned) = clone
            .ensure()
            .await
            .map_err(|error| ("clone-failed", error.to_string()))?;
        told.line(match cloned {
            true => "Repository cloned",
            false => "Repository was there",
        });
        Ok(folder)
    }

    /// Starts the repository's own commands. One that fails keeps nobody from working.
    fn run_all(
        &self,
        commands: Vec<Vec<String>>,
        folder: &Path,
        environment: &[(String, String)],
        told: &mut Told<'_>,
    ) -> Vec<Program> {
        let mut programs = Vec::new();
        for command in commands {
            let Some((program, arguments)) = command.split_first() else {
                continue;
            };
            let mut command = ide::clean(program.as_ref(), &self.settings.home, environment);
            command.args(arguments).current_dir(folder);
            match Program::spawn(&mut command, "postStartCommand", &self.log) {
                Ok(program) => {
                    told.line("postStartCommand started");
                    programs.push(program);
                }
                Err(error) => told.line(format!("postStartCommand cannot be started: {error}")),
            }
        }
        programs
    }

    async fn stop(&self) {
        self.starting().cancel();
        if let Some(up) = self.running.lock().await.take() {
            up.stop().await;
        }
        if self.settings.alone {
            descendants::end_all().await;
        }
    }
}

/// What a start did, line by line: for its answer, and at once for whoever follows the log.
struct Told<'a> {
    log: &'a Log,
    lines: Vec<String>,
}

impl<'a> Told<'a> {
    fn new(log: &'a Log) -> Self {
        Self {
            log,
            lines: Vec::new(),
        }
    }

    fn line(&mut self, line: impl Into<String>) {
        let line = line.into();
        self.log.line(&line);
        self.lines.push(line);
    }
}

impl Up {
    async fn stop(self) {
        let commands = self.post_start.into_iter().map(Program::stop);
        tokio::join!(futures_util::future::join_all(commands), self.ide.stop());
    }
}

/// The ports that were asked for, and those of the repository.
fn forwarded(request: &StartRequest, devcontainer: &Devcontainer) -> Vec<u16> {
    let asked = request.ports.iter().map(|port| port.port);
    let mut ports: Vec<u16> = asked.chain(devcontainer.ports.iter().copied()).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// The repository's command also gets `PORT`, the first port. Not the IDE: code-server would listen there itself.
fn with_port(
    mut environment: Vec<(String, String)>,
    ports: &std::collections::BTreeMap<u16, u16>,
) -> Vec<(String, String)> {
    if let Some(first) = ports.values().next() {
        environment.push(("PORT".into(), first.to_string()));
    }
    environment
}

/// Where apps are to listen: `GITSPACE_PORT_<number>`.
fn environment(
    gitspace: &str,
    ports: &std::collections::BTreeMap<u16, u16>,
) -> Vec<(String, String)> {
    let mut environment = vec![("GITSPACE".to_owned(), gitspace.to_owned())];
    if let Some(mark) = std::env::var_os(INSTANCE_MARK).and_then(|mark| mark.into_string().ok()) {
        environment.push((INSTANCE_MARK.into(), mark));
    }
    environment.extend(
        ports
            .iter()
            .map(|(port, real)| (format!("GITSPACE_PORT_{port}"), real.to_string())),
    );
    environment
}
