//! The process driver: an instance is a folder and a child process. For development; it isolates nothing.
//!
//! The child's standard input is a pipe that we hold: when this process goes, however it goes, the agent sees the end of it and
//! ends too. Everything that an instance starts inherits a mark in its environment, by which what is left is found and killed.

use std::{
    collections::HashMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{ChildStdin, Command},
    sync::watch,
};

use super::{
    Driver, DriverError, Machine,
    files::{delete, gone, private_file, private_folder, write_private},
    remains,
};
use crate::api::{InstanceId, Secret, agent::INSTANCE_MARK};

const START_WITHIN: Duration = Duration::from_secs(20);
/// Longer than the agent takes for its programs.
const END_WITHIN: Duration = Duration::from_secs(7);
/// The longest line with an address.
const ADDRESS_MAX: u64 = 256;
/// What an agent gets of our own environment.
const INHERITED: [&str; 8] = [
    "PATH",
    "LANG",
    "USER",
    "LOGNAME",
    "TZ",
    "CDE_CODE_SERVER",
    "CDE_LOG",
    "SSH_AUTH_SOCK",
];

/// See the module.
pub struct Process {
    instances: PathBuf,
    executable: PathBuf,
    places: Mutex<HashMap<InstanceId, Place>>,
    /// Agents by instance: to be read without waiting for a place.
    agents: Mutex<HashMap<InstanceId, Agent>>,
    shut_down: AtomicBool,
}

/// Holding it makes calls for an instance go one after another.
type Place = Arc<tokio::sync::Mutex<Option<ChildStdin>>>;

/// A running agent. Its standard input is what the place holds: see the module.
#[derive(Clone)]
struct Agent {
    machine: Machine,
    ended: watch::Receiver<bool>,
}

impl Process {
    /// Keeps instances below `instances`; `executable` is this program, which is also the agent.
    pub fn new(instances: &Path, executable: PathBuf) -> io::Result<Self> {
        private_folder(instances)?;
        Ok(Self {
            // The whole path is the mark of processes: it must not mean another folder to another runner.
            instances: instances.canonicalize()?,
            executable,
            places: Mutex::default(),
            agents: Mutex::default(),
            shut_down: AtomicBool::new(false),
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

    fn agents(&self) -> MutexGuard<'_, HashMap<InstanceId, Agent>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn places(&self) -> MutexGuard<'_, HashMap<InstanceId, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, instance: &InstanceId) -> Place {
        Arc::clone(self.places().entry(instance.clone()).or_default())
    }

    /// The running agent, or a new one in its place.
    async fn bring_up(
        &self,
        instance: &InstanceId,
        input: &mut Option<ChildStdin>,
    ) -> Result<Machine, DriverError> {
        if self.shut_down.load(Ordering::Acquire) {
            return Err(DriverError::ShuttingDown(instance.clone()));
        }
        if let Some(machine) = self.machine(instance) {
            return Ok(machine);
        }
        self.end(instance, input.take()).await?;
        let (held, agent) = match self.start(instance).await {
            Ok(started) => started,
            Err(error) => {
                self.end(instance, None).await?;
                return Err(error);
            }
        };
        let machine = agent.machine.clone();
        *input = Some(held);
        self.agents().insert(instance.clone(), agent);
        Ok(machine)
    }

    async fn start(&self, instance: &InstanceId) -> Result<(ChildStdin, Agent), DriverError> {
        let folder = self.folder(instance);
        private_folder(&folder)
            .and_then(|()| private_folder(&self.home(instance)))
            .map_err(failed("make a folder", instance))?;
        let token = token().map_err(failed("make a token", instance))?;
        write_private(&folder.join(TOKEN), token.reveal())
            .map_err(failed("keep a token", instance))?;
        let mut child = self
            .command(instance)
            .map_err(failed("open a log", instance))?
            .spawn()
            .map_err(failed("start an agent", instance))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(DriverError::Agent {
                instance: instance.clone(),
                problem: "it has no pipes".into(),
            });
        };
        let mut line = String::new();
        let mut output = BufReader::new(output).take(ADDRESS_MAX);
        let said = tokio::time::timeout(START_WITHIN, output.read_line(&mut line)).await;
        let (Ok(Ok(_)), Ok(agent)) = (said, line.trim().parse::<SocketAddr>()) else {
            return Err(self.silent(instance));
        };
        let (end, ended) = watch::channel(false);
        tokio::spawn(async move {
            let _ = child.wait().await;
            end.send_replace(true);
        });
        let machine = Machine {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            agent,
            token,
        };
        Ok((input, Agent { machine, ended }))
    }

    /// It is not killed when we let go of it: it ends when it sees the end of its input, and has things to end itself.
    fn command(&self, instance: &InstanceId) -> io::Result<Command> {
        let (folder, home) = (self.folder(instance), self.home(instance));
        let mut command = Command::new(&self.executable);
        command
            .arg("agent")
            .arg("--home")
            .arg(&home)
            .arg("--token-file")
            .arg(folder.join(TOKEN))
            .env_clear()
            .envs(
                INHERITED
                    .iter()
                    .filter_map(|name| Some((*name, std::env::var_os(name)?))),
            )
            .env("HOME", &home)
            .env(INSTANCE_MARK, &folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(private_file(&folder.join(LOG))?)
            .process_group(0);
        Ok(command)
    }

    fn silent(&self, instance: &InstanceId) -> DriverError {
        let words = fs::read_to_string(self.folder(instance).join(LOG)).unwrap_or_default();
        DriverError::Agent {
            instance: instance.clone(),
            problem: words.lines().last().unwrap_or("it said nothing").to_owned(),
        }
    }

    /// Ends an instance's agent in order, and kills what is left of the instance.
    async fn end(
        &self,
        instance: &InstanceId,
        input: Option<ChildStdin>,
    ) -> Result<(), DriverError> {
        drop(input);
        let agent = self.agents().remove(instance);
        if let Some(mut agent) = agent {
            let _ = tokio::time::timeout(END_WITHIN, agent.ended.wait_for(|ended| *ended)).await;
        }
        let mark = format!("{INSTANCE_MARK}={}", self.folder(instance).display());
        match remains::end(&mark).await {
            true => Ok(()),
            false => Err(failed("end everything", instance)(io::Error::other(
                "some processes do not end",
            ))),
        }
    }
}

const TOKEN: &str = "agent.token";
const LOG: &str = "agent.log";
/// Beside an instance that is to run.
const RUNNING: &str = "running";
const NOTE: &str = "note.json";

fn failed(doing: &'static str, instance: &InstanceId) -> impl FnOnce(io::Error) -> DriverError {
    let instance = instance.clone();
    move |source| DriverError::Io {
        doing,
        instance,
        source,
    }
}

impl Driver for Process {
    const NAME: &'static str = "process";
    const HOST_BOUND: bool = true;

    async fn setup(&self, instance: &InstanceId) -> Result<Machine, DriverError> {
        let place = self.place(instance);
        let mut input = place.lock().await;
        let machine = self.bring_up(instance, &mut input).await?;
        fs::write(self.folder(instance).join(RUNNING), "")
            .map_err(failed("keep a mark", instance))?;
        Ok(machine)
    }

    async fn revive(&self, instance: &InstanceId) -> Result<Machine, DriverError> {
        let place = self.place(instance);
        let mut input = place.lock().await;
        // It may have been suspended while we waited.
        match self.folder(instance).join(RUNNING).exists() {
            true => self.bring_up(instance, &mut input).await,
            false => Err(DriverError::Unknown(instance.clone())),
        }
    }

    fn machine(&self, instance: &InstanceId) -> Option<Machine> {
        let agents = self.agents();
        let agent = agents.get(instance)?;
        let alive = !*agent.ended.borrow();
        alive.then(|| agent.machine.clone())
    }

    async fn suspend(&self, instance: &InstanceId) -> Result<(), DriverError> {
        let place = self.place(instance);
        let mut input = place.lock().await;
        gone(fs::remove_file(self.folder(instance).join(RUNNING)))
            .map_err(failed("remove a mark", instance))?;
        self.end(instance, input.take()).await
    }

    async fn destroy(&self, instance: &InstanceId, delete_data: bool) -> Result<(), DriverError> {
        self.suspend(instance).await?;
        let place = self.place(instance);
        let _held = place.lock().await;
        delete(self.folder(instance))
            .await
            .map_err(failed("delete a folder", instance))?;
        if delete_data {
            delete(self.home(instance))
                .await
                .map_err(failed("delete the data", instance))?;
        }
        let mut places = self.places();
        // Ours and the map's: nobody waits for it.
        if Arc::strong_count(&place) <= 2 {
            places.remove(instance);
        }
        Ok(())
    }

    fn wanted(&self) -> Vec<InstanceId> {
        let Ok(entries) = fs::read_dir(&self.instances) else {
            return Vec::new();
        };
        entries
            .filter_map(Result::ok)
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|instance| self.folder(instance).join(RUNNING).exists())
            .collect()
    }

    fn note(&self, instance: &InstanceId, text: &str) -> Result<(), DriverError> {
        write_private(&self.folder(instance).join(NOTE), text)
            .map_err(failed("keep a note", instance))
    }

    fn noted(&self, instance: &InstanceId) -> Option<String> {
        fs::read_to_string(self.folder(instance).join(NOTE)).ok()
    }

    async fn shut_down(&self) {
        self.shut_down.store(true, Ordering::Release);
        let places: Vec<(InstanceId, Place)> = self
            .places()
            .iter()
            .map(|(instance, place)| (instance.clone(), Arc::clone(place)))
            .collect();
        let ends = places.into_iter().map(|(instance, place)| async move {
            let input = place.lock().await.take();
            if let Err(error) = self.end(&instance, input).await {
                tracing::warn!(%instance, %error, "an instance did not end in order");
            }
        });
        futures_util::future::join_all(ends).await;
    }
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
