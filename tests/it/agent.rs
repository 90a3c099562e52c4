//! The agent over its API: repository, IDE, devcontainer.json. git and shells are real; code-server is played by scripts here and
//! real in tests/browser.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use cde_gateway::{
    agent::{self, Settings},
    api::{Secret, agent::Started, problem::Problem},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::support::secret;

const DEADLINE: Duration = Duration::from_secs(20);
const TOKEN: &str = "agent-token-for-tests";

struct Agent {
    address: SocketAddr,
    folder: tempfile::TempDir,
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl Agent {
    async fn start(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home");
        std::fs::create_dir(&home).unwrap();
        let mut settings = Settings::new(
            Secret::new(secret(TOKEN)),
            home,
            Some("/nonexistent/code-server".into()),
        );
        change(&mut settings);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(agent::serve(listener, settings, stop.clone()));
        Self {
            address,
            folder,
            stop,
            task,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A repository with these files, committed.
    fn repository(&self, files: &[(&str, &str)]) -> PathBuf {
        let path = self.path("origin/api");
        for (name, text) in files.iter().chain(&[("README.md", "hello\n")]) {
            let file = path.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        let git = |arguments: &[&str]| {
            let identity = [
                "-c",
                "user.name=t",
                "-c",
                "user.email=t@t.test",
                "-c",
                "init.defaultBranch=main",
            ];
            let done = Command::new("git")
                .args(identity)
                .args(arguments)
                .current_dir(&path)
                .output()
                .unwrap();
            assert!(done.status.success(), "{done:?}");
        };
        git(&["init", "-q"]);
        git(&["add", "."]);
        git(&["commit", "-qm", "first"]);
        path
    }

    async fn ask(&self, question: Value) -> Result<Started, Problem> {
        let response = reqwest::Client::new()
            .post(format!("http://{}/start", self.address))
            .bearer_auth(TOKEN)
            .timeout(DEADLINE)
            .json(&question)
            .send()
            .await
            .unwrap();
        if response.status().is_success() {
            Ok(response.json().await.unwrap())
        } else {
            Err(response.json().await.unwrap())
        }
    }

    async fn get(&self, path: &str) -> Value {
        let url = format!("http://{}{path}", self.address);
        reqwest::Client::new()
            .get(url)
            .bearer_auth(TOKEN)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.task)
            .await
            .expect("the agent stops")
            .unwrap()
            .unwrap();
    }
}

fn question(repository: &Path) -> Value {
    json!({ "gitspace": "api-k3x9q2", "repository": repository, "branch": null, "ide": "terminal", "ports": [], "trust": false })
}

fn script(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

async fn wait_for(path: &Path) -> String {
    let found = async {
        loop {
            match std::fs::read_to_string(path) {
                Ok(text) if text.ends_with('\n') => return text,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(DEADLINE, found)
        .await
        .unwrap_or_else(|_| panic!("{} was not written", path.display()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_clones_and_brings_up_the_ide_and_another_one_changes_nothing() {
    let agent = Agent::start(|_| {}).await;
    let repository = agent.repository(&[]);
    let started = agent.ask(question(&repository)).await.unwrap();
    assert_eq!(started.lines, ["Repository cloned", "IDE terminal is up"]);
    assert!(agent.path("home/api/README.md").exists());
    let page = reqwest::get(format!("http://127.0.0.1:{}/", started.ide_port))
        .await
        .unwrap();
    assert_eq!(page.status(), 200);
    let again = agent.ask(question(&repository)).await.unwrap();
    assert_eq!(again.ide_port, started.ide_port);
    assert_eq!(agent.get("/status").await, json!({ "running": true }));
    agent.stop().await;
    assert!(
        reqwest::get(format!("http://127.0.0.1:{}/", started.ide_port))
            .await
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_wants_its_token() {
    let agent = Agent::start(|_| {}).await;
    for token in ["", "wrong"] {
        let url = format!("http://{}/status", agent.address);
        assert_eq!(
            reqwest::Client::new()
                .get(url)
                .bearer_auth(token)
                .send()
                .await
                .unwrap()
                .status(),
            401
        );
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_that_fails_says_why_leaves_nothing_and_can_be_tried_again() {
    let agent = Agent::start(|_| {}).await;
    let missing = agent.path("origin/api");
    let problem = agent.ask(question(&missing)).await.unwrap_err();
    assert_eq!(problem.reason, "clone-failed");
    assert!(
        problem.title.contains("does not exist") && problem.title.contains("check the address"),
        "{}",
        problem.title
    );
    assert!(!agent.path("home/api").exists());
    let repository = agent.repository(&[]);
    let mut other = question(&repository);
    other["branch"] = "no-such-branch".into();
    let problem = agent.ask(other).await.unwrap_err();
    assert!(
        problem.title.contains("no-such-branch"),
        "{}",
        problem.title
    );
    agent.ask(question(&repository)).await.unwrap();
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_repositories_are_refused_before_git_sees_them() {
    let agent = Agent::start(|_| {}).await;
    let mark = agent.path("owned");
    for bad in [
        format!("--upload-pack=touch {}", mark.display()),
        format!("ext::sh -c 'touch {}'", mark.display()),
    ] {
        let problem = agent.ask(question(Path::new(&bad))).await.unwrap_err();
        assert!(
            problem.title.contains("is no repository"),
            "{}",
            problem.title
        );
    }
    assert!(!mark.exists());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_repositorys_command_runs_only_when_it_is_trusted_and_learns_its_port() {
    let agent = Agent::start(|_| {}).await;
    let told = agent.path("told");
    let command = format!(
        "echo $GITSPACE_PORT_3000 $PORT [$CDE_SECRET] >{}",
        told.display()
    );
    let devcontainer = json!({ "forwardPorts": [3000], "postStartCommand": command }).to_string();
    let repository =
        agent.repository(&[(".devcontainer/devcontainer.json", devcontainer.as_str())]);
    let started = agent.ask(question(&repository)).await.unwrap();
    assert!(
        started
            .lines
            .contains(&"postStartCommand was not run: the repository is not trusted".to_owned())
    );
    let stopped = reqwest::Client::new()
        .post(format!("http://{}/stop", agent.address))
        .bearer_auth(TOKEN)
        .send();
    assert_eq!(stopped.await.unwrap().status(), 204);
    assert!(!told.exists());
    let mut trusted = question(&repository);
    trusted["trust"] = true.into();
    let started = agent.ask(trusted).await.unwrap();
    let real = started.ports[&3000];
    assert_eq!(wait_for(&told).await, format!("{real} {real} []\n"));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_code_server_says_how_to_install_it() {
    let agent = Agent::start(|_| {}).await;
    let mut question = question(&agent.repository(&[]));
    question["ide"] = "code-server".into();
    let problem = agent.ask(question).await.unwrap_err();
    assert_eq!(problem.reason, "ide-failed");
    assert!(
        problem.title.contains("npm install -g code-server"),
        "{}",
        problem.title
    );
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ide_that_ends_early_or_stays_silent_is_reported_with_its_last_words() {
    for (text, expected) in [
        (
            "#!/bin/sh\necho no license >&2\nexit 3\n",
            ["exit status: 3", "no license"],
        ),
        (
            "#!/bin/sh\necho thinking\nexec sleep 600\n",
            ["did not answer within 1 s", "thinking"],
        ),
    ] {
        let agent = Agent::start(|settings| {
            settings.ide_within = Duration::from_secs(1);
            settings.code_server = Some(settings.home.join("fake"));
        })
        .await;
        script(&agent.path("home/fake"), text);
        let mut question = question(&agent.repository(&[]));
        question["ide"] = "code-server".into();
        let problem = agent.ask(question).await.unwrap_err();
        for part in expected {
            assert!(problem.title.contains(part), "{part}: {}", problem.title);
        }
        agent.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_cuts_a_clone_short_and_leaves_nothing_half() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let agent = Agent::start(|_| {}).await;
    let mut question = question(Path::new(""));
    question["repository"] = format!("http://{}/api.git", silent.local_addr().unwrap()).into();
    let (problem, ()) = tokio::join!(agent.ask(question), async {
        // git has come as far as asking.
        let _connection = silent.accept().await.unwrap();
        let stopped = reqwest::Client::new()
            .post(format!("http://{}/stop", agent.address))
            .bearer_auth(TOKEN)
            .timeout(DEADLINE)
            .send();
        assert_eq!(stopped.await.unwrap().status(), 204);
    });
    assert_eq!(problem.unwrap_err().reason, "interrupted");
    assert!(!agent.path("home/api").exists());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_of_a_repository_is_waited_for_only_so_long() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let agent = Agent::start(|settings| settings.clone_within = Duration::from_secs(1)).await;
    let mut question = question(Path::new(""));
    let address = silent.local_addr().unwrap();
    question["repository"] = format!("http://ada:s3cret@{address}/api.git").into();
    let problem = agent.ask(question).await.unwrap_err();
    let told = problem.title;
    assert!(
        told.contains("within 1 s") && told.contains("***@"),
        "{told}"
    );
    assert!(!told.contains("s3cret"), "{told}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ide_gets_a_clean_environment_and_its_end_is_told() {
    let agent = Agent::start(|settings| {
        settings.code_server = Some(settings.home.join("fake"));
    })
    .await;
    // It answers /healthz once, tells its environment, and ends when asked for anything else.
    script(&agent.path("home/fake"), FAKE_CODE_SERVER);
    let mut question = question(&agent.repository(&[]));
    question["ide"] = "code-server".into();
    question["ports"] = json!([{ "port": 3000, "visibility": "private" }]);
    let started = agent.ask(question).await.unwrap();
    let folder = agent.path("home/api");
    let expected = format!("/?folder={}", folder.display());
    assert_eq!(started.ide_path.as_deref(), Some(expected.as_str()));
    let environment = wait_for(&agent.path("home/environment")).await;
    for name in environment
        .lines()
        .filter_map(|line| line.split('=').next())
    {
        // code-server would listen on PORT, which is the app's.
        let foreign = name.starts_with("CDE_") || name.starts_with("CARGO") || name == "PORT";
        assert!(!foreign, "{name}");
    }
    assert!(environment.contains("GITSPACE_PORT_3000="));
    let quit = reqwest::get(format!("http://127.0.0.1:{}/quit", started.ide_port));
    let _ = quit.await;
    let ended = async {
        loop {
            let status = agent.get("/status").await;
            if status["running"] == false {
                return status["ended"].clone();
            }
        }
    };
    let ended = tokio::time::timeout(DEADLINE, ended).await.unwrap();
    assert_eq!(ended, "code-server ended with exit status: 7");
    agent.stop().await;
}

const FAKE_CODE_SERVER: &str = r#"#!/usr/bin/env node
const port = process.argv.find((it) => it.startsWith("--bind-addr=")).split(":").pop();
const environment = Object.entries(process.env).map(([name, value]) => `${name}=${JSON.stringify(value)}\n`);
require("fs").writeFileSync(process.env.HOME + "/environment", environment.join(""));
require("http")
  .createServer((request, response) => request.url === "/healthz" ? response.end("{}") : process.exit(7))
  .listen(port, "127.0.0.1");
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_another_user_can_be_cloned() {
    if !rustix::process::geteuid().is_root() {
        // Only root can give a folder away.
        return;
    }
    let agent = Agent::start(|_| {}).await;
    let repository = agent.repository(&[]);
    let given = Command::new("chown")
        .args(["-R", "1234:1234"])
        .arg(&repository)
        .status();
    assert!(given.unwrap().success());
    agent.ask(question(&repository)).await.unwrap();
    assert!(agent.path("home/api/README.md").exists());
    agent.stop().await;
}
