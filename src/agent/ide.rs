//! The IDE, and the programs of the repository beside it.
//!
//! Everything here gets a clean environment: what the agent was given stays with the agent.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    net::TcpListener,
    process::{Child, Command},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{logs::Log, terminal};
use crate::api::gitspace::Ide;

const TERM_WITHIN: Duration = Duration::from_secs(3);
/// How long to wait for the last words of a program that has ended.
const WORDS_WITHIN: Duration = Duration::from_secs(1);
const LINE_MAX: u64 = 64 * 1024;

/// Why the IDE does not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum IdeError {
    #[error(
        "code-server is not installed in the instance; install it (npm install -g code-server, or \
         tests/browser/install-code-server.sh DIR and CDE_CODE_SERVER=DIR/bin/code-server), or choose the IDE `terminal`"
    )]
    NotInstalled,
    #[error("code-server ended with {status} before it answered; its last words: {words}")]
    Ended { status: String, words: String },
    #[error("code-server did not answer within {seconds} s; its last words: {words}")]
    Silent { seconds: u64, words: String },
    #[error("cannot start the IDE: {0}")]
    Io(#[from] std::io::Error),
}

/// How IDEs are started.
pub(super) struct Start<'a> {
    pub(super) ide: Ide,
    pub(super) title: &'a str,
    pub(super) home: &'a Path,
    pub(super) folder: &'a Path,
    pub(super) environment: &'a [(String, String)],
    /// The port it had before.
    pub(super) port: Option<u16>,
    pub(super) code_server: Option<&'a Path>,
    pub(super) within: Duration,
    pub(super) log: &'a Arc<Log>,
}

/// An IDE that answers.
pub(super) struct Running {
    pub(super) port: u16,
    pub(super) path: Option<String>,
    kind: Kind,
}

enum Kind {
    Terminal {
        stop: CancellationToken,
        task: JoinHandle<std::io::Result<()>>,
    },
    Program(Program),
}

impl Start<'_> {
    /// Starts it, and returns when it answers.
    pub(super) async fn start(&self) -> Result<Running, IdeError> {
        let listener = listener(self.port).await?;
        let port = listener.local_addr()?.port();
        match self.ide {
            Ide::Terminal => Ok(self.terminal(listener, port)),
            Ide::CodeServer => {
                drop(listener);
                self.code_server(port).await
            }
        }
    }

    fn terminal(&self, listener: TcpListener, port: u16) -> Running {
        let settings = terminal::Settings::new(
            self.folder.into(),
            shell(),
            self.environment.to_vec(),
            self.title.to_owned(),
        );
        let stop = CancellationToken::new();
        let task = tokio::spawn(terminal::serve(listener, settings, stop.clone()));
        Running {
            port,
            path: None,
            kind: Kind::Terminal { stop, task },
        }
    }

    async fn code_server(&self, port: u16) -> Result<Running, IdeError> {
        let executable = self
            .code_server
            .map(Path::to_owned)
            .or_else(|| in_path("code-server"))
            .ok_or(IdeError::NotInstalled)?;
        let data = self.home.join(".local/share/code-server");
        settings_file(&data)?;
        let mut command = clean(&executable, self.home, self.environment);
        command
            .args([
                "--auth",
                "none",
                "--disable-telemetry",
                "--disable-update-check",
                "--disable-workspace-trust",
            ])
            .arg(format!("--bind-addr=127.0.0.1:{port}"))
            .arg("--user-data-dir")
            .arg(&data)
            .arg("--extensions-dir")
            .arg(data.join("extensions"))
            .arg("--config")
            .arg(data.join("config.yaml"))
            .current_dir(self.folder);
        let mut program =
            Program::spawn(&mut command, "code-server", self.log).map_err(|error| {
                match error.kind() {
                    std::io::ErrorKind::NotFound => IdeError::NotInstalled,
                    _ => IdeError::Io(error),
                }
            })?;
        if let Err(error) = self.answers(&mut program, port).await {
            program.stop().await;
            return Err(error);
        }
        let path = format!("/?folder={}", self.folder.display());
        Ok(Running {
            port,
            path: Some(path),
            kind: Kind::Program(program),
        })
    }

    /// Waits for `/healthz`.
    async fn answers(&self, program: &mut Program, port: u16) -> Result<(), IdeError> {
        let url = format!("http://127.0.0.1:{port}/healthz");
        let client = reqwest::Client::new();
        let healthy = async {
            loop {
                let answer = client
                    .get(&url)
                    .timeout(Duration::from_secs(1))
                    .send()
                    .await;
                if answer.is_ok_and(|answer| answer.status().is_success()) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = healthy => Ok(()),
            status = program.child.wait() => {
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                program.listeners.close();
                let _ = tokio::time::timeout(WORDS_WITHIN, program.listeners.wait()).await;
                Err(IdeError::Ended { status, words: self.log.tail(5) })
            }
            () = tokio::time::sleep(self.within) => {
                Err(IdeError::Silent { seconds: self.within.as_secs(), words: self.log.tail(5) })
            }
        }
    }
}

impl Running {
    /// Why it has ended, if it has.
    pub(super) fn ended(&mut self) -> Option<String> {
        match &mut self.kind {
            Kind::Terminal { task, .. } => task
                .is_finished()
                .then(|| "the terminal's server ended".into()),
            Kind::Program(program) => program
                .child
                .try_wait()
                .ok()
                .flatten()
                .map(|status| format!("code-server ended with {status}")),
        }
    }

    /// Stops it with everything that it started.
    pub(super) async fn stop(self) {
        match self.kind {
            Kind::Terminal { stop, task } => {
                stop.cancel();
                let _ = task.await;
            }
            Kind::Program(program) => program.stop().await,
        }
    }
}

/// A program in a process group of its own, whose words go to the log.
pub(super) struct Program {
    child: Child,
    group: Option<Pid>,
    /// Who listens to its words.
    listeners: TaskTracker,
}

impl Program {
    /// Starts it.
    pub(super) fn spawn(
        command: &mut Command,
        name: &'static str,
        log: &Arc<Log>,
    ) -> std::io::Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let listeners = TaskTracker::new();
        if let Some(output) = child.stdout.take() {
            listeners.spawn(listen(output, name, Arc::clone(log)));
        }
        if let Some(output) = child.stderr.take() {
            listeners.spawn(listen(output, name, Arc::clone(log)));
        }
        let group = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        Ok(Self {
            child,
            group,
            listeners,
        })
    }

    /// Ends its group: in order, then by force.
    pub(super) async fn stop(mut self) {
        let Some(group) = self.group else { return };
        let _ = kill_process_group(group, Signal::TERM);
        let _ = tokio::time::timeout(TERM_WITHIN, self.child.wait()).await;
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait().await;
    }
}

/// Passes lines on; a line without end is cut.
async fn listen(output: impl AsyncRead + Unpin, name: &'static str, log: Arc<Log>) {
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = tokio::io::AsyncReadExt::take(&mut reader, LINE_MAX);
        match limited.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => log.line(format!(
                "{name}: {}",
                String::from_utf8_lossy(&line).trim_end()
            )),
        }
    }
}

/// A command with nothing of ours in its environment.
pub(super) fn clean(program: &Path, home: &Path, environment: &[(String, String)]) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(
            ["PATH", "LANG", "USER", "LOGNAME", "TZ", MARK]
                .iter()
                .filter_map(|name| Some((*name, std::env::var_os(name)?))),
        )
        .env("HOME", home)
        .env("SHELL", shell())
        .envs(environment.iter().map(|(name, value)| (name, value)));
    command
}

/// By this the driver knows what belongs to an instance.
pub(super) const MARK: &str = "GITSPACE_INSTANCE";

/// A port for each forwarded one: the one it had before, if that is free.
pub(super) async fn real_ports(
    forwarded: &[u16],
    before: &BTreeMap<u16, u16>,
) -> std::io::Result<BTreeMap<u16, u16>> {
    let mut held = Vec::new();
    let mut ports = BTreeMap::new();
    for port in forwarded {
        // Held until all are chosen, so that no two are the same.
        let listener = listener(before.get(port).copied()).await?;
        ports.insert(*port, listener.local_addr()?.port());
        held.push(listener);
    }
    Ok(ports)
}

async fn listener(before: Option<u16>) -> std::io::Result<TcpListener> {
    if let Some(port) = before
        && let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await
    {
        return Ok(listener);
    }
    TcpListener::bind("127.0.0.1:0").await
}

fn shell() -> PathBuf {
    ["/bin/bash", "/bin/sh"]
        .iter()
        .map(PathBuf::from)
        .find(|shell| shell.exists())
        .unwrap_or_else(|| "/bin/sh".into())
}

fn in_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Without it the IDE looks up a telemetry host.
fn settings_file(data: &Path) -> std::io::Result<()> {
    let file = data.join("User/settings.json");
    std::fs::create_dir_all(data.join("User"))?;
    if !file.exists() {
        std::fs::write(file, "{\n  \"telemetry.telemetryLevel\": \"off\"\n}\n")?;
    }
    Ok(())
}
