//! What a delegate asks of a runner: `POST /setup /step /said /suspend /destroy`, `GET /pool_owner /typed /healthz /metrics`.
//!
//! `GET /typed`: the running gitspaces into whose terminals somebody typed, and when that was last (`api::activity::Typed`).
//!
//! All of them may be sent twice. Long steps answer when they are done; what the agent says meanwhile is told by `/said`.

use serde::{Deserialize, Serialize};

use super::task::{Done, InstanceRef, Start};

/// `POST /step`: something that the agent in the instance does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// Set up repository and IDE.
    Start(Start),
    /// Stop the IDE.
    Stop(InstanceRef),
}

/// Answer of `/setup` and `/step`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StepDone {
    /// What came out.
    #[serde(flatten)]
    pub done: Done,
    /// Lines that tell what happened, for the gitspace's events.
    #[serde(default)]
    pub lines: Vec<String>,
}

/// `POST /said`: what the agent of an instance said. The answer is a page of [`super::agent::Logs`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Said {
    /// Which instance.
    #[serde(flatten)]
    pub of: InstanceRef,
    /// From which line on. None: from the next one on, so that the answer has no line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

/// Answer of `GET /pool_owner`: who this runner is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PoolOwner {
    /// The runner's identifier, kept over restarts.
    pub runner: String,
    /// The driver behind it.
    pub driver: String,
    /// Whether its instances live on this host only, so that their tasks must come back to it.
    pub host_bound: bool,
}
