//! The runner's API: `/setup /step /suspend /destroy /pool_owner /typed /healthz /metrics`, guarded by a bearer token.
//!
//! A call goes on to its end when the delegate hangs up; asked again, it finds things done.

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
use serde::Serialize;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    agents::Agents,
    driver::{Driver, process::Process},
    instances::{CallError, Instances},
    keep::keep_up,
};
use crate::{
    api::{
        Secret,
        activity::Typed,
        problem::{MEDIA_TYPE, Problem},
        runner::{PoolOwner, Said, Step},
        task::{Destroy, InstanceRef},
    },
    config,
    telemetry::Chain,
};

const BODY_MAX: usize = 256 * 1024;
/// How many calls are under way at once; further ones wait.
const CALLS_MAX: usize = 256;

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
    /// Its HTTP client.
    #[error("the runner's HTTP client cannot be made")]
    Client(#[source] reqwest::Error),
    /// Its listener.
    #[error("the runner's listener failed")]
    Listen(#[source] io::Error),
}

struct Service<D> {
    instances: Instances<D>,
    token: Secret,
    runner: String,
    calls: Semaphore,
    metrics: Metrics,
    registry: Registry,
}

#[derive(Default)]
struct Metrics {
    setups: Counter,
    destroys: Counter,
    restored: Counter,
    failures: Counter,
}

/// Serves until the stop; then the process driver's instances end. They come back with the next start.
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
    let agents = Agents::new().map_err(Error::Client)?;
    match settings.driver {
        config::Driver::Process => {
            tracing::warn!(
                "the process driver isolates nothing and limits neither disk nor processes: what runs in a gitspace can do what this program can"
            );
            let instances = settings.instances;
            let driver =
                Process::new(&instances, settings.executable).map_err(prepare(&instances))?;
            let service = Service::new(Instances::new(driver, agents), settings.token, runner);
            run(listener, service, stop).await
        }
    }
}

async fn run<D: Driver>(
    listener: TcpListener,
    service: Service<D>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let service = Arc::new(service);
    let router = router(Arc::clone(&service));
    let serving =
        axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    // Calls under way would hold the end up: they fail when their instance ends.
    let ending = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = keep_up(&service.instances, &service.metrics.restored) => {}
        }
        service.instances.driver.shut_down().await;
    };
    let (served, ()) = tokio::join!(serving.into_future(), ending);
    served.map_err(Error::Listen)
}

fn router<D: Driver>(service: Arc<Service<D>>) -> Router {
    Router::new()
        .route("/setup", post(setup::<D>))
        .route("/step", post(step::<D>))
        .route("/suspend", post(suspend::<D>))
        .route("/destroy", post(destroy::<D>))
        .route("/said", post(said::<D>))
        .route("/pool_owner", get(pool_owner::<D>))
        .route("/typed", get(typed::<D>))
        .route("/metrics", get(metrics::<D>))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&service),
            guard::<D>,
        ))
        .route("/healthz", get(|| async { "ok\n" }))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(service)
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
        Some(token) if service.token.is(token) => {
            // The semaphore is never closed.
            let _permit = service.calls.acquire().await.ok();
            next.run(request).await
        }
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

impl<D: Driver> Service<D> {
    fn new(instances: Instances<D>, token: Secret, runner: String) -> Self {
        let metrics = Metrics::default();
        let mut registry = Registry::with_prefix("cde_runner");
        let counters = [
            ("setups", "Instances set up", &metrics.setups),
            ("destroys", "Instances destroyed", &metrics.destroys),
            (
                "restored",
                "Instances brought up again that had ended by themselves",
                &metrics.restored,
            ),
            ("failures", "Calls that failed", &metrics.failures),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        Self {
            instances,
            token,
            runner,
            calls: Semaphore::new(CALLS_MAX),
            metrics,
            registry,
        }
    }

    fn answer<T: Serialize>(&self, outcome: Result<T, CallError>) -> Response {
        match outcome {
            Ok(done) => Json(done).into_response(),
            Err(error) => {
                self.metrics.failures.inc();
                tracing::warn!(error = %Chain(&error), "a call failed");
                problem(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "runner-failed",
                    &error.to_string(),
                )
            }
        }
    }
}

/// Runs a call to its end also when the delegate hangs up.
async fn whole(call: impl Future<Output = Response> + Send + 'static) -> Response {
    tokio::spawn(call).await.unwrap_or_else(|_| {
        problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "runner-failed",
            "the call was cut short; the runner's log says why",
        )
    })
}

async fn setup<D: Driver>(
    State(service): State<Arc<Service<D>>>,
    Json(of): Json<InstanceRef>,
) -> Response {
    whole(async move {
        service.metrics.setups.inc();
        service.answer(service.instances.setup(&of).await)
    })
    .await
}

async fn step<D: Driver>(
    State(service): State<Arc<Service<D>>>,
    Json(step): Json<Step>,
) -> Response {
    whole(async move {
        service.answer(match step {
            Step::Start(start) => service.instances.start(&start).await,
            Step::Stop(of) => service.instances.stop(&of).await,
        })
    })
    .await
}

async fn said<D: Driver>(
    State(service): State<Arc<Service<D>>>,
    Json(asked): Json<Said>,
) -> Response {
    service.answer(service.instances.said(&asked).await)
}

async fn suspend<D: Driver>(
    State(service): State<Arc<Service<D>>>,
    Json(of): Json<InstanceRef>,
) -> Response {
    whole(async move { service.answer(service.instances.suspend(&of).await) }).await
}

async fn destroy<D: Driver>(
    State(service): State<Arc<Service<D>>>,
    Json(destroy): Json<Destroy>,
) -> Response {
    whole(async move {
        service.metrics.destroys.inc();
        service.answer(service.instances.destroy(&destroy).await)
    })
    .await
}

async fn pool_owner<D: Driver>(State(service): State<Arc<Service<D>>>) -> Json<PoolOwner> {
    Json(PoolOwner {
        runner: service.runner.clone(),
        driver: D::NAME.into(),
        host_bound: D::HOST_BOUND,
    })
}

async fn typed<D: Driver>(State(service): State<Arc<Service<D>>>) -> Json<Vec<Typed>> {
    Json(service.instances.typed.list())
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
