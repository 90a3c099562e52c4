//! Streams: what is under way at a gateway, as its admin API tells it.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, de::Error};

use super::{GitspaceId, access::Port};

/// The longest message, in bytes: a WebSocket's close frame takes no more (RFC 6455 §5.5).
pub const MESSAGE_MAX: usize = 120;

/// A request or stream that is under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stream {
    /// The identifier of its request, as in the access log.
    pub id: String,
    /// Who has it, as the gateway names it. None: nobody it knows, at a public port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// The login that it hangs on (`sid`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// The share by which it was let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<String>,
    /// The gitspace.
    pub gitspace: GitspaceId,
    /// The port.
    pub port: Port,
    /// Where it comes from.
    pub client: IpAddr,
    /// What it is: `http/1.1`, `h2`, or what it was switched to, such as `websocket`.
    pub protocol: String,
    /// Since when, seconds since 1970.
    pub since: i64,
    /// For how many seconds no byte has passed.
    pub idle: u64,
    /// When somebody typed something on it last, seconds since 1970. None: nobody did, or it cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub typed: Option<u64>,
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
}

/// Which streams: those that all of it fits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Which {
    /// One of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Those of a principal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// Those of a login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// Those by a share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<String>,
    /// Those to a gitspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gitspace: Option<GitspaceId>,
    /// Those to a port.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "port_as_shown"
    )]
    pub port: Option<Port>,
}

/// In a query a number is a text.
fn port_as_shown<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Port>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u16),
        Text(String),
    }
    let text = match Option::deserialize(deserializer)? {
        None => return Ok(None),
        Some(Written::Number(number)) => number.to_string(),
        Some(Written::Text(text)) => text,
    };
    text.parse().map(Some).map_err(D::Error::custom)
}

impl Which {
    /// Whether all are meant.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

/// Ends streams.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndStreams {
    /// Which.
    pub which: Which,
    /// Who ends them, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What the person is told, up to [`MESSAGE_MAX`] bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// How many streams were ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// So many.
    pub ended: usize,
}
