//! The link to the control plane: register, heartbeat, acquire. Outbound only.
//!
//! A control plane or runner that is away, or refuses us, is said once per change, and tried again with growing pauses. Tasks
//! under way go on meanwhile.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Settings,
    back_off::BackOff,
    call::{CallError, Peer},
    dispatch::Dispatch,
    typed::Told,
};
use crate::{
    api::{
        activity::Typed,
        runner::PoolOwner,
        task::{Heartbeat, Register, Registered, Task},
    },
    telemetry::Chain,
};

const WAIT_SECONDS: u64 = 30;
const CALL_WITHIN: Duration = Duration::from_secs(15);
/// What it is asked for is in its memory.
const TYPED_WITHIN: Duration = Duration::from_secs(2);
/// How long tasks under way may go on after a stop.
const FINISH_WITHIN: Duration = Duration::from_secs(8);

/// Why a delegate cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its HTTP client.
    #[error("the delegate's HTTP client cannot be made")]
    Client(#[from] reqwest::Error),
}

/// Works until the stop; then takes no new tasks and gives those under way some seconds.
pub async fn serve(settings: Settings, stop: CancellationToken) -> Result<(), Error> {
    let link = Arc::new(Link {
        control_plane: Peer::new(
            "control plane",
            &settings.url,
            &settings.token,
            "delegate.token_file",
        )?,
        runner: Peer::new(
            "runner",
            &settings.runner,
            &settings.runner_token,
            "delegate.runner_token_file",
        )?,
        slots: Arc::new(Semaphore::new(settings.capacity.get() as usize)),
        under_way: Mutex::default(),
        tasks: TaskTracker::new(),
        cut: CancellationToken::new(),
        settings,
    });
    tokio::select! {
        () = stop.cancelled() => {}
        () = Arc::clone(&link).work() => {}
    }
    link.finish().await;
    Ok(())
}

struct Link {
    settings: Settings,
    control_plane: Peer,
    runner: Peer,
    slots: Arc<Semaphore>,
    /// Task and lease of each: one may be handed to us again while we are still at it.
    under_way: Mutex<HashSet<(String, String)>>,
    tasks: TaskTracker,
    /// Ends what is under way at once.
    cut: CancellationToken,
}

impl Link {
    /// Registers and works; registers again when the control plane has forgotten us or was away.
    async fn work(self: Arc<Self>) {
        let mut back_off = BackOff::default();
        let mut trouble = Some(String::new());
        loop {
            let since = Instant::now();
            let error = match self.register().await {
                Ok(registered) => {
                    if trouble.take().is_some() {
                        tracing::info!(delegate = %registered.id, "registered");
                    }
                    self.session(&registered).await
                }
                Err(error) => error,
            };
            back_off.held(since.elapsed());
            let said = Chain(&error).to_string();
            if trouble.as_ref() != Some(&said) {
                tracing::warn!(error = %said, "the delegate tries again until it works");
                trouble = Some(said);
            }
            back_off.wait().await;
        }
    }

    async fn register(&self) -> Result<Registered, CallError> {
        let settings = &self.settings;
        let owner: PoolOwner = self.runner.get("/pool_owner", CALL_WITHIN).await?;
        let register = Register {
            name: settings.name.clone(),
            tags: settings.tags.clone(),
            capacity: settings.capacity.get(),
            runner: owner.runner,
        };
        let control_plane = &self.control_plane;
        control_plane
            .ask("/v1/delegates", &register, CALL_WITHIN)
            .await
    }

    /// Works as a registered delegate, until the control plane fails.
    async fn session(self: &Arc<Self>, registered: &Registered) -> CallError {
        let every = Duration::from_secs(registered.heartbeat_seconds.clamp(1, 300));
        tokio::select! {
            error = self.acquire(&registered.id, every) => error,
            error = self.beat(&registered.id, every) => error,
        }
    }

    /// Takes tasks while there are slots.
    async fn acquire(self: &Arc<Self>, id: &str, every: Duration) -> CallError {
        let path = format!("/v1/delegates/{id}/acquire?wait={WAIT_SECONDS}");
        let within = CALL_WITHIN + Duration::from_secs(WAIT_SECONDS);
        loop {
            // The semaphore is never closed.
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
                return std::future::pending().await;
            };
            let task: Task = match self.control_plane.fetch(&path, within).await {
                Ok(Some(task)) => task,
                Ok(None) => continue,
                Err(error) => return error,
            };
            let link = Arc::clone(self);
            let key = (task.id.clone(), task.lease.clone());
            self.under_way().insert(key.clone());
            self.tasks.spawn(async move {
                let dispatch = Dispatch {
                    control_plane: &link.control_plane,
                    runner: &link.runner,
                    every,
                };
                link.cut.run_until_cancelled(dispatch.run(&task)).await;
                link.under_way().remove(&key);
                drop(slot);
            });
        }
    }

    /// Says which tasks are under way, and where somebody typed.
    async fn beat(&self, id: &str, every: Duration) -> CallError {
        let path = format!("/v1/delegates/{id}/heartbeat");
        let mut told = Told::default();
        loop {
            tokio::time::sleep(every).await;
            let tasks: HashSet<String> =
                self.under_way().iter().map(|(id, _)| id.clone()).collect();
            let heartbeat = Heartbeat {
                tasks: tasks.into_iter().collect(),
                typed: told.news(self.typed().await),
            };
            if let Err(error) = self
                .control_plane
                .tell(&path, &heartbeat, CALL_WITHIN)
                .await
            {
                return error;
            }
        }
    }

    /// What the runner knows of typing in terminals. Leases do not wait for it.
    async fn typed(&self) -> Vec<Typed> {
        let typed = self.runner.get("/typed", TYPED_WITHIN).await;
        typed.unwrap_or_else(|error| {
            tracing::debug!(error = %Chain(&error), "the runner does not say where somebody typed");
            Vec::new()
        })
    }

    async fn finish(&self) {
        self.tasks.close();
        let ended = tokio::time::timeout(FINISH_WITHIN, self.tasks.wait()).await;
        if ended.is_err() {
            let tasks = self.tasks.len();
            tracing::warn!(
                tasks,
                "tasks are under way still; the control plane hands them out again"
            );
            self.cut.cancel();
            self.tasks.wait().await;
        }
    }

    fn under_way(&self) -> MutexGuard<'_, HashSet<(String, String)>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
