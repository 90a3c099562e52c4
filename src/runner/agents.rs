//! How the runner speaks to an agent.

use std::time::Duration;

use reqwest::{RequestBuilder, Response, redirect::Policy};
use serde::de::DeserializeOwned;

use super::driver::Machine;
use crate::api::{
    agent::{Logs, StartRequest, Started, Status},
    problem::Problem,
};

/// A clone and an IDE's start fit into it; the agent has shorter deadlines of its own.
const START_WITHIN: Duration = Duration::from_secs(20 * 60);
const STOP_WITHIN: Duration = Duration::from_secs(30);
const STATUS_WITHIN: Duration = Duration::from_secs(5);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// The largest answer.
const ANSWER_MAX: usize = 1024 * 1024;

/// Why an agent did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum AgentError {
    /// It says why: a sentence for the user.
    #[error("{0}")]
    Refused(String),
    /// It cannot be reached, or went away.
    #[error(
        "the instance's agent does not answer: it ended, or the gitspace was stopped meanwhile"
    )]
    Call(#[source] reqwest::Error),
    /// It is no agent of ours.
    #[error("the instance's agent gave an answer that cannot be read")]
    Answer,
}

/// Speaks to agents.
pub(super) struct Agents(reqwest::Client);

impl Agents {
    pub(super) fn new() -> Result<Self, reqwest::Error> {
        // Agents are near: whatever proxy the environment names is not for them.
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .connect_timeout(CONNECT_WITHIN);
        client.build().map(Self)
    }

    pub(super) async fn start(
        &self,
        machine: &Machine,
        request: &StartRequest,
    ) -> Result<Started, AgentError> {
        let call = self.post(machine, "/start", START_WITHIN).json(request);
        json(send(call).await?).await
    }

    pub(super) async fn stop(&self, machine: &Machine) -> Result<(), AgentError> {
        send(self.post(machine, "/stop", STOP_WITHIN)).await?;
        Ok(())
    }

    pub(super) async fn status(&self, machine: &Machine) -> Result<Status, AgentError> {
        let url = format!("http://{}/status", machine.agent);
        let call = self.0.get(url).bearer_auth(machine.token.reveal());
        json(send(call.timeout(STATUS_WITHIN)).await?).await
    }

    /// What it said from a number on.
    pub(super) async fn logs(&self, machine: &Machine, after: u64) -> Result<Logs, AgentError> {
        let url = format!("http://{}/logs?after={after}", machine.agent);
        let call = self.0.get(url).bearer_auth(machine.token.reveal());
        json(send(call.timeout(STATUS_WITHIN)).await?).await
    }

    fn post(&self, machine: &Machine, path: &str, within: Duration) -> RequestBuilder {
        let url = format!("http://{}{path}", machine.agent);
        let call = self.0.post(url).bearer_auth(machine.token.reveal());
        call.timeout(within)
    }
}

/// The answer, if it is a good one.
async fn send(call: RequestBuilder) -> Result<Response, AgentError> {
    let response = call.send().await.map_err(AgentError::Call)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    match json::<Problem>(response).await {
        Ok(problem) => Err(AgentError::Refused(problem.title)),
        Err(_) => Err(AgentError::Refused(format!(
            "the instance's agent answered {status}"
        ))),
    }
}

async fn json<T: DeserializeOwned>(mut response: Response) -> Result<T, AgentError> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(AgentError::Call)? {
        if body.len() + piece.len() > ANSWER_MAX {
            return Err(AgentError::Answer);
        }
        body.extend_from_slice(&piece);
    }
    serde_json::from_slice(&body).map_err(|_| AgentError::Answer)
}
