//! Numbers of bytes as configuration writes them: `"512KiB"`, `"20MiB"`, `"1GiB"`, or `"off"`.

use std::{fmt, num::NonZeroU64};

use serde::{Deserialize, Deserializer, de};

/// A number of bytes, or no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteLimit {
    /// As many as there are.
    Off,
    /// So many.
    Bytes(NonZeroU64),
}

impl ByteLimit {
    /// How many, unless it is off.
    pub fn bytes(self) -> Option<NonZeroU64> {
        match self {
            Self::Off => None,
            Self::Bytes(bytes) => Some(bytes),
        }
    }
}

/// Parses `"512KiB"`, `"20MiB"`, `"1GiB"`.
fn parse(text: &str) -> Result<NonZeroU64, String> {
    let problem = || {
        format!(
            "{text:?} is no number of bytes; write a whole number of 1 or more and a unit, such as \"512KiB\", \"20MiB\" or \"1GiB\", or \"off\""
        )
    };
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .ok_or_else(problem)?;
    let number: u64 = text[..digits].parse().map_err(|_| problem())?;
    let unit = match &text[digits..] {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(problem()),
    };
    let bytes = number.checked_mul(unit).and_then(NonZeroU64::new);
    bytes.ok_or_else(problem)
}

impl<'de> Deserialize<'de> for ByteLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text)
    }
}

struct Text;

impl de::Visitor<'_> for Text {
    type Value = ByteLimit;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes such as \"20MiB\", or \"off\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteLimit, E> {
        if text == "off" {
            return Ok(ByteLimit::Off);
        }
        parse(text).map(ByteLimit::Bytes).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_understood() {
        assert_eq!(parse("512KiB").unwrap().get(), 512 * 1024);
        assert_eq!(parse("20MiB").unwrap().get(), 20 * 1024 * 1024);
        assert_eq!(parse("1GiB").unwrap().get(), 1024 * 1024 * 1024);
    }

    #[test]
    fn others_are_refused_with_an_example() {
        for bad in [
            "",
            "20",
            "MiB",
            "0MiB",
            "20 MiB",
            "1.5MiB",
            "-1MiB",
            "20MB",
            "20mib",
            "18446744073709551615KiB",
        ] {
            assert!(parse(bad).unwrap_err().contains("\"20MiB\""), "{bad}");
        }
    }
}
