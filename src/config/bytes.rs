//! Rates of bytes as configuration writes them: `"512KiB"`, `"20MiB"`, `"1GiB"`, each per second, or `"off"`.

use std::{fmt, num::NonZeroU64};

use serde::{Deserialize, Deserializer, de};

/// Bytes per second, or no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRate {
    /// As many as there are.
    Off,
    /// So many.
    PerSecond(NonZeroU64),
}

impl ByteRate {
    /// The rate, unless it is off.
    pub fn per_second(self) -> Option<NonZeroU64> {
        match self {
            Self::Off => None,
            Self::PerSecond(bytes) => Some(bytes),
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

impl<'de> Deserialize<'de> for ByteRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text)
    }
}

struct Text;

impl de::Visitor<'_> for Text {
    type Value = ByteRate;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes per second such as \"20MiB\", or \"off\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteRate, E> {
        if text == "off" {
            return Ok(ByteRate::Off);
        }
        parse(text).map(ByteRate::PerSecond).map_err(E::custom)
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
