//! A task on its way: to the runner, and its progress and result back.
//!
//! A result is sent until the control plane has it, or says that the task is another's by now. While the runner works, the lease
//! is asked after: a task that was taken back is let go of, so that what follows it need not wait. What the agent says is passed on
//! as it comes.

use std::{pin::pin, time::Duration};

use reqwest::StatusCode;
use tokio::time::Instant;

use super::{
    back_off::BackOff,
    call::{CallError, Peer},
    said::Said,
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
/// How often an agent that works is asked what it says.
const LOOK: Duration = Duration::from_secs(1);
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
        let mut said = Said::while_doing(&task.work, self.runner).await;
        let mut reports = Reports::default();
        let outcome = match self.follow(task, &mut said, &mut reports).await {
            Some(Ok(StepDone { done, lines })) => {
                match said.is_followed() {
                    // They were told when they came.
                    true => self.rest(task, &mut said, &mut reports, "").await,
                    false => self.report(task, &mut reports, lines).await,
                };
                Outcome::Done(done)
            }
            Some(Err(message)) => {
                self.rest(task, &mut said, &mut reports, &message).await;
                Outcome::Failed { message }
            }
            None => Outcome::Failed {
                message: TAKEN_BACK.into(),
            },
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

    /// What the runner makes of it; None if the task was taken back meanwhile. What the agent says is passed on as it comes.
    async fn follow(
        &self,
        task: &Task,
        said: &mut Said<'_>,
        reports: &mut Reports,
    ) -> Option<Result<StepDone, String>> {
        let mut asked = pin!(self.ask_runner(&task.work));
        let pause = match said.is_followed() {
            true => self.every.min(LOOK),
            false => self.every,
        };
        let mut lease_asked = Instant::now();
        loop {
            tokio::select! {
                done = &mut asked => return Some(done),
                () = tokio::time::sleep(pause) => {}
            }
            let lines = said.news().await;
            if lines.is_empty() && lease_asked.elapsed() < self.every {
                continue;
            }
            lease_asked = Instant::now();
            let told = self.progress(task, reports.next(), lines).await;
            if matches!(told, Err(error) if gone(&error)) {
                return None;
            }
        }
    }

    /// What is left to tell, but for what the result says.
    async fn rest(&self, task: &Task, said: &mut Said<'_>, reports: &mut Reports, result: &str) {
        loop {
            let mut lines = said.news().await;
            if lines.is_empty() {
                return;
            }
            lines.retain(|line| line != result);
            self.report(task, reports, lines).await;
        }
    }

    async fn report(&self, task: &Task, reports: &mut Reports, lines: Vec<String>) {
        if !lines.is_empty() {
            // Lines are a comfort: one that does not arrive is not sent again.
            let _ = self.progress(task, reports.next(), lines).await;
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

/// Numbers the reports of a task: one that comes twice is told once.
#[derive(Default)]
struct Reports(u64);

impl Reports {
    fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

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
