//! The runner's API: `/setup /step /suspend /destroy /pool_owner /healthz /metrics`, guarded by a bearer token.
//!
//! What ran when the runner ended is brought up again at start, on the ports it had, so that routes stay true.

use std::{io, path::PathBuf, sync::Arc};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    agents::{self, AgentError},
    driver::{Driver, DriverError, process::Process},
};
use crate::{
    api::{
        InstanceId, Secret,
        agent::{StartRequest, Started},
        problem::{MEDIA_TYPE, Problem},
        runner::{PoolOwner, Step, StepDone},
        task::{Destroy, Done, InstanceRef, Start},
    },
    config,
};

const BODY_MAX: usize = 256 * 1024;

/// What a runner needs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Guards the API.
    pub token: Secret,
    /// How instances are made.
    pub driver: config::Driver,
    /// Where the process driver keeps them.
    pub instances: PathBuf,
    /// The file with this runner's identifier; made if absent.
    pub identity: PathBuf,
    /// This program, which is also the agent.
    pub executable: PathBuf,
}

/// Why a runner cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its folder or identity.
    #[error("cannot prepare {path}")]
    Prepare {
        /// Which path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its listener.
    #[error("the runner's listener failed")]
    Listen(#[source] io::Error),
}

struct Service<D> {
    driver: D,
    token: Secret,
    runner: String,
    client: reqwest::Client,
    metrics: Metrics,
    registry: Registry,
}

#[derive(Default)]
struct Metrics {
    setups: Counter,
    destroys: Counter,
    failures: Counter,
}

/// Serves until the stop; then the process driver's instances end.
pub async fn serve(
    listener: TcpListener,
    settings: Settings,
    stop: CancellationToken,
) -> Result<(), Error> {
    let prepare = |path: &PathBuf| {
        let path = path.clone();
        move |source| Error::Prepare { path, source }
    };
    let runner = identity(&settings.identity).map_err(prepare(&settings.identity))?;
    match settings.driver {
        config::Driver::Process => {
            tracing::warn!(
                "the process driver isolates nothing: what runs in a gitspace can do what this program can"
            );
            let instances = settings.instances;
            let driver = Process::new(instances.clone(), settings.executable)
                .map_err(prepare(&instances))?;
            run(listener, Service::new(driver, settings.token, runner), stop).await
        }
    }
}

async fn run<D: Driver>(
    listener: TcpListener,
    service: Service<D>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let service = Arc::new(service);
    service.restore().await;
    let router = Router::new()
        .route("/setup", post(setup::<D>))
        .route("/step", post(step::<D>))
        .route("/suspend", post(suspend::<D>))
        .route("/destroy", post(destroy::<D>))
        .route("/pool_owner", get(pool_owner::<D>))
        .route("/metrics", get(metrics::<D>))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&service),
            guard::<D>,
        ))
        .route("/healthz", get(|| async { "ok\n" }))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(Arc::clone(&service));
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await;
    service.driver.shut_down().await;
    served.map_err(Error::Listen)
}

/// Reads the identifier, or makes one.
fn identity(path: &PathBuf) -> io::Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => {
            let mut random = [0; 8];
            getrandom::fill(&mut random).map_err(io::Error::other)?;
            let identity: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::write(path, &identity)?;
            Ok(identity)
        }
    }
}

async fn guard<D: Driver>(
    State(service): State<Arc<Service<D>>>,
    request: Request,
    next: Next,
) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    match given.and_then(|value| value.strip_prefix("Bearer ")) {
        Some(token) if service.token.is(token) => next.run(request).await,
        _ => problem(
            StatusCode::UNAUTHORIZED,
            "invalid-token",
            "send the token in `runner.token_file`",
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

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// What is kept of a start: the question, and where things listened.
#[derive(Serialize, Deserialize)]
struct Note {
    start: Start,
    started: Started,
}

impl<D: Driver> Service<D> {
    fn new(driver: D, token: Secret, runner: String) -> Self {
        let metrics = Metrics::default();
        let mut registry = Registry::with_prefix("cde_runner");
        registry.register("setups", "Instances set up", metrics.setups.clone());
        registry.register("destroys", "Instances destroyed", metrics.destroys.clone());
        registry.register("failures", "Calls that failed", metrics.failures.clone());
        Self {
            driver,
            token,
            runner,
            client: reqwest::Client::new(),
            metrics,
            registry,
        }
    }

    /// Brings up again what ran.
    async fn restore(&self) {
        for instance in self.driver.interrupted() {
            let restored = async {
                self.driver.setup(&instance).await?;
                if let Some(note) = self.note(&instance) {
                    self.start(&note.start).await?;
                }
                Ok::<_, CallError>(())
            };
            match restored.await {
                Ok(()) => tracing::info!(%instance, "an instance was brought up again"),
                Err(error) => {
                    tracing::error!(%instance, %error, "an instance could not be brought up again")
                }
            }
        }
    }

    fn note(&self, instance: &InstanceId) -> Option<Note> {
        serde_json::from_str(&self.driver.noted(instance)?).ok()
    }

    async fn start(&self, start: &Start) -> Result<Started, CallError> {
        let instance = &start.of.instance;
        let machine = self
            .driver
            .machine(instance)
            .ok_or_else(|| DriverError::Unknown(instance.clone()))?;
        let before = self.note(instance).map(|note| note.started);
        let request = StartRequest {
            gitspace: start.of.gitspace.to_string(),
            repository: start.repository.clone(),
            branch: start.branch.clone(),
            ide: start.ide,
            ports: start.ports.clone(),
            trust: start.trust,
            ide_port_before: before.as_ref().map(|before| before.ide_port),
            ports_before: before.map(|before| before.ports).unwrap_or_default(),
        };
        let started: Started = agents::ask(&self.client, &machine, "/start", &request).await?;
        let note = Note {
            start: start.clone(),
            started: started.clone(),
        };
        if let Ok(text) = serde_json::to_string(&note) {
            self.driver.note(instance, &text)?;
        }
        Ok(started)
    }

    fn answer<T: Serialize>(&self, outcome: Result<T, CallError>) -> Response {
        match outcome {
            Ok(done) => Json(done).into_response(),
            Err(error) => {
                self.metrics.failures.inc();
                tracing::warn!(%error, "a call failed");
                problem(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "runner-failed",
                    &error.to_string(),
                )
            }
        }
    }
}

/// Runs a call to its end also when the delegate hangs up: it asks again and finds it done.
async fn whole<T: Send + 'static>(call: impl Future<Output = T> + Send + 'static) -> Option<T> {
    tokio::spawn(call).await.ok()
}

fn cut() -> Response {
    problem(
        StatusCode::INTERNAL_SERVER_ERROR,
        "runner-failed",
        "the call was cut short",
    )
}

async fn setup<D: Driver>(
    State(service): State<Arc<Service<D>>>,
    Json(of): Json<InstanceRef>,
) -> Response {
    let call = async move {
        service.metrics.setups.inc();
        let machine = service
            .driver
            .setup(&of.instance)
            .await
            .map_err(CallError::from);
        let done = machine.map(|machine| StepDone {
            done: Done {
                address: Some(machine.address),
                ..Done::default()
            },
            lines: vec![format!("Instance is up ({})", D::NAME)],
        });
        service.answer(done)
    };
    whole(call).await.unwrap_or_else(cut)
}

async fn step<D: Driver>(
    State(service): State<Arc<Service<D>>>,
    Json(step): Json<Step>,
) -> Response {
    let call = async move {
        let done = match step {
            Step::Start(start) => service.start(&start).await.map(|started| StepDone {
                done: Done {
                    address: None,
                    ide_port: Some(started.ide_port),
                    ports: started.ports,
                    ide_path: started.ide_path,
                },
                lines: started.lines,
            }),
            Step::Stop(of) => match service.driver.machine(&of.instance) {
                // One that is gone has no IDE.
                None => Ok(StepDone::default()),
                Some(machine) => agents::tell(&service.client, &machine, "/stop")
                    .await
                    .map(|()| StepDone {
                        done: Done::default(),
                        lines: vec!["IDE stopped".into()],
                    })
                    .map_err(CallError::from),
            },
        };
        service.answer(done)
    };
    whole(call).await.unwrap_or_else(cut)
}

async fn suspend<D: Driver>(
    State(service): State<Arc<Service<D>>>,
    Json(of): Json<InstanceRef>,
) -> Response {
    let call = async move {
        let done = service
            .driver
            .suspend(&of.instance)
            .await
            .map(|()| StepDone::default())
            .map_err(CallError::from);
        service.answer(done)
    };
    whole(call).await.unwrap_or_else(cut)
}

async fn destroy<D: Driver>(
    State(service): State<Arc<Service<D>>>,
    Json(destroy): Json<Destroy>,
) -> Response {
    let call = async move {
        service.metrics.destroys.inc();
        let done = service
            .driver
            .destroy(&destroy.of.instance, destroy.delete_data)
            .await;
        service.answer(done.map(|()| StepDone::default()).map_err(CallError::from))
    };
    whole(call).await.unwrap_or_else(cut)
}

async fn pool_owner<D: Driver>(State(service): State<Arc<Service<D>>>) -> Json<PoolOwner> {
    Json(PoolOwner {
        runner: service.runner.clone(),
        driver: D::NAME.into(),
        host_bound: D::HOST_BOUND,
    })
}

async fn metrics<D: Driver>(State(service): State<Arc<Service<D>>>) -> Response {
    let mut text = String::new();
    let _ = prometheus_client::encoding::text::encode(&mut text, &service.registry);
    (
        [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        text,
    )
        .into_response()
}
