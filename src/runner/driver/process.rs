//! The process driver: an instance is a folder and a child process. For development; it isolates nothing.
//!
//! The child's standard input is a pipe that we hold: when this process goes, however it goes, the agent sees the end of it and
//! ends too. Everything that an instance starts inherits a mark in its environment, by which what is left is found and killed.

use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdin, Command},
};

use super::{Driver, DriverError, Machine};
use crate::api::{InstanceId, Secret};

/// In the environment of everything that belongs to an instance.
const MARK: &str = "GITSPACE_INSTANCE";
const START_WITHIN: Duration = Duration::from_secs(20);
const END_WITHIN: Duration = Duration::from_secs(8);
const KILL_ROUNDS: usize = 100;

/// See the module.
pub struct Process {
    instances: PathBuf,
    executable: PathBuf,
    running: Mutex<HashMap<InstanceId, Arc<tokio::sync::Mutex<Option<Up>>>>>,
    machines: Mutex<HashMap<InstanceId, Machine>>,
}

/// A running agent.
struct Up {
    child: Child,
    /// Held, not written to: see the module.
    input: ChildStdin,
}

impl Process {
    /// Keeps instances below `instances`; `executable` is this program, which is also the agent.
    pub fn new(instances: PathBuf, executable: PathBuf) -> io::Result<Self> {
        private_folder(&instances)?;
        Ok(Self {
            instances,
            executable,
            running: Mutex::default(),
            machines: Mutex::default(),
        })
    }

    fn folder(&self, instance: &InstanceId) -> PathBuf {
        // An identifier holds no slash and does not begin with a dot.
        self.instances.join(instance.as_str())
    }

    /// The user's data: of the gitspace, so that a new instance finds it.
    fn home(&self, instance: &InstanceId) -> PathBuf {
        self.instances.join(instance.gitspace())
    }

    fn machines(&self) -> MutexGuard<'_, HashMap<InstanceId, Machine>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of an instance; holding it makes its calls go one after another.
    fn place(&self, instance: &InstanceId) -> Arc<tokio::sync::Mutex<Option<Up>>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(running.entry(instance.clone()).or_default())
    }

    async fn start(&self, instance: &InstanceId) -> Result<(Up, Machine), DriverError> {
        let io = |doing| {
            move |source| DriverError::Io {
                doing,
                instance: instance.clone(),
                source,
            }
        };
        let folder = self.folder(instance);
        let home = self.home(instance);
        private_folder(&folder)
            .and_then(|()| private_folder(&home))
            .map_err(io("make a folder"))?;
        let token_file = folder.join("agent.token");
        let token = token().map_err(io("make a token"))?;
        write_private(&token_file, token.reveal()).map_err(io("keep a token"))?;
        let words = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(folder.join("agent.log"));
        let inherited = [
            "PATH",
            "LANG",
            "USER",
            "LOGNAME",
            "TZ",
            "CDE_CODE_SERVER",
            "SSH_AUTH_SOCK",
        ];
        let mut child = Command::new(&self.executable)
            .arg("agent")
            .arg("--home")
            .arg(&home)
            .arg("--token-file")
            .arg(&token_file)
            .env_clear()
            .envs(
                inherited
                    .iter()
                    .filter_map(|name| Some((*name, std::env::var_os(name)?))),
            )
            .env("HOME", &home)
            .env(MARK, self.mark(instance))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(words.map_err(io("open a log"))?)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(io("start an agent"))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(DriverError::Agent {
                instance: instance.clone(),
                problem: "it has no pipes".into(),
            });
        };
        let mut line = String::new();
        let mut output = BufReader::new(output);
        let said = tokio::time::timeout(START_WITHIN, output.read_line(&mut line)).await;
        match (said, line.trim().parse::<SocketAddr>()) {
            (Ok(Ok(_)), Ok(agent)) => {
                let machine = Machine {
                    address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                    agent,
                    token,
                };
                Ok((Up { child, input }, machine))
            }
            _ => {
                let words = fs::read_to_string(folder.join("agent.log")).unwrap_or_default();
                let last = words.lines().last().unwrap_or("it said nothing");
                Err(DriverError::Agent {
                    instance: instance.clone(),
                    problem: last.to_owned(),
                })
            }
        }
    }

    /// What marks the processes of an instance: this runner's folder is in it, so that two runners do not meet.
    fn mark(&self, instance: &InstanceId) -> String {
        self.folder(instance).display().to_string()
    }

    /// Ends an instance's agent in order, and kills what is left of the instance.
    async fn end(&self, instance: &InstanceId, up: Option<Up>) -> Result<(), DriverError> {
        self.machines().remove(instance);
        if let Some(Up { mut child, input }) = up {
            drop(input);
            let _ = tokio::time::timeout(END_WITHIN, child.wait()).await;
        }
        let mark = format!("{MARK}={}", self.mark(instance));
        for _ in 0..KILL_ROUNDS {
            let left = marked(mark.clone()).await;
            if left.is_empty() {
                return Ok(());
            }
            for pid in left {
                let _ = kill_process(pid, Signal::KILL);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let source = io::Error::other("processes of it cannot be ended");
        Err(DriverError::Io {
            doing: "end everything",
            instance: instance.clone(),
            source,
        })
    }
}

impl Driver for Process {
    const NAME: &'static str = "process";
    const HOST_BOUND: bool = true;

    async fn setup(&self, instance: &InstanceId) -> Result<Machine, DriverError> {
        let place = self.place(instance);
        let mut up = place.lock().await;
        let alive = up
            .as_mut()
            .is_some_and(|up| matches!(up.child.try_wait(), Ok(None)));
        if let Some(machine) = self.machine(instance).filter(|_| alive) {
            return Ok(machine);
        }
        self.end(instance, up.take()).await?;
        let (started, machine) = self.start(instance).await?;
        *up = Some(started);
        self.machines().insert(instance.clone(), machine.clone());
        let running = self.folder(instance).join("running");
        fs::write(running, "").map_err(|source| DriverError::Io {
            doing: "keep a mark",
            instance: instance.clone(),
            source,
        })?;
        Ok(machine)
    }

    fn machine(&self, instance: &InstanceId) -> Option<Machine> {
        self.machines().get(instance).cloned()
    }

    async fn suspend(&self, instance: &InstanceId) -> Result<(), DriverError> {
        let place = self.place(instance);
        let mut up = place.lock().await;
        gone(fs::remove_file(self.folder(instance).join("running"))).map_err(|source| {
            DriverError::Io {
                doing: "remove a mark",
                instance: instance.clone(),
                source,
            }
        })?;
        self.end(instance, up.take()).await
    }

    async fn destroy(&self, instance: &InstanceId, delete_data: bool) -> Result<(), DriverError> {
        self.suspend(instance).await?;
        let delete = |folder: PathBuf| {
            gone(fs::remove_dir_all(folder)).map_err(|source| DriverError::Io {
                doing: "delete a folder",
                instance: instance.clone(),
                source,
            })
        };
        delete(self.folder(instance))?;
        if delete_data {
            delete(self.home(instance))?;
        }
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(instance);
        Ok(())
    }

    fn interrupted(&self) -> Vec<InstanceId> {
        let Ok(entries) = fs::read_dir(&self.instances) else {
            return Vec::new();
        };
        entries
            .filter_map(Result::ok)
            .filter(|entry| entry.path().join("running").exists())
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    }

    fn note(&self, instance: &InstanceId, text: &str) -> Result<(), DriverError> {
        write_private(&self.folder(instance).join("note.json"), text).map_err(|source| {
            DriverError::Io {
                doing: "keep a note",
                instance: instance.clone(),
                source,
            }
        })
    }

    fn noted(&self, instance: &InstanceId) -> Option<String> {
        fs::read_to_string(self.folder(instance).join("note.json")).ok()
    }

    async fn shut_down(&self) {
        let instances: Vec<InstanceId> = self.machines().keys().cloned().collect();
        for instance in instances {
            let place = self.place(&instance);
            let up = place.lock().await.take();
            if let Err(error) = self.end(&instance, up).await {
                tracing::warn!(%instance, %error, "an instance did not end in order");
            }
        }
    }
}

/// What is not there needs no removing.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn private_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Whole or not at all, and for us only.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use io::Write;
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(text.as_bytes())?;
    fs::rename(temporary, path)
}

fn token() -> io::Result<Secret> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(Secret::new(
        random
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>(),
    ))
}

/// Processes with a mark in their environment (proc(5)); those of other users cannot be read and are not ours.
async fn marked(mark: String) -> Vec<Pid> {
    let found = tokio::task::spawn_blocking(move || {
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| {
                fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
                    environment
                        .split(|byte| *byte == 0)
                        .any(|one| one == mark.as_bytes())
                })
            })
            .filter_map(Pid::from_raw)
            .collect()
    });
    found.await.unwrap_or_default()
}
