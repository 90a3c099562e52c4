//! How the runner speaks to an agent.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use super::driver::Machine;
use crate::api::problem::Problem;

/// A clone and an IDE's start fit into it; the agent has shorter deadlines of its own.
const WITHIN: Duration = Duration::from_secs(20 * 60);

/// Why an agent did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum AgentError {
    /// It says why: a sentence for the user.
    #[error("{0}")]
    Refused(String),
    /// It cannot be reached.
    #[error("the instance's agent does not answer")]
    Call(#[from] reqwest::Error),
}

/// `POST` to an agent.
pub(super) async fn ask<Q: Serialize, A: DeserializeOwned>(
    client: &reqwest::Client,
    machine: &Machine,
    path: &str,
    question: &Q,
) -> Result<A, AgentError> {
    let response = client
        .post(format!("http://{}{path}", machine.agent))
        .bearer_auth(machine.token.reveal())
        .timeout(WITHIN)
        .json(question)
        .send()
        .await?;
    if response.status().is_success() {
        return Ok(response.json().await?);
    }
    let status = response.status();
    match response.json::<Problem>().await {
        Ok(problem) => Err(AgentError::Refused(problem.title)),
        Err(_) => Err(AgentError::Refused(format!(
            "the instance's agent answered {status}"
        ))),
    }
}

/// `POST` to an agent that has nothing to say to it.
pub(super) async fn tell(
    client: &reqwest::Client,
    machine: &Machine,
    path: &str,
) -> Result<(), AgentError> {
    let request = client
        .post(format!("http://{}{path}", machine.agent))
        .bearer_auth(machine.token.reveal());
    request
        .timeout(Duration::from_secs(60))
        .send()
        .await?
        .error_for_status()?;
    Ok(())
}
