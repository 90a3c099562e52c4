//! A gitspace as users see it: its states, how it is asked for, how it is shown.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    access::Visibility,
    id::{GitspaceId, GitspaceName},
};

/// State of an instance. Final: `deleted`, `error`, `cleaned`. Busy: `starting`, `stopping`, `resetting`, `cleaning`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// No instance was made yet.
    Uninitialized,
    /// On the way up.
    Starting,
    /// It answers.
    Running,
    /// On the way down.
    Stopping,
    /// Suspended, all kept.
    Stopped,
    /// Its VM is being destroyed, its data kept.
    Resetting,
    /// Being released.
    Cleaning,
    /// Released.
    Cleaned,
    /// To be cleaned by a job.
    PendingCleanup,
    /// Gone with its data.
    Deleted,
    /// A step failed.
    Error,
}

/// State as it is shown to users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Never started, or its last instance is gone.
    Uninitialized,
    /// On the way up.
    Starting,
    /// It can be used.
    Running,
    /// On the way down.
    Stopping,
    /// Suspended.
    Stopped,
    /// Being reset or deleted.
    Cleaning,
    /// A step failed; `message` says which.
    Error,
}

impl From<InstanceState> for State {
    fn from(state: InstanceState) -> Self {
        use InstanceState as I;
        match state {
            I::Uninitialized | I::Deleted | I::Cleaned => Self::Uninitialized,
            I::Starting => Self::Starting,
            I::Running => Self::Running,
            I::Stopping => Self::Stopping,
            I::Stopped => Self::Stopped,
            I::Resetting | I::Cleaning | I::PendingCleanup => Self::Cleaning,
            I::Error => Self::Error,
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Uninitialized => "uninitialized",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Cleaning => "cleaning",
            Self::Error => "error",
        })
    }
}

/// Which IDE runs in a gitspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ide {
    /// The built-in page with a shell.
    #[default]
    Terminal,
    /// code-server, if it is installed in the instance.
    CodeServer,
}

impl std::str::FromStr for Ide {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "terminal" => Ok(Self::Terminal),
            "code-server" => Ok(Self::CodeServer),
            other => Err(format!(
                "{other:?} is no IDE; \"terminal\" and \"code-server\" are"
            )),
        }
    }
}

impl std::fmt::Display for Ide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Terminal => "terminal",
            Self::CodeServer => "code-server",
        })
    }
}

/// A port that a gitspace forwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForwardedPort {
    /// The public number.
    pub port: u16,
    /// Who may use it.
    #[serde(default)]
    #[schema(value_type = String, example = "private")]
    pub visibility: Visibility,
}

/// `POST /v1/gitspaces`: a new gitspace.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateGitspace {
    /// Its name; the identifier adds six characters.
    #[schema(value_type = String, example = "api")]
    pub name: GitspaceName,
    /// What is cloned: an `https://`, `ssh://` or `git@` URL, or an absolute path on the instance's host.
    pub repository: String,
    /// Which branch. None: the repository's default.
    #[serde(default)]
    pub branch: Option<String>,
    /// Which IDE.
    #[serde(default)]
    pub ide: Ide,
    /// Ports to forward beside those that the repository's devcontainer.json names.
    #[serde(default)]
    pub ports: Vec<ForwardedPort>,
    /// Whether the repository's own start commands may run (the process driver isolates nothing).
    #[serde(default)]
    pub trust: bool,
    /// Start it at once.
    #[serde(default = "yes")]
    pub start: bool,
}

fn yes() -> bool {
    true
}

/// A gitspace as the API shows it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Gitspace {
    /// Its identifier.
    #[schema(value_type = String, example = "api-k3x9q2")]
    pub id: GitspaceId,
    /// Its name.
    #[schema(value_type = String)]
    pub name: GitspaceName,
    /// Its owner.
    pub owner: String,
    /// Its state.
    pub state: State,
    /// Why it is in error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What was cloned.
    pub repository: String,
    /// Its branch, if one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Its IDE.
    pub ide: Ide,
    /// The ports that it forwards.
    pub ports: Vec<ForwardedPort>,
    /// Where it is reached (without a ticket).
    pub url: String,
    /// When it was created, RFC 3339.
    pub created: String,
    /// The steps of the last action, oldest first.
    pub events: Vec<Event>,
}

/// A step that a gitspace went through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// When, RFC 3339 with milliseconds.
    pub time: String,
    /// Stable label, e.g. `vm_setup_completed`.
    pub kind: String,
    /// A sentence.
    pub message: String,
}

/// `POST /v1/gitspaces/{id}/ticket`: a URL that opens the gitspace once, within a minute.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TicketRequest {
    /// Which app port. None: the IDE.
    #[serde(default)]
    pub port: Option<u16>,
}

/// The answer to [`TicketRequest`].
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Ticket {
    /// The URL with the ticket in it.
    pub url: String,
    /// Until when it can be redeemed, RFC 3339.
    pub expires: String,
}
