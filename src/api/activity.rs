//! Activity: what people did last at gitspaces, as a gateway's admin API tells it and is told; and what agents see of it, on the way
//! from the runner over delegate and control plane to the gateways.

use serde::{Deserialize, Serialize};

use super::{GitspaceId, access::Port};

/// A way of using a gitspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Its IDE.
    Ide,
    /// An app's port.
    Port,
    /// A terminal over SSH.
    Ssh,
    /// A terminal in the gitspace, however it is reached.
    Terminal,
    /// A program that was told to keep it awake, or another source than the gateway.
    Api,
}

impl Kind {
    /// All of them, in their order.
    pub const ALL: [Self; 5] = [Self::Ide, Self::Port, Self::Ssh, Self::Terminal, Self::Api];

    /// The kind of a port.
    pub const fn of(port: Port) -> Self {
        match port {
            Port::Ide => Self::Ide,
            Port::App(_) => Self::Port,
            Port::Ssh => Self::Ssh,
        }
    }
}

/// What a person did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    /// A page was opened.
    Opened,
    /// Something was typed into an editor or a terminal.
    Typed,
    /// A file was saved.
    Saved,
    /// Another source says that somebody did something.
    Told,
}

impl Deed {
    /// All of them, in their order.
    pub const ALL: [Self; 4] = [Self::Opened, Self::Typed, Self::Saved, Self::Told];
}

/// The last deed of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// How the gitspace was used.
    pub kind: Kind,
    /// What was done.
    pub deed: Deed,
    /// At which port, if it is an app's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// When, seconds since 1970.
    pub at: u64,
}

/// How a gitspace is used: `GET /v1/activity`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Used {
    /// The gitspace.
    pub gitspace: GitspaceId,
    /// When a person did something last, seconds since 1970. None: not since the gateway started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_since: Option<u64>,
    /// Why it is awake, or since when it is idle, in words.
    pub why: String,
    /// What was done last, of each kind of use.
    pub last: Vec<Last>,
    /// When anything passed last, whoever made it pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed: Option<u64>,
    /// Streams that are open now. They do not count by being open.
    pub streams: usize,
}

/// `POST /v1/activity`: somebody did something that the gateway did not see.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tell {
    /// Where.
    pub gitspace: GitspaceId,
    /// How it was used.
    #[serde(default = "api")]
    pub kind: Kind,
    /// When, seconds since 1970; not in the future. None: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
}

/// Somebody typed into a terminal of a gitspace, as its agent saw. An age and not a time, since clocks differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Typed {
    /// Where.
    pub gitspace: GitspaceId,
    /// How many seconds ago.
    pub ago: u64,
}

const fn api() -> Kind {
    Kind::Api
}
