//! The demo, end to end: the real program, all roles in it, a real repository, a client that trusts the development CA.
//!
//! Not here: a browser (`tests/browser`), the make targets around it (`.ci/demo`).

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use futures_util::SinkExt;
use reqwest::{StatusCode, Url, header, redirect::Policy};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{log_file, secret};

const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// A demo under way.
pub(crate) struct Demo {
    child: Child,
    pub(crate) ready: Value,
    folder: tempfile::TempDir,
}

/// What a demo left when it was stopped.
pub(crate) struct Stopped {
    pub(crate) status: ExitStatus,
    pub(crate) words: String,
    pub(crate) files: Vec<PathBuf>,
}

impl Demo {
    /// Returns when it says that it is ready.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_cde-gateway"))
            .args(["demo", "--json"])
            .args(arguments)
            .env("TMPDIR", folder.path())
            .env_remove("CDE_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let read = timeout(READY_WITHIN, output.read_line(&mut line)).await;
        let told = read.is_ok_and(|read| read.is_ok()) && !line.is_empty();
        if !told {
            let _ = child.start_kill();
            let mut words = String::new();
            let mut stderr = child.stderr.take().unwrap();
            stderr.read_to_string(&mut words).await.unwrap();
            panic!("the demo is not ready: {words}");
        }
        let ready = serde_json::from_str(&line).unwrap();
        let demo = Self {
            child,
            ready,
            folder,
        };
        demo.note_secrets();
        demo
    }

    /// Its tickets, tokens and keys.
    fn note_secrets(&self) {
        for url in ["url", "port_url"]
            .iter()
            .filter_map(|key| self.ready[key].as_str())
        {
            for (_, ticket) in Url::parse(url).unwrap().query_pairs() {
                secret(ticket);
            }
        }
        for file in std::fs::read_dir(self.text("state_dir")).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|end| end == "token") {
                secret(std::fs::read_to_string(path).unwrap());
            }
        }
    }

    pub(crate) fn text(&self, key: &str) -> &str {
        self.ready[key]
            .as_str()
            .unwrap_or_else(|| panic!("{key} is missing in {}", self.ready))
    }

    /// What Ctrl-C does.
    pub(crate) async fn stop(mut self) -> Stopped {
        // It goes with the demo.
        let access = Path::new(self.text("state_dir")).with_file_name("access.log");
        std::fs::copy(access, log_file("demo-access")).unwrap();
        let pid = Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        let mut words = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        let ended = timeout(STOP_WITHIN, async {
            stderr.read_to_string(&mut words).await.unwrap();
            self.child.wait().await.unwrap()
        });
        let status = ended.await.expect("the demo stops in time");
        std::fs::write(log_file("demo"), &words).unwrap();
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let files = entries.map(|entry| entry.unwrap().path()).collect();
        Stopped {
            status,
            words,
            files,
        }
    }

    /// Exchanges the ticket in `url` and loads the page behind it.
    async fn page(&self, url: &str) -> String {
        let url = Url::parse(url).unwrap();
        let http = self.client(&url, Ipv4Addr::LOCALHOST.into());
        let navigate = |url| {
            http.get(url)
                .header(header::ACCEPT, "text/html")
                .header("sec-fetch-mode", "navigate")
        };
        let exchanged = navigate(url.clone()).send().await.unwrap();
        assert_eq!(exchanged.status(), StatusCode::SEE_OTHER);
        let of = |name| exchanged.headers()[name].to_str().unwrap();
        let cookie = of(header::SET_COOKIE).split(';').next().unwrap();
        secret(cookie.split_once('=').unwrap().1);
        let next = url.join(of(header::LOCATION)).unwrap();
        assert!(!next.as_str().contains("token"), "{next}");
        let page = navigate(next)
            .header(header::COOKIE, cookie)
            .send()
            .await
            .unwrap();
        assert_eq!(page.status(), StatusCode::OK);
        let again = navigate(url).send().await.unwrap();
        assert_eq!(
            again.status(),
            StatusCode::UNAUTHORIZED,
            "a ticket works once"
        );
        page.text().await.unwrap()
    }

    fn client(&self, url: &Url, address: IpAddr) -> reqwest::Client {
        // The program does so at its start; tests share one process.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let pem = std::fs::read(self.text("ca")).unwrap();
        let here = SocketAddr::new(address, url.port_or_known_default().unwrap());
        reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()])
            .resolve(url.host_str().unwrap(), here)
            .no_proxy()
            .redirect(Policy::none())
            .timeout(Duration::from_secs(10))
            .build()
            .unwrap()
    }

    fn gateway_port(&self) -> u16 {
        Url::parse(self.text("gateway"))
            .unwrap()
            .port_or_known_default()
            .unwrap()
    }
}

fn has_node() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join("node").is_file())
}

/// Processes whose command line or folder names `folder`.
fn processes_in(folder: &Path) -> Vec<String> {
    let names = |path: PathBuf| {
        let command = std::fs::read(path.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let works_in =
            std::fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
        (works_in || command.contains(folder.to_str().unwrap())).then_some(command)
    };
    let processes = std::fs::read_dir("/proc").unwrap();
    processes
        .filter_map(|entry| names(entry.unwrap().path()))
        .collect()
}

#[tokio::test]
async fn a_gitspace_takes_the_whole_road_to_its_ide() {
    let demo = Demo::start(&[]).await;
    let page = demo.page(demo.text("url")).await;
    assert!(page.to_lowercase().contains("<html"), "{page}");
    if has_node() {
        let page = demo.page(demo.text("port_url")).await;
        assert!(page.contains("Hello, admin"), "{page}");
    }
    let port = demo.gateway_port();
    let folder = PathBuf::from(demo.text("state_dir"));
    let folder = folder.parent().unwrap().to_owned();
    assert!(!processes_in(&folder).is_empty());

    let stopped = demo.stop().await;
    assert!(stopped.status.success(), "{}", stopped.words);
    assert!(stopped.files.is_empty(), "left: {:?}", stopped.files);
    assert!(processes_in(&folder).is_empty());
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    assert!(
        TcpStream::connect(local).is_err() || port == 8443,
        "{local} is still open"
    );
}

#[tokio::test]
async fn typing_in_a_terminal_behind_the_gateways_back_is_why_a_gitspace_is_awake() {
    let demo = Demo::start(&[]).await;
    let token = std::fs::read_to_string(demo.text("admin_token_file")).unwrap();
    let admin = demo.text("admin");
    let get = async |path: &str| -> Value {
        let call = reqwest::Client::new().get(format!("{admin}{path}"));
        let answer = call.bearer_auth(token.trim()).send().await.unwrap();
        answer.json().await.unwrap()
    };
    let routes = get("/v1/routes").await;
    let ide = routes[0]["ports"][0]["upstream"].as_str().unwrap();
    let terminal = format!("ws://{ide}/ws");
    let (mut shell, _) = tokio_tungstenite::connect_async(terminal).await.unwrap();
    let typed = timeout(READY_WITHIN, async {
        loop {
            shell.send(Message::binary("\n")).await.unwrap();
            let used = get("/v1/activity").await;
            let last = used[0]["last"].as_array().unwrap();
            if last.iter().any(|last| last["kind"] == "terminal") {
                return used[0].clone();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let typed = typed.await.expect("the gateway learns of it in time");
    assert_eq!(typed["gitspace"], demo.text("gitspace"));
    let why = Command::new(env!("CARGO_BIN_EXE_cde-gateway"))
        .args(["session", "--url", admin, "--token-file"])
        .args([demo.text("admin_token_file"), "why"])
        .output();
    let why = String::from_utf8(why.await.unwrap().stdout).unwrap();
    assert!(why.contains("somebody typed at a terminal"), "{why}");
    assert!(demo.stop().await.status.success());
}

#[tokio::test]
async fn the_repository_that_was_named_is_cloned() {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("Some.Thing");
    let git = |arguments: &[&str]| {
        let status = std::process::Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@localhost"])
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .current_dir(&repository)
            .status();
        assert!(status.unwrap().success(), "{arguments:?}");
    };
    std::fs::create_dir(&repository).unwrap();
    std::fs::write(repository.join("only-here.txt"), "x").unwrap();
    git(&["init", "--quiet"]);
    git(&["add", "--all"]);
    git(&["commit", "--quiet", "--message=one"]);
    let demo = Demo::start(&["--repo", repository.to_str().unwrap()]).await;
    assert!(demo.text("gitspace").starts_with("some-thing-"));
    assert!(demo.ready.get("port_url").is_none(), "{}", demo.ready);
    let state = PathBuf::from(demo.text("state_dir"));
    let clones = walkdir::WalkDir::new(state.join("instances"));
    let found = clones
        .into_iter()
        .any(|entry| entry.unwrap().file_name() == "only-here.txt");
    assert!(found, "the file is not in the instance");
    assert!(demo.stop().await.status.success());
    assert!(repository.join("only-here.txt").exists());
}

#[tokio::test]
async fn a_taken_port_is_replaced() {
    // Another demo of these tests may have it for a moment and let it go; whoever has it for longer keeps it.
    let mut taken = TcpListener::bind("127.0.0.1:8443");
    for _ in 0..100 {
        if taken.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            taken = TcpListener::bind("127.0.0.1:8443");
        }
    }
    let demo = Demo::start(&[]).await;
    assert_ne!(demo.gateway_port(), 8443);
    demo.page(demo.text("url")).await;
    assert!(demo.stop().await.status.success());
    drop(taken);
}

#[tokio::test]
async fn both_loopback_addresses_are_served() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("this machine has no [::1]: nothing to see here");
        return;
    }
    let demo = Demo::start(&[]).await;
    let url = Url::parse(demo.text("url")).unwrap();
    for address in [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv6Addr::LOCALHOST.into(),
    ] {
        let mut bare = url.clone();
        bare.set_query(None);
        let answer = demo.client(&url, address).get(bare).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{address}");
    }
    assert!(demo.stop().await.status.success());
}

#[tokio::test]
async fn the_steps_are_shown_with_their_times() {
    let stopped = Demo::start(&[]).await.stop().await;
    let steps: Vec<(f64, &str)> = stopped
        .words
        .lines()
        .filter_map(|line| {
            let (seconds, rest) = line.trim_start().split_once(" s  ")?;
            Some((seconds.parse().ok()?, rest.split_whitespace().next()?))
        })
        .collect();
    for step in [
        "roles",
        "gitspace",
        "vm_setup_completed",
        "agent_start_completed",
        "ide_reached",
        "ready",
        "stopped",
    ] {
        assert!(
            steps.iter().any(|(_, name)| *name == step),
            "{step}: {}",
            stopped.words
        );
    }
    assert!(steps.is_sorted_by(|a, b| a.0 <= b.0), "{}", stopped.words);
}

#[tokio::test]
async fn a_repository_that_does_not_exist_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_cde-gateway"))
        .args(["demo", "--repo", "/no/such/repository"])
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(
        words.contains("\"/no/such/repository\" is neither a folder nor a URL"),
        "{words}"
    );
}

#[tokio::test]
async fn a_clone_that_fails_ends_the_demo_with_the_reason() {
    let empty = tempfile::tempdir().unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_cde-gateway"))
        .args(["demo", "--repo", empty.path().to_str().unwrap()])
        .env("TMPDIR", temporary.path())
        .output()
        .await
        .unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(
        words.contains("error: the gitspace did not start"),
        "{words}"
    );
    assert_eq!(
        std::fs::read_dir(temporary.path()).unwrap().count(),
        0,
        "{words}"
    );
}
