//! Durations as configuration writes them: `"250ms"`, `"8s"`, `"15m"`, `"1h"`, and `"off"` where a timeout may be off.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, de};

/// A timeout that may be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeout {
    /// Never.
    Off,
    /// After so long.
    After(Duration),
}

impl Timeout {
    /// The duration, unless it is off.
    pub fn duration(self) -> Option<Duration> {
        match self {
            Self::Off => None,
            Self::After(duration) => Some(duration),
        }
    }
}

/// Parses `"250ms"`, `"8s"`, `"15m"`, `"1h"`, `"2d"`.
fn parse(text: &str) -> Result<Duration, String> {
    let problem = || {
        format!(
            "{text:?} is no duration; write a whole number and a unit, such as \"250ms\", \"8s\", \"15m\" or \"1h\""
        )
    };
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .ok_or_else(problem)?;
    let number: u64 = text[..digits].parse().map_err(|_| problem())?;
    let unit_millis = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(problem()),
    };
    number
        .checked_mul(unit_millis)
        .map(Duration::from_millis)
        .ok_or_else(problem)
}

/// For `#[serde(deserialize_with)]` on a plain [`Duration`].
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = deserializer.deserialize_str(Text)?;
    parse(&text).map_err(de::Error::custom)
}

impl<'de> Deserialize<'de> for Timeout {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = deserializer.deserialize_str(Text)?;
        if text == "off" {
            return Ok(Self::Off);
        }
        parse(&text).map(Self::After).map_err(de::Error::custom)
    }
}

struct Text;

impl de::Visitor<'_> for Text {
    type Value = String;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as \"8s\"")
    }
    fn visit_str<E>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_understood() {
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(parse("2d"), Ok(Duration::from_secs(172_800)));
    }

    #[test]
    fn others_are_refused_with_an_example() {
        for bad in [
            "",
            "8",
            "s",
            "8 s",
            "1.5s",
            "-1s",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(parse(bad).unwrap_err().contains("\"8s\""), "{bad}");
        }
    }
}
