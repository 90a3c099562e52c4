//! A protocol that a port may switch to beside WebSockets.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// `spdy/3.1`: a name as `Upgrade` has it (RFC 9110 §7.8), in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Upgrade(Arc<str>);

/// Why a text is no such name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no protocol to switch to; a name such as \"spdy/3.1\" is accepted, and no version of HTTP or TLS: requests in such a stream would pass no step of the gateway"
)]
pub struct UpgradeError(String);

impl Upgrade {
    const LENGTH: usize = 64;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Upgrade {
    type Err = UpgradeError;

    fn from_str(text: &str) -> Result<Self, UpgradeError> {
        let token = |text: &str| {
            let sign =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            !text.is_empty() && text.bytes().all(sign)
        };
        let lower = text.to_ascii_lowercase();
        let (name, version) = match lower.split_once('/') {
            Some((name, version)) => (name, Some(version)),
            None => (&*lower, None),
        };
        let http = matches!(name, "http" | "h2c" | "h2" | "h3" | "tls");
        match lower.len() <= Self::LENGTH && token(name) && version.is_none_or(token) && !http {
            true => Ok(Self(lower.into())),
            false => Err(UpgradeError(text.chars().take(Self::LENGTH).collect())),
        }
    }
}

impl TryFrom<String> for Upgrade {
    type Error = UpgradeError;

    fn try_from(text: String) -> Result<Self, UpgradeError> {
        text.parse()
    }
}

impl From<Upgrade> for String {
    fn from(upgrade: Upgrade) -> Self {
        upgrade.0.as_ref().into()
    }
}

impl fmt::Display for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tokens_and_no_version_of_http() {
        for (text, read) in [("tcp", "tcp"), ("SPDY/3.1", "spdy/3.1"), ("x-y", "x-y")] {
            assert_eq!(text.parse::<Upgrade>().unwrap().as_str(), read);
        }
        let long = "x".repeat(65);
        for other in [
            "", "/", "a/", "a b", "a,b", "a/b/c", "h2c", "HTTP/2.0", "TLS/1.0", "h3", &long,
        ] {
            assert!(other.parse::<Upgrade>().is_err(), "{other}");
        }
    }
}
