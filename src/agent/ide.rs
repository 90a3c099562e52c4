//! The IDE, and the programs of the repository beside it.
//!
//! Everything here gets a clean environment: what the agent was given stays with the agent.

use std::{
    fmt::Write as _,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{net::TcpListener, process::Command, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{logs::Log, ports::listener, program::Program, terminal};
use crate::api::{agent::INSTANCE_MARK, gitspace::Ide};

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
        stop: DropGuard,
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
            kind: Kind::Terminal {
                stop: stop.drop_guard(),
                task,
            },
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
        let program = Program::spawn(&mut command, "code-server", self.log).map_err(|error| {
            match error.kind() {
                std::io::ErrorKind::NotFound => IdeError::NotInstalled,
                _ => IdeError::Io(error),
            }
        })?;
        if let Err(error) = self.answers(&program, port).await {
            program.stop().await;
            return Err(error);
        }
        let path = format!("/?folder={}", encoded(self.folder));
        Ok(Running {
            port,
            path: Some(path),
            kind: Kind::Program(program),
        })
    }

    /// Waits for `/healthz`.
    async fn answers(&self, program: &Program, port: u16) -> Result<(), IdeError> {
        let url = format!("http://127.0.0.1:{port}/healthz");
        // Loopback: whatever proxy the environment names is not for this.
        let client = reqwest::Client::builder()
            .no_proxy()
            .build()
            .map_err(std::io::Error::other)?;
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
            status = program.ended() => {
                Err(IdeError::Ended { status, words: program.last_words() })
            }
            () = tokio::time::sleep(self.within) => {
                Err(IdeError::Silent { seconds: self.within.as_secs(), words: program.last_words() })
            }
        }
    }
}

impl Running {
    /// Why it has ended, if it has.
    pub(super) fn ended(&self) -> Option<String> {
        match &self.kind {
            Kind::Terminal { task, .. } => task
                .is_finished()
                .then(|| "the terminal's server ended".into()),
            Kind::Program(program) => program
                .status()
                .map(|status| format!("code-server ended with {status}")),
        }
    }

    /// Stops it with everything that it started.
    pub(super) async fn stop(self) {
        match self.kind {
            Kind::Terminal { stop, task } => {
                drop(stop);
                let _ = task.await;
            }
            Kind::Program(program) => program.stop().await,
        }
    }
}

/// A command with nothing of ours in its environment.
pub(super) fn clean(program: &Path, home: &Path, environment: &[(String, String)]) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(
            ["PATH", "LANG", "USER", "LOGNAME", "TZ", INSTANCE_MARK]
                .iter()
                .filter_map(|name| Some((*name, std::env::var_os(name)?))),
        )
        .env("HOME", home)
        .env("SHELL", shell())
        .envs(environment.iter().map(|(name, value)| (name, value)));
    command
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

/// A path as the value of a query (RFC 3986 §3.4; slashes may stay).
fn encoded(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(*byte));
            }
            // Writing to a string does not fail.
            _ => drop(write!(text, "%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_a_query_value() {
        assert_eq!(
            encoded(Path::new("/srv/a b&c#ü")),
            "/srv/a%20b%26c%23%C3%BC"
        );
    }
}
