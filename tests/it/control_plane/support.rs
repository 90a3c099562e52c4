//! A control plane on a runtime of its own, which can be torn down like a killed process, and the peers that dial in.

use std::{net::SocketAddr, path::Path, time::Duration};

use cde_gateway::{
    api::{
        Secret,
        feed::Feed,
        gitspace::{Gitspace, State},
        problem::Problem,
        task::{Done, Registered, Task, Work},
    },
    control_plane::{self, Settings, Timing},
};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::support::secret;

pub(crate) const USER: &str = "user-token-for-tests";
pub(super) const DELEGATE: &str = "delegate-token-of-the-plane";
pub(crate) const GATEWAY: &str = "gateway-token-of-the-plane";
/// The longest that a test waits for a value.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// A control plane that listens.
pub(crate) struct Plane {
    address: SocketAddr,
    stop: CancellationToken,
    runtime: Running,
    served: tokio::task::JoinHandle<Result<(), control_plane::Error>>,
    folder: TempDir,
    http: reqwest::Client,
}

/// A runtime that may be dropped in a test's own one.
struct Running(Option<tokio::runtime::Runtime>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

pub(super) fn settings(folder: &Path) -> Settings {
    Settings {
        public_url: "http://cp.test".into(),
        gateway_url: "https://gitspaces.localhost:8443".into(),
        database: folder.join("control-plane.db"),
        signing_key: folder.join("signing.pem"),
        user: "alice".into(),
        user_token: Secret::new(secret(USER)),
        gateway_token: Secret::new(secret(GATEWAY)),
        delegate_token: Secret::new(secret(DELEGATE)),
    }
}

impl Plane {
    pub(crate) async fn start() -> Self {
        Self::start_on(tempfile::tempdir().unwrap(), Timing::default()).await
    }

    pub(crate) async fn start_on(folder: TempDir, timing: Timing) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let stop = CancellationToken::new();
        let (settings, stopped) = (settings(folder.path()), stop.clone());
        let (bound, address) = tokio::sync::oneshot::channel();
        let served = runtime.spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            bound.send(listener.local_addr().unwrap()).unwrap();
            control_plane::serve_with(listener, settings, timing, stopped).await
        });
        Self {
            address: address.await.unwrap(),
            stop,
            runtime: Running(Some(runtime)),
            served,
            folder,
            http: reqwest::Client::builder()
                .timeout(DEADLINE)
                .build()
                .unwrap(),
        }
    }

    /// Ends every task where it stands, as a killed process does, and leaves the files.
    pub(crate) async fn kill(self) -> TempDir {
        let mut running = self.runtime;
        let runtime = running.0.take().unwrap();
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(DEADLINE))
            .await
            .unwrap();
        self.folder
    }

    /// Killed, and started again on the same files.
    pub(super) async fn restarted(self) -> Self {
        Self::start_on(self.kill().await, Timing::default()).await
    }

    /// Gives the stop signal.
    pub(super) fn cancel(&self) {
        self.stop.cancel();
    }

    /// Stops it as a signal does.
    pub(crate) async fn stop(self) -> TempDir {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.served)
            .await
            .expect("it stops in time")
            .unwrap()
            .unwrap();
        self.folder
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<Value>,
    ) -> Response {
        let mut request = self
            .http
            .request(method, format!("http://{}{path}", self.address))
            .bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Response {
        self.send(Method::GET, path, token, None).await
    }

    pub(crate) async fn post(&self, path: &str, token: &str, body: Value) -> Response {
        self.send(Method::POST, path, token, Some(body)).await
    }

    pub(super) fn raw(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("http://{}{path}", self.address))
    }

    pub(crate) async fn create(&self) -> Gitspace {
        let response = self.post("/v1/gitspaces", USER, new_gitspace()).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        response.json().await.unwrap()
    }

    pub(super) async fn show(&self, gitspace: &Gitspace) -> Gitspace {
        let response = self
            .get(&format!("/v1/gitspaces/{}", gitspace.id), USER)
            .await;
        assert_eq!(response.status(), StatusCode::OK);
        response.json().await.unwrap()
    }

    pub(crate) async fn act(&self, gitspace: &Gitspace, action: &str) -> Response {
        let path = format!("/v1/gitspaces/{}/{action}", gitspace.id);
        self.send(Method::POST, &path, USER, None).await
    }

    pub(crate) async fn delete(&self, gitspace: &Gitspace) -> Response {
        let path = format!("/v1/gitspaces/{}", gitspace.id);
        self.send(Method::DELETE, &path, USER, None).await
    }

    pub(super) async fn feed(&self, epoch: &str, after: u64, wait: u64) -> Feed {
        let path = format!("/v1/feed?epoch={epoch}&after={after}&wait={wait}");
        let response = self.get(&path, GATEWAY).await;
        assert_eq!(response.status(), StatusCode::OK);
        response.json().await.unwrap()
    }

    /// What a gateway gets that had `known`.
    pub(super) async fn feed_after(&self, known: &Feed) -> Feed {
        let run = known.run.as_deref().unwrap();
        let (epoch, after) = (&known.epoch, known.revision);
        let path = format!("/v1/feed?epoch={epoch}&run={run}&after={after}");
        self.get(&path, GATEWAY).await.json().await.unwrap()
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A gitspace that runs.
    pub(crate) async fn running(&self, delegate: &Delegate) -> Gitspace {
        let gitspace = self.create().await;
        delegate.bring_up(self).await;
        let shown = self.show(&gitspace).await;
        assert_eq!(shown.state, State::Running);
        shown
    }
}

pub(crate) fn new_gitspace() -> Value {
    json!({"name": "api", "repository": "https://git.test/a/b.git",
           "ports": [{"port": 3000}, {"port": 8080, "visibility": "public"}]})
}

/// The status and reason of a refusal, after a look at its form.
pub(super) async fn refusal(response: Response) -> (u16, String, String) {
    let status = response.status().as_u16();
    let media_type = response.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(media_type, "application/problem+json");
    let problem: Problem = response.json().await.unwrap();
    assert_eq!(problem.status, status);
    (status, problem.reason, problem.detail.unwrap_or_default())
}

/// A delegate that registered.
pub(crate) struct Delegate {
    pub(super) id: String,
}

impl Delegate {
    pub(crate) async fn register(plane: &Plane, name: &str, runner: &str) -> Self {
        let body = json!({"name": name, "capacity": 4, "runner": runner});
        let response = plane.post("/v1/delegates", DELEGATE, body).await;
        assert_eq!(response.status(), StatusCode::OK);
        let registered: Registered = response.json().await.unwrap();
        Self { id: registered.id }
    }

    pub(super) async fn acquire(&self, plane: &Plane, wait: u64) -> Option<Task> {
        let path = format!("/v1/delegates/{}/acquire?wait={wait}", self.id);
        let response = plane.send(Method::POST, &path, DELEGATE, None).await;
        match response.status() {
            StatusCode::OK => Some(response.json().await.unwrap()),
            StatusCode::NO_CONTENT => None,
            other => panic!("acquire was answered with {other}"),
        }
    }

    /// The next task, which must be of this kind.
    pub(super) async fn expect(&self, plane: &Plane, expected: &str) -> Task {
        let task = self
            .acquire(plane, 9)
            .await
            .unwrap_or_else(|| panic!("no {expected} task"));
        assert_eq!(kind(&task), expected);
        task
    }

    /// Takes the next task, which must be of this kind, and does it.
    pub(super) async fn perform(&self, plane: &Plane, expected: &str) -> Task {
        let task = self.expect(plane, expected).await;
        let response = result(plane, &task, done(&task)).await;
        assert_eq!(response.status(), StatusCode::OK);
        task
    }

    pub(super) async fn bring_up(&self, plane: &Plane) {
        self.perform(plane, "vm.setup").await;
        self.perform(plane, "agent.start").await;
    }
}

pub(super) fn kind(task: &Task) -> &'static str {
    match task.work {
        Work::VmSetup(_) => "vm.setup",
        Work::VmSuspend(_) => "vm.suspend",
        Work::VmDestroy(_) => "vm.destroy",
        Work::AgentStart(_) => "agent.start",
        Work::AgentStop(_) => "agent.stop",
    }
}

/// What a delegate that did the task answers.
pub(super) fn done(task: &Task) -> Value {
    let told = match &task.work {
        Work::VmSetup(_) => Done {
            address: Some("127.0.0.9".parse().unwrap()),
            ..Done::default()
        },
        Work::AgentStart(start) => Done {
            ide_port: Some(40_000),
            ide_path: Some("/?folder=/work".into()),
            ports: start
                .ports
                .iter()
                .map(|port| (port.port, port.port + 10_000))
                .collect(),
            ..Done::default()
        },
        _ => Done::default(),
    };
    let mut value = serde_json::to_value(told).unwrap();
    value["outcome"] = "done".into();
    value
}

pub(super) fn failed(message: &str) -> Value {
    json!({"outcome": "failed", "message": message})
}

/// Sends a task's result under its lease.
pub(super) async fn result(plane: &Plane, task: &Task, mut outcome: Value) -> Response {
    outcome["lease"] = task.lease.clone().into();
    plane
        .post(&format!("/v1/tasks/{}/result", task.id), DELEGATE, outcome)
        .await
}
