//! A pin: the digest of the one public key that an upstream may have.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

/// SHA-256 of a certificate's SubjectPublicKeyInfo (RFC 7469 §2.4), written `sha256/` and base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pin([u8; 32]);

/// What is written is no pin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no pin: `sha256/` and the base64 of the 32 bytes of the SHA-256 of a public key (SubjectPublicKeyInfo) are accepted"
)]
pub struct PinError;

impl Pin {
    /// The pin with this digest.
    pub fn new(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The digest.
    pub fn digest(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let digest = text.strip_prefix("sha256/").ok_or(PinError)?;
        let digest = STANDARD.decode(digest).map_err(|_| PinError)?;
        digest.try_into().map(Self).map_err(|_| PinError)
    }
}

impl TryFrom<String> for Pin {
    type Error = PinError;

    fn try_from(text: String) -> Result<Self, PinError> {
        text.parse()
    }
}

impl From<Pin> for String {
    fn from(pin: Pin) -> Self {
        pin.to_string()
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256/{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_reads_as_it_is_written() {
        let text = format!("sha256/{}", STANDARD.encode([7; 32]));
        assert_eq!(text.parse(), Ok(Pin::new([7; 32])));
        assert_eq!(Pin::new([7; 32]).to_string(), text);
    }

    #[test]
    fn what_is_no_pin_is_refused() {
        let short = format!("sha256/{}", STANDARD.encode([7; 31]));
        let other = format!("sha1/{}", STANDARD.encode([7; 32]));
        for bad in ["", "sha256/", "sha256/?", &short, &other] {
            assert_eq!(bad.parse::<Pin>(), Err(PinError), "{bad}");
        }
    }
}
