//! What a runner asks of the agent in an instance: `POST /start /stop`, `GET /status`, `GET /logs?after=`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::gitspace::{ForwardedPort, Ide};

/// Variable in the environment of every process of an instance, by which a driver finds what is left of one.
pub const INSTANCE_MARK: &str = "GITSPACE_INSTANCE";

/// `POST /start`: clone the repository unless it is there, start the IDE unless it runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartRequest {
    /// The gitspace's identifier, for titles and names.
    pub gitspace: String,
    /// What to clone.
    pub repository: String,
    /// Which branch. None: the default.
    pub branch: Option<String>,
    /// Which IDE.
    pub ide: Ide,
    /// Which ports to forward beside those of devcontainer.json.
    pub ports: Vec<ForwardedPort>,
    /// Whether the repository's own start commands may run.
    pub trust: bool,
    /// The IDE's port when it ran before; taken again if it is free.
    #[serde(default)]
    pub ide_port_before: Option<u16>,
    /// Forwarded port → port where the app listened before.
    #[serde(default)]
    pub ports_before: BTreeMap<u16, u16>,
}

/// The answer to [`StartRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Started {
    /// Where the IDE listens.
    pub ide_port: u16,
    /// The path to open it at.
    pub ide_path: Option<String>,
    /// Forwarded port → port where the app is to listen.
    pub ports: BTreeMap<u16, u16>,
    /// What was done, line by line.
    pub lines: Vec<String>,
}

/// `GET /status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Whether the IDE runs.
    pub running: bool,
    /// Why it ended, if it did by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// How many seconds ago somebody typed last into a terminal of the instance. None: never, as far as the agent saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub typed_ago: Option<u64>,
}

/// `GET /logs?after=`: lines that came after a number.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Logs {
    /// The lines, a hundred at most.
    pub lines: Vec<String>,
    /// What to give as `after` next time.
    pub next: u64,
}
