//! A task on its way: to the runner, and its progress and result back.
//!
//! A result is sent until the control plane has it, or says that the task is another's by now.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Serialize;

use super::Settings;
use crate::api::{
    Secret,
    problem::Problem,
    runner::{Step, StepDone},
    task::{Outcome, Progress, Task, TaskResult, Work},
};

/// Longer than the runner takes for anything.
const RUNNER_WITHIN: Duration = Duration::from_secs(25 * 60);
const CALL_WITHIN: Duration = Duration::from_secs(15);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Dispatch {
    client: reqwest::Client,
    url: String,
    token: Secret,
    runner: String,
    runner_token: Secret,
}

impl Dispatch {
    pub(super) fn new(client: reqwest::Client, settings: &Settings) -> Self {
        Self {
            client,
            url: settings.url.trim_end_matches('/').to_owned(),
            token: settings.token.clone(),
            runner: settings.runner.trim_end_matches('/').to_owned(),
            runner_token: settings.runner_token.clone(),
        }
    }

    /// Runs a task to its acknowledged end.
    pub(super) async fn run(&self, task: &Task) {
        tracing::info!(task = %task.id, attempt = task.attempt, "task begins");
        let outcome = match self.ask_runner(&task.work).await {
            Ok(StepDone { done, lines }) => {
                if !lines.is_empty() {
                    self.progress(task, lines).await;
                }
                Outcome::Done(done)
            }
            Err(message) => Outcome::Failed { message },
        };
        self.result(task, outcome).await;
    }

    async fn ask_runner(&self, work: &Work) -> Result<StepDone, String> {
        match work {
            Work::VmSetup(of) => self.post("/setup", of).await,
            Work::VmSuspend(of) => self.post("/suspend", of).await,
            Work::VmDestroy(destroy) => self.post("/destroy", destroy).await,
            Work::AgentStart(start) => self.post("/step", &Step::Start(start.clone())).await,
            Work::AgentStop(of) => self.post("/step", &Step::Stop(of.clone())).await,
        }
    }

    async fn post<Q: Serialize>(&self, path: &str, question: &Q) -> Result<StepDone, String> {
        let request = self
            .client
            .post(format!("{}{path}", self.runner))
            .bearer_auth(self.runner_token.reveal())
            .timeout(RUNNER_WITHIN)
            .json(question);
        let response = request
            .send()
            .await
            .map_err(|error| format!("the runner cannot be reached: {}", error.without_url()))?;
        let status = response.status();
        if status.is_success() {
            return response.json().await.map_err(|error| {
                format!(
                    "the runner's answer cannot be read: {}",
                    error.without_url()
                )
            });
        }
        match response.json::<Problem>().await {
            Ok(problem) => Err(problem.title),
            Err(_) => Err(format!("the runner answered {status}")),
        }
    }

    /// Lines are a comfort: one that does not arrive is not sent again.
    async fn progress(&self, task: &Task, lines: Vec<String>) {
        let progress = Progress {
            lease: task.lease.clone(),
            seq: 1,
            lines,
        };
        let request = self
            .client
            .post(format!("{}/v1/tasks/{}/progress", self.url, task.id))
            .bearer_auth(self.token.reveal())
            .timeout(CALL_WITHIN)
            .json(&progress);
        if let Err(error) = request.send().await {
            tracing::debug!(task = %task.id, error = %error.without_url(), "progress was not sent");
        }
    }

    async fn result(&self, task: &Task, outcome: Outcome) {
        if let Outcome::Failed { message } = &outcome {
            tracing::warn!(task = %task.id, %message, "task failed");
        }
        let url = format!("{}/v1/tasks/{}/result", self.url, task.id);
        let result = TaskResult {
            lease: task.lease.clone(),
            outcome,
        };
        let mut pause = FIRST_PAUSE;
        loop {
            let request = self
                .client
                .post(&url)
                .bearer_auth(self.token.reveal())
                .timeout(CALL_WITHIN)
                .json(&result);
            match request.send().await.map(|response| response.status()) {
                Ok(status) if status.is_success() => {
                    return tracing::info!(task = %task.id, "task ends");
                }
                Ok(StatusCode::CONFLICT | StatusCode::NOT_FOUND) => {
                    return tracing::warn!(task = %task.id, "the task is another's by now; its result is dropped");
                }
                Ok(status) => {
                    tracing::debug!(task = %task.id, %status, "the result was not taken; trying again")
                }
                Err(error) => {
                    tracing::debug!(task = %task.id, error = %error.without_url(), "the result was not sent; trying again")
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }
}
