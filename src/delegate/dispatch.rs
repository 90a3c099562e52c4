//! A task on its way: to the runner, and its progress and result back.
//!
//! A result is sent until the control plane has it, or says that the task is another's by now. While the runner works, the lease
//! is asked after: a task that was taken back is let go of, so that what follows it need not wait.

use std::time::Duration;

use reqwest::StatusCode;
use tokio::time::Instant;

use super::{
    back_off::BackOff,
    call::{CallError, Peer},
};
use crate::{
    api::{
        runner::{Step, StepDone},
        task::{Outcome, Progress, Task, TaskResult, Work},
    },
    telemetry::Chain,
};

/// Longer than the runner takes for anything.
const RUNNER_WITHIN: Duration = Duration::from_secs(25 * 60);
/// How long a runner that takes no connection is tried: it may be starting.
const RUNNER_AWAY: Duration = Duration::from_secs(20);
const CALL_WITHIN: Duration = Duration::from_secs(15);
/// What a result says that nobody wants any more.
const TAKEN_BACK: &str = "the task was taken back";

/// See the module.
pub(super) struct Dispatch<'a> {
    pub(super) control_plane: &'a Peer,
    pub(super) runner: &'a Peer,
    /// How often the lease is asked after.
    pub(super) every: Duration,
}

impl Dispatch<'_> {
    /// Runs a task to its acknowledged end.
    pub(super) async fn run(&self, task: &Task) {
        tracing::info!(task = %task.id, attempt = task.attempt, "task begins");
        let outcome = tokio::select! {
            done = self.ask_runner(&task.work) => match done {
                Ok(StepDone { done, lines }) => {
                    if !lines.is_empty() {
                        // Lines are a comfort: one that does not arrive is not sent again.
                        let _ = self.progress(task, LAST_REPORT, lines).await;
                    }
                    Outcome::Done(done)
                }
                Err(message) => Outcome::Failed { message },
            },
            () = self.taken_back(task) => Outcome::Failed { message: TAKEN_BACK.into() },
        };
        if let Outcome::Failed { message } = &outcome {
            tracing::warn!(task = %task.id, %message, "task failed");
        }
        self.result(task, outcome).await;
    }

    async fn ask_runner(&self, work: &Work) -> Result<StepDone, String> {
        let since = Instant::now();
        let mut back_off = BackOff::default();
        loop {
            let error = match self.ask_once(work).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if !error.not_asked() || since.elapsed() > RUNNER_AWAY {
                return Err(match error {
                    // The runner's own sentence.
                    CallError::Refused { title, .. } => title,
                    other => Chain(&other).to_string(),
                });
            }
            back_off.wait().await;
        }
    }

    async fn ask_once(&self, work: &Work) -> Result<StepDone, CallError> {
        let runner = self.runner;
        match work {
            Work::VmSetup(of) => runner.ask("/setup", of, RUNNER_WITHIN).await,
            Work::VmSuspend(of) => runner.ask("/suspend", of, RUNNER_WITHIN).await,
            Work::VmDestroy(destroy) => runner.ask("/destroy", destroy, RUNNER_WITHIN).await,
            Work::AgentStart(start) => {
                let step = Step::Start(start.clone());
                runner.ask("/step", &step, RUNNER_WITHIN).await
            }
            Work::AgentStop(of) => {
                let step = Step::Stop(of.clone());
                runner.ask("/step", &step, RUNNER_WITHIN).await
            }
        }
    }

    /// Resolves when the control plane says that the lease is another's, or nobody's.
    async fn taken_back(&self, task: &Task) {
        for seq in 1.. {
            tokio::time::sleep(self.every).await;
            if matches!(self.progress(task, seq, Vec::new()).await, Err(error) if gone(&error)) {
                return;
            }
        }
    }

    async fn progress(&self, task: &Task, seq: u64, lines: Vec<String>) -> Result<(), CallError> {
        let progress = Progress {
            lease: task.lease.clone(),
            seq,
            lines,
        };
        let path = format!("/v1/tasks/{}/progress", task.id);
        self.control_plane.tell(&path, &progress, CALL_WITHIN).await
    }

    async fn result(&self, task: &Task, outcome: Outcome) {
        let path = format!("/v1/tasks/{}/result", task.id);
        let result = TaskResult {
            lease: task.lease.clone(),
            outcome,
        };
        let mut back_off = BackOff::default();
        loop {
            match self.control_plane.tell(&path, &result, CALL_WITHIN).await {
                Ok(()) => return tracing::info!(task = %task.id, "task ends"),
                Err(error) if gone(&error) => {
                    return tracing::info!(task = %task.id, "the task is another's by now, or was cancelled; its result is dropped");
                }
                Err(error) if hopeless(&error) => {
                    return tracing::error!(task = %task.id, error = %Chain(&error), "the result was refused; the task is handed out again");
                }
                Err(error) => {
                    tracing::debug!(task = %task.id, error = %Chain(&error), "the result was not taken; trying again");
                }
            }
            back_off.wait().await;
        }
    }
}

/// The number of the report after the others.
const LAST_REPORT: u64 = u32::MAX as u64;

fn gone(error: &CallError) -> bool {
    matches!(
        error.status(),
        Some(StatusCode::CONFLICT | StatusCode::NOT_FOUND)
    )
}

/// Whether the same will be refused again. A token may be put right meanwhile, and so may a rate.
fn hopeless(error: &CallError) -> bool {
    error.status().is_some_and(|status| {
        status.is_client_error()
            && !matches!(
                status,
                StatusCode::UNAUTHORIZED
                    | StatusCode::FORBIDDEN
                    | StatusCode::REQUEST_TIMEOUT
                    | StatusCode::TOO_MANY_REQUESTS
            )
    })
}
