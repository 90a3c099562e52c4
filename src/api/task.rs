//! Work for a delegate: kinds, payloads, leases, and how delegates register, report and answer.
//!
//! A task is handed out under a lease. Its result is idempotent: the same one may be sent twice.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{
    activity::Typed,
    gitspace::{ForwardedPort, Ide},
    id::{GitspaceId, InstanceId},
};

/// `POST /v1/delegates`: a delegate says that it is there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Register {
    /// Its name; the same name after a restart is the same delegate.
    pub name: String,
    /// What it may be chosen by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// How many tasks it takes at once.
    pub capacity: u32,
    /// The identifier of the runner behind it: tasks of host-bound pools come back to it.
    pub runner: String,
}

/// The answer to [`Register`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Registered {
    /// The delegate's identifier in further calls.
    pub id: String,
    /// How often to send a heartbeat, in seconds.
    pub heartbeat_seconds: u64,
}

/// `POST /v1/delegates/{id}/heartbeat`: still there, and working on these tasks (their leases are renewed).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Identifiers of the tasks under way.
    pub tasks: Vec<String>,
    /// Gitspaces where somebody typed into a terminal since the last heartbeat.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub typed: Vec<Typed>,
}

/// One unit of work, as `POST /v1/delegates/{id}/acquire?wait=30` answers it (204: none).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    /// Its identifier; also its idempotency key.
    pub id: String,
    /// How many times it was handed out, from 1.
    pub attempt: u32,
    /// Names this hand-out; progress and results of an older one are refused with 409.
    pub lease: String,
    /// Until when, without a heartbeat, it counts as lost; seconds from now.
    pub lease_seconds: u64,
    /// What to do.
    #[serde(flatten)]
    pub work: Work,
}

/// What a task does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "payload")]
pub enum Work {
    /// Make the instance, or bring a suspended one back.
    #[serde(rename = "vm.setup")]
    VmSetup(InstanceRef),
    /// Suspend it and keep everything.
    #[serde(rename = "vm.suspend")]
    VmSuspend(InstanceRef),
    /// Destroy it.
    #[serde(rename = "vm.destroy")]
    VmDestroy(Destroy),
    /// Set up repository and IDE in it.
    #[serde(rename = "agent.start")]
    AgentStart(Start),
    /// Stop the IDE.
    #[serde(rename = "agent.stop")]
    AgentStop(InstanceRef),
}

/// Names an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRef {
    /// The gitspace.
    pub gitspace: GitspaceId,
    /// Its instance.
    pub instance: InstanceId,
}

/// Payload of `vm.destroy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destroy {
    /// Which instance.
    #[serde(flatten)]
    pub of: InstanceRef,
    /// Delete the data too (delete), or keep it (reset).
    pub delete_data: bool,
}

/// Payload of `agent.start`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Which instance.
    #[serde(flatten)]
    pub of: InstanceRef,
    /// What to clone, unless it is there already.
    pub repository: String,
    /// Which branch. None: the default.
    pub branch: Option<String>,
    /// Which IDE.
    pub ide: Ide,
    /// Which ports to forward.
    pub ports: Vec<ForwardedPort>,
    /// Whether the repository's own start commands may run.
    pub trust: bool,
}

/// `POST /v1/tasks/{id}/progress`: what a task is doing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Progress {
    /// The lease under which it was handed out.
    pub lease: String,
    /// Number of this report within the lease; one already seen is ignored.
    pub seq: u64,
    /// Lines for the gitspace's events.
    pub lines: Vec<String>,
}

/// `POST /v1/tasks/{id}/result`: how a task ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskResult {
    /// The lease under which it was handed out.
    pub lease: String,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// It was done.
    Done(Done),
    /// It failed: a sentence for the user that says what was wrong and what to do.
    Failed {
        /// The sentence.
        message: String,
    },
}

/// What a done task has to tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// `vm.setup`: where the instance is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// `agent.start`: the port on that address where the IDE answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ide_port: Option<u16>,
    /// `agent.start`: forwarded port → (port on that address). Includes those that devcontainer.json names.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "port_keys"
    )]
    pub ports: BTreeMap<u16, u16>,
    /// `agent.start`: path that the IDE should be opened at, e.g. `/?folder=/home/dev/api`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ide_path: Option<String>,
}

/// Reads a map with ports as keys. JSON's keys are texts, and serde does not turn them into numbers inside a flattened
/// or tagged type.
fn port_keys<'de, D: serde::Deserializer<'de>>(from: D) -> Result<BTreeMap<u16, u16>, D::Error> {
    BTreeMap::<String, u16>::deserialize(from)?
        .into_iter()
        .map(|(key, value)| match key.parse() {
            Ok(port) => Ok((port, value)),
            Err(_) => Err(serde::de::Error::custom(format_args!(
                "ports: {key:?} is no port; a number from 1 to 65535 is"
            ))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_with_ports_is_read_as_it_was_written() {
        let done = Done {
            ports: [(3000, 13_000)].into(),
            ide_port: Some(1),
            ..Done::default()
        };
        let sent = TaskResult {
            lease: "l".into(),
            outcome: Outcome::Done(done),
        };
        let text = serde_json::to_string(&sent).unwrap();
        let read: TaskResult = serde_json::from_str(&text).unwrap();
        assert_eq!(read.outcome, sent.outcome);
        assert!(serde_json::from_str::<Done>(r#"{"ports":{"x":1}}"#).is_err());
    }
}
