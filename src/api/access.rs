//! Who may use a port, and the claims of an access token.

use serde::{Deserialize, Serialize};

use super::id::GitspaceId;

/// Who may use a port of a gitspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Visibility {
    /// The owner, and whom a share or claim names.
    #[default]
    Private,
    /// Every principal of the route's organization.
    Organization,
    /// Anybody, without a token.
    Public,
}

/// What a request is for: the IDE, an app port, or SSH.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "PortClaim", into = "PortClaim")]
pub enum Port {
    /// The IDE: `<gitspace>.<domain>`.
    Ide,
    /// An app's port: `<gitspace>-<port>.<domain>`.
    App(u16),
    /// The gitspace's SSH server.
    Ssh,
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ide => f.write_str("ide"),
            Self::Ssh => f.write_str("ssh"),
            Self::App(port) => write!(f, "{port}"),
        }
    }
}

/// As it is shown.
impl std::str::FromStr for Port {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        // One spelling: no sign, no zero in front.
        let number = text
            .parse()
            .ok()
            .filter(|number: &u16| number.to_string() == text);
        number
            .map_or_else(|| PortClaim::Word(text.into()), PortClaim::Number)
            .try_into()
    }
}

/// How a [`Port`] is written in a token: `"ide"`, `"ssh"` or a number.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PortClaim {
    /// An app port.
    Number(u16),
    /// `ide` or `ssh`.
    Word(String),
}

impl TryFrom<PortClaim> for Port {
    type Error = String;
    fn try_from(claim: PortClaim) -> Result<Self, String> {
        match claim {
            PortClaim::Number(0) => Err("0 is no port".into()),
            PortClaim::Number(port) => Ok(Self::App(port)),
            PortClaim::Word(word) => match word.as_str() {
                "ide" => Ok(Self::Ide),
                "ssh" => Ok(Self::Ssh),
                other => Err(format!(
                    "{other:?} is no port; \"ide\", \"ssh\" or a number is"
                )),
            },
        }
    }
}

impl From<Port> for PortClaim {
    fn from(port: Port) -> Self {
        match port {
            Port::App(port) => Self::Number(port),
            named => Self::Word(named.to_string()),
        }
    }
}

/// What a token may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Use {
    /// Access as it is, until it expires.
    #[default]
    Access,
    /// Exchanged once for a session.
    Ticket,
}

/// One value or a list of them, as JWT claims are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// A single value.
    One(T),
    /// A list.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// The values.
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

/// The claims of an access token or ticket (RFC 7519 §4.1, and ours) as issuers of this program write them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claims {
    /// Who issued it.
    pub iss: String,
    /// Who acts.
    pub sub: String,
    /// For whom it is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<OneOrMany<String>>,
    /// Until when it holds, seconds since 1970.
    pub exp: i64,
    /// From when it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    /// When it was issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<i64>,
    /// Its own identifier; a ticket's is redeemed once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// The login it hangs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// Restricts it to these gitspaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gitspace: Option<OneOrMany<GitspaceId>>,
    /// Restricts it to these ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<Port>>,
    /// The principal's organization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    /// The principal's groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// What it may be used for.
    #[serde(rename = "use", default)]
    pub usage: Use,
}
