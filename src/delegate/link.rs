//! The link to the control plane: register, heartbeat, acquire. Outbound only.
//!
//! A control plane or runner that is away is said once, and tried again with growing pauses.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reqwest::StatusCode;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Settings, dispatch::Dispatch};
use crate::api::{
    runner::PoolOwner,
    task::{Heartbeat, Register, Registered, Task},
};

const WAIT_SECONDS: u64 = 30;
const CALL_WITHIN: Duration = Duration::from_secs(15);
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
const LAST_BACK_OFF: Duration = Duration::from_secs(10);
/// How long tasks under way may go on after a stop.
const FINISH_WITHIN: Duration = Duration::from_secs(10);

/// Why a delegate cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its HTTP client.
    #[error("the delegate's HTTP client cannot be made")]
    Client(#[from] reqwest::Error),
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("cannot reach {url}: {source}")]
    Away { url: String, source: reqwest::Error },
    #[error("{url} answered {status}{}", hint(*status))]
    Status { url: String, status: StatusCode },
}

fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => {
            "; check `delegate.token_file` and `delegate.runner_token_file`"
        }
        StatusCode::NOT_FOUND => "; registering again",
        _ => "",
    }
}

/// Works until the stop.
pub async fn serve(settings: Settings, stop: CancellationToken) -> Result<(), Error> {
    let client = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(5))
        .build()?;
    let link = Arc::new(Link {
        dispatch: Dispatch::new(client.clone(), &settings),
        slots: Arc::new(Semaphore::new(settings.capacity.get() as usize)),
        under_way: Mutex::default(),
        tasks: TaskTracker::new(),
        client,
        settings,
    });
    tokio::select! {
        () = stop.cancelled() => {}
        () = Arc::clone(&link).work() => {}
    }
    link.tasks.close();
    if tokio::time::timeout(FINISH_WITHIN, link.tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            tasks = link.tasks.len(),
            "tasks are under way still; the control plane hands them out again"
        );
    }
    Ok(())
}

struct Link {
    settings: Settings,
    client: reqwest::Client,
    dispatch: Dispatch,
    slots: Arc<Semaphore>,
    under_way: Mutex<HashSet<String>>,
    tasks: TaskTracker,
}

impl Link {
    /// Registers and works; registers again when the control plane has forgotten us.
    async fn work(self: Arc<Self>) {
        let mut back_off = BackOff::default();
        loop {
            let error = match self.register().await {
                Ok(registered) => {
                    tracing::info!(delegate = %registered.id, "registered");
                    back_off = BackOff::default();
                    let heartbeat = Duration::from_secs(registered.heartbeat_seconds.clamp(1, 300));
                    tokio::select! {
                        error = self.acquire(&registered.id) => error,
                        error = self.beat(&registered.id, heartbeat) => error,
                    }
                }
                Err(error) => error,
            };
            back_off.wait(&error).await;
        }
    }

    async fn register(&self) -> Result<Registered, CallError> {
        let settings = &self.settings;
        let owner: PoolOwner = self
            .get(&format!(
                "{}/pool_owner",
                settings.runner.trim_end_matches('/')
            ))
            .await?;
        let register = Register {
            name: settings.name.clone(),
            tags: settings.tags.clone(),
            capacity: settings.capacity.get(),
            runner: owner.runner,
        };
        let url = self.url("/v1/delegates");
        let request = self
            .client
            .post(&url)
            .bearer_auth(settings.token.reveal())
            .timeout(CALL_WITHIN)
            .json(&register);
        json(&url, request).await?.ok_or(CallError::Status {
            url,
            status: StatusCode::NO_CONTENT,
        })
    }

    async fn get(&self, url: &str) -> Result<PoolOwner, CallError> {
        let request = self
            .client
            .get(url)
            .bearer_auth(self.settings.runner_token.reveal())
            .timeout(CALL_WITHIN);
        json(url, request).await?.ok_or(CallError::Status {
            url: url.into(),
            status: StatusCode::NO_CONTENT,
        })
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.settings.url.trim_end_matches('/'))
    }

    /// Takes tasks while there are slots. Ends when the control plane fails.
    async fn acquire(self: &Arc<Self>, id: &str) -> CallError {
        let url = self.url(&format!("/v1/delegates/{id}/acquire?wait={WAIT_SECONDS}"));
        loop {
            // The semaphore is never closed.
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
                return std::future::pending().await;
            };
            let request = self
                .client
                .post(&url)
                .bearer_auth(self.settings.token.reveal())
                .timeout(CALL_WITHIN + Duration::from_secs(WAIT_SECONDS));
            let task: Option<Task> = match json(&url, request).await {
                Ok(task) => task,
                Err(error) => return error,
            };
            let Some(task) = task else { continue };
            let link = Arc::clone(self);
            self.tasks.spawn(async move {
                link.under_way().insert(task.id.clone());
                link.dispatch.run(&task).await;
                link.under_way().remove(&task.id);
                drop(slot);
            });
        }
    }

    /// Says which tasks are under way. Ends when the control plane fails.
    async fn beat(&self, id: &str, every: Duration) -> CallError {
        let url = self.url(&format!("/v1/delegates/{id}/heartbeat"));
        loop {
            tokio::time::sleep(every).await;
            let heartbeat = Heartbeat {
                tasks: self.under_way().iter().cloned().collect(),
            };
            let request = self
                .client
                .post(&url)
                .bearer_auth(self.settings.token.reveal())
                .timeout(CALL_WITHIN)
                .json(&heartbeat);
            if let Err(error) = send(&url, request).await {
                return error;
            }
        }
    }

    fn under_way(&self) -> MutexGuard<'_, HashSet<String>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

async fn send(url: &str, request: reqwest::RequestBuilder) -> Result<reqwest::Response, CallError> {
    let away = |source: reqwest::Error| CallError::Away {
        url: url.into(),
        source: source.without_url(),
    };
    let response = request.send().await.map_err(away)?;
    match response.status() {
        status if status.is_success() => Ok(response),
        status => Err(CallError::Status {
            url: url.into(),
            status,
        }),
    }
}

/// None: 204.
async fn json<T: DeserializeOwned>(
    url: &str,
    request: reqwest::RequestBuilder,
) -> Result<Option<T>, CallError> {
    let response = send(url, request).await?;
    if response.status() == StatusCode::NO_CONTENT {
        return Ok(None);
    }
    let away = |source: reqwest::Error| CallError::Away {
        url: url.into(),
        source: source.without_url(),
    };
    response.json().await.map(Some).map_err(away)
}

/// Growing pauses; each new trouble is said once.
struct BackOff {
    pause: Duration,
    said: String,
}

impl Default for BackOff {
    fn default() -> Self {
        Self {
            pause: FIRST_BACK_OFF,
            said: String::new(),
        }
    }
}

impl BackOff {
    async fn wait(&mut self, error: &CallError) {
        let trouble = error.to_string();
        if trouble != self.said {
            tracing::warn!(error = %trouble, "trying again");
            self.said = trouble;
        }
        // Delegates that lost the same control plane do not come back in step.
        let mut random = [0; 1];
        let _ = getrandom::fill(&mut random);
        tokio::time::sleep(self.pause.mul_f64(0.75 + f64::from(random[0]) / 512.0)).await;
        self.pause = (self.pause * 2).min(LAST_BACK_OFF);
    }
}
