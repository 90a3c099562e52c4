//! The runner with the process driver: real agents, real git, real processes. What the agent does is tested in `agent`.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use cde_gateway::{
    api::{
        Secret,
        activity::Typed,
        agent::Logs,
        problem::Problem,
        runner::{PoolOwner, StepDone},
    },
    config,
    runner::{self, Settings},
};
use futures_util::{SinkExt, StreamExt};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::support::secret;

const DEADLINE: Duration = Duration::from_secs(30);
const TOKEN: &str = "runner-token-for-tests";
const GITSPACE: &str = "api-k3x9q2";
const INSTANCE: &str = "api-k3x9q2.aaaaaa";

struct Runner {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<Result<(), runner::Error>>,
}

impl Runner {
    async fn start(folder: &Path) -> Self {
        Self::with(folder, env!("CARGO_BIN_EXE_cde-gateway").into()).await
    }

    async fn with(folder: &Path, executable: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let settings = Settings {
            token: Secret::new(secret(TOKEN)),
            driver: config::Driver::Process,
            instances: folder.join("instances"),
            identity: folder.join("runner.id"),
            executable,
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(runner::serve(listener, settings, stop.clone()));
        Self {
            address,
            stop,
            task,
        }
    }

    async fn post(&self, path: &str, body: Value) -> Result<StepDone, Problem> {
        self.ask(path, body).await
    }

    /// What the agent said from a line on.
    async fn said(&self, after: Option<u64>) -> Logs {
        let mut question = of();
        question["after"] = json!(after);
        self.ask("/said", question).await.unwrap()
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        body: Value,
    ) -> Result<T, Problem> {
        let response = reqwest::Client::new()
            .post(format!("http://{}{path}", self.address))
            .bearer_auth(TOKEN)
            .timeout(DEADLINE)
            .json(&body)
            .send()
            .await
            .unwrap();
        if response.status().is_success() {
            Ok(response.json().await.unwrap())
        } else {
            Err(response.json().await.unwrap())
        }
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        let url = format!("http://{}{path}", self.address);
        let call = reqwest::Client::new().get(url).bearer_auth(TOKEN).send();
        call.await.unwrap().json().await.unwrap()
    }

    async fn identity(&self) -> PoolOwner {
        self.get("/pool_owner").await
    }

    /// Sets up and starts; the answer of the start.
    async fn bring_up(&self, repository: &Path) -> StepDone {
        self.post("/setup", of()).await.unwrap();
        self.post("/step", start(repository)).await.unwrap()
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.task)
            .await
            .expect("the runner stops")
            .unwrap()
            .unwrap();
    }
}

fn of() -> Value {
    json!({ "gitspace": GITSPACE, "instance": INSTANCE })
}

fn destroy(delete_data: bool) -> Value {
    json!({ "gitspace": GITSPACE, "instance": INSTANCE, "delete_data": delete_data })
}

fn start(repository: &Path) -> Value {
    json!({
        "step": "start", "gitspace": GITSPACE, "instance": INSTANCE, "repository": repository, "branch": null,
        "ide": "terminal", "ports": [{ "port": 3000, "visibility": "private" }], "trust": true
    })
}

fn stop() -> Value {
    json!({ "step": "stop", "gitspace": GITSPACE, "instance": INSTANCE })
}

/// A repository whose start command is this.
fn repository(folder: &Path, command: &str) -> PathBuf {
    let path = folder.join("origin/api");
    std::fs::create_dir_all(&path).unwrap();
    let devcontainer = json!({ "postStartCommand": command }).to_string();
    std::fs::write(path.join(".devcontainer.json"), devcontainer).unwrap();
    for arguments in [
        &["init", "-q"][..],
        &["add", "."],
        &["commit", "-qm", "first"],
    ] {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@t.test"];
        let git = Command::new("git")
            .args(identity)
            .args(arguments)
            .current_dir(&path)
            .output();
        let git = git.unwrap();
        assert!(git.status.success(), "{git:?}");
    }
    path
}

/// Processes whose file `name` in /proc holds `text`.
fn processes(name: &str, text: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let found = std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        found
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    })
    .collect()
}

/// All processes of instances below `folder`.
fn marked(folder: &Path) -> Vec<i32> {
    let folder = folder.join("instances").canonicalize().unwrap();
    processes(
        "environ",
        &format!("GITSPACE_INSTANCE={}", folder.display()),
    )
}

async fn answers(port: u16) -> bool {
    let url = format!("http://127.0.0.1:{port}/healthz");
    let call = reqwest::Client::new()
        .get(url)
        .timeout(Duration::from_secs(2));
    call.send()
        .await
        .is_ok_and(|answer| answer.status().is_success())
}

async fn wait_until<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let holds = async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, holds)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_but_health_wants_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let runner = Runner::start(folder.path()).await;
    let client = reqwest::Client::new();
    let url = |path: &str| format!("http://{}{path}", runner.address);
    for path in ["/setup", "/step", "/said", "/suspend", "/destroy"] {
        let call = client.post(url(path)).bearer_auth("wrong").json(&of());
        assert_eq!(call.send().await.unwrap().status(), 401, "{path}");
    }
    for path in ["/pool_owner", "/typed", "/metrics"] {
        assert_eq!(client.get(url(path)).send().await.unwrap().status(), 401);
    }
    assert_eq!(
        client.get(url("/healthz")).send().await.unwrap().status(),
        200
    );
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_keeps_its_identity() {
    let folder = tempfile::tempdir().unwrap();
    let runner = Runner::start(folder.path()).await;
    let first = runner.identity().await;
    assert!(first.host_bound && first.driver == "process" && !first.runner.is_empty());
    runner.stop().await;
    let runner = Runner::start(folder.path()).await;
    assert_eq!(runner.identity().await.runner, first.runner);
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_comes_goes_comes_back_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let runner = Runner::start(folder.path()).await;
    // One loses its parent and session, one its environment too.
    let seconds = format!("60.{:07}", std::process::id());
    let sleep = format!("sleep\0{seconds}");
    let repository = repository(
        folder.path(),
        &format!(
            "setsid sleep {seconds} & env -i PATH=$PATH setsid -f sleep {seconds}; touch ../up; wait"
        ),
    );
    let up = runner.bring_up(&repository).await;
    let port = up.done.ide_port.unwrap();
    assert!(answers(port).await);
    let home = folder.path().join("instances").join(GITSPACE);
    wait_until("the start command runs", async || home.join("up").exists()).await;
    wait_until("both sleep", async || {
        processes("cmdline", &sleep).len() == 2
    })
    .await;
    let agents = processes("cmdline", &home.display().to_string()).len();

    // The same again changes nothing.
    let again = runner.bring_up(&repository).await;
    assert_eq!(again.done, up.done);
    assert_eq!(
        processes("cmdline", &home.display().to_string()).len(),
        agents
    );

    // Suspended: no process, all files; so again.
    std::fs::write(home.join("api/work"), "unsaved").unwrap();
    for _ in 0..2 {
        runner.post("/suspend", of()).await.unwrap();
        assert_eq!(marked(folder.path()), [0; 0]);
        assert_eq!(processes("cmdline", &sleep), [0; 0]);
        assert!(!answers(port).await && home.join("api/work").exists());
    }

    // Back on its ports with its files.
    let back = runner.bring_up(&repository).await;
    assert_eq!(back.done, up.done);
    assert_eq!(back.lines[0], "Repository was there");

    // Destroyed: data kept first, then not; so again.
    for delete_data in [false, true, true] {
        runner.post("/destroy", destroy(delete_data)).await.unwrap();
        assert_eq!(marked(folder.path()), [0; 0]);
        assert_eq!(home.join("api/work").exists(), !delete_data);
    }
    let left = std::fs::read_dir(folder.path().join("instances")).unwrap();
    assert_eq!(left.count(), 0);
    assert_eq!(processes("cmdline", &sleep), [0; 0]);
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_comes_back_on_its_ports() {
    let folder = tempfile::tempdir().unwrap();
    let runner = Runner::start(folder.path()).await;
    let repository = repository(folder.path(), "exec sleep 60");
    let port = runner.bring_up(&repository).await.done.ide_port.unwrap();
    let home = folder.path().join("instances").join(GITSPACE);
    let agent = processes("cmdline", &format!("agent\0--home\0{}", home.display()));
    let agent = Pid::from_raw(agent[0]).unwrap();
    kill_process(agent, Signal::KILL).unwrap();
    wait_until("the old one is gone", async || !answers(port).await).await;
    wait_until("another one answers", async || answers(port).await).await;
    runner.stop().await;
    assert_eq!(marked(folder.path()), [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stopped_or_suspended_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let runner = Runner::start(folder.path()).await;
    let repository = repository(folder.path(), "exec sleep 60");
    let port = runner.bring_up(&repository).await.done.ide_port.unwrap();
    runner.post("/step", stop()).await.unwrap();
    runner.post("/step", stop()).await.unwrap();
    assert!(!answers(port).await && !marked(folder.path()).is_empty());
    runner.post("/suspend", of()).await.unwrap();
    runner.stop().await;
    let runner = Runner::start(folder.path()).await;
    // It has looked after its instances once when it has answered this, or does so at the end of the stop.
    runner.identity().await;
    runner.stop().await;
    assert_eq!(marked(folder.path()), [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ran_when_the_runner_was_killed_runs_again_on_its_ports() {
    let folder = tempfile::tempdir().unwrap();
    let runner = Runner::start(folder.path()).await;
    let repository = repository(folder.path(), "exec sleep 60");
    let up = runner.bring_up(&repository).await;
    let port = up.done.ide_port.unwrap();
    // As a kill does: nothing in it gets to run again.
    runner.task.abort();
    wait_until("agents end with their runner", async || {
        !answers(port).await
    })
    .await;
    let runner = Runner::start(folder.path()).await;
    wait_until("it is brought up again", async || answers(port).await).await;
    let again = runner.bring_up(&repository).await;
    assert_eq!(again.done, up.done);
    runner.stop().await;
    assert!(!answers(port).await);
    assert_eq!(marked(folder.path()), [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_clone() {
    let folder = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let runner = Runner::start(folder.path()).await;
    runner.post("/setup", of()).await.unwrap();
    let mut question = start(Path::new(""));
    question["repository"] = format!("http://{}/api.git", silent.local_addr().unwrap()).into();
    let (cut, ()) = tokio::join!(runner.post("/step", question), async {
        let _connection = silent.accept().await.unwrap();
        runner.stop.cancel();
    });
    assert_eq!(cut.unwrap_err().status, 422);
    runner.stop().await;
    assert_eq!(marked(folder.path()), [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_says_is_told_while_it_works_and_no_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let runner = Runner::start(folder.path()).await;
    let Err(unknown) = runner.ask::<Logs>("/said", of()).await else {
        panic!("an instance that is not there said something");
    };
    assert_eq!(unknown.status, 422);
    runner.post("/setup", of()).await.unwrap();
    let mut question = start(Path::new(""));
    let address = silent.local_addr().unwrap();
    question["repository"] = format!("http://ada:word@{address}/api.git").into();
    let (cut, ()) = tokio::join!(runner.post("/step", question), async {
        let _connection = silent.accept().await.unwrap();
        wait_until("git says something", async || {
            !runner.said(Some(0)).await.lines.is_empty()
        })
        .await;
        let said = runner.said(Some(0)).await;
        assert!(said.lines[0].starts_with("git: Cloning into"), "{said:?}");
        let now = runner.said(None).await;
        assert!(now.lines.is_empty() && now.next >= said.next, "{now:?}");
        assert!(!format!("{said:?}").contains("word"), "{said:?}");
        runner.stop.cancel();
    });
    assert!(!cut.unwrap_err().title.contains("word"));
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_did_is_told_in_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let runner = Runner::start(folder.path()).await;
    let repository = repository(folder.path(), "echo from the repository; exec sleep 60");
    let done = runner.bring_up(&repository).await;
    wait_until("its command says something", async || {
        let said = runner.said(Some(0)).await.lines;
        said.iter()
            .any(|line| line.ends_with(": from the repository"))
    })
    .await;
    let said = runner.said(Some(0)).await.lines;
    let mut steps = said.iter().filter(|line| done.lines.contains(line));
    assert!(
        done.lines.iter().all(|line| steps.next() == Some(line)),
        "{said:?}"
    );
    assert_eq!(done.lines[0], "Repository cloned");
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_say_what_was_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let runner = Runner::with(folder.path(), "/bin/false".into()).await;
    let problem = runner.post("/setup", of()).await.unwrap_err();
    assert!(problem.title.contains("did not start"), "{}", problem.title);
    let problem = runner
        .post("/step", start(folder.path()))
        .await
        .unwrap_err();
    assert!(
        problem.title.contains("set it up first"),
        "{}",
        problem.title
    );
    runner.stop().await;
    let missing = Runner::with(folder.path(), folder.path().join("nothing")).await;
    let problem = missing.post("/setup", of()).await.unwrap_err();
    assert!(
        problem.title.contains("start an agent"),
        "{}",
        problem.title
    );
    missing.stop().await;
}

/// A call for another gitspace than the usual one.
fn for_other(call: &Value) -> Value {
    let text = call.to_string().replace(GITSPACE, OTHER);
    serde_json::from_str(&text).unwrap()
}

const OTHER: &str = "web-b7n2m4";

#[tokio::test(flavor = "multi_thread")]
async fn typing_in_a_terminal_is_told_and_one_that_is_open_and_prints_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let runner = Runner::start(folder.path()).await;
    let repository = repository(
        folder.path(),
        "script -qfc 'while :; do echo x; touch ../printed; sleep 0.2; done' /dev/null",
    );
    let open = async |port: u16| {
        let url = format!("ws://127.0.0.1:{port}/ws");
        tokio_tungstenite::connect_async(url).await.unwrap().0
    };
    // Both have a terminal that prints, and an open shell with its prompt.
    runner.post("/setup", for_other(&of())).await.unwrap();
    let other = runner.post("/step", for_other(&start(&repository))).await;
    let mut idle = open(other.unwrap().done.ide_port.unwrap()).await;
    let up = runner.bring_up(&repository).await;
    let shell = tokio::sync::Mutex::new(open(up.done.ide_port.unwrap()).await);
    for gitspace in [OTHER, GITSPACE] {
        let printed = folder.path().join(format!("instances/{gitspace}/printed"));
        wait_until("it prints", async || printed.exists()).await;
    }
    let prompt = tokio::time::timeout(DEADLINE, idle.next()).await;
    assert!(prompt.is_ok_and(|message| message.unwrap().is_ok()));
    assert_eq!(runner.get::<Vec<Typed>>("/typed").await, []);
    wait_until("somebody typed", async || {
        let key = Message::binary("\n");
        shell.lock().await.send(key).await.unwrap();
        !runner.get::<Vec<Typed>>("/typed").await.is_empty()
    })
    .await;
    let typed = runner.get::<Vec<Typed>>("/typed").await;
    assert_eq!(typed.len(), 1, "{typed:?}");
    assert_eq!(typed[0].gitspace.as_str(), GITSPACE);
    assert!(typed[0].ago < 30, "{typed:?}");
    // What was suspended is not told of any more.
    runner.post("/suspend", of()).await.unwrap();
    wait_until("it is forgotten", async || {
        runner.get::<Vec<Typed>>("/typed").await.is_empty()
    })
    .await;
    runner.stop().await;
    assert_eq!(marked(folder.path()), [0; 0]);
}
