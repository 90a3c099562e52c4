//! A path that a static route claims of its host.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// `/alice/code`: segments of characters that have one spelling to every reader (unreserved, RFC 3986 §2.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RoutePath(Arc<str>);

/// Why a text is no such path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}; a path such as \"/alice/code\" is accepted: 1 to 8 segments of letters, digits, `-`, `.`, `_` and `~`, a slash before each and none at the end, 200 characters at most"
)]
pub struct PathError(&'static str);

impl RoutePath {
    /// The most segments.
    pub const SEGMENTS: usize = 8;
    /// The longest path, in bytes.
    pub const LENGTH: usize = 200;

    /// A path as an app has it that decodes what it was sent, once: its segments may have characters that are sent encoded. None if it
    /// can be read in another way still, or is too long.
    pub fn decoded(text: &str) -> Option<Self> {
        let doubtful =
            |character: char| matches!(character, '\\' | ';' | '%') || character.is_control();
        let good = |segment: &str| !matches!(segment, "" | "." | "..");
        let mut segments = text.strip_prefix('/')?.split('/');
        let ours = segments.clone().next()?.eq_ignore_ascii_case("_gitspace");
        let short = text.len() <= Self::LENGTH && segments.clone().count() <= Self::SEGMENTS;
        (!ours && short && !text.contains(doubtful) && segments.all(good))
            .then(|| Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How many segments it has.
    pub fn segments(&self) -> usize {
        self.0.bytes().filter(|byte| *byte == b'/').count()
    }
}

impl FromStr for RoutePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let unreserved =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        let Some(segments) = text.strip_prefix('/') else {
            return Err(PathError("does not begin with a slash"));
        };
        let mut segments = segments.split('/');
        if segments
            .clone()
            .next()
            .is_some_and(|first| first.eq_ignore_ascii_case("_gitspace"))
        {
            return Err(PathError("is the gateway's own"));
        }
        if text.len() > Self::LENGTH || segments.clone().count() > Self::SEGMENTS {
            return Err(PathError("is too long"));
        }
        segments.try_for_each(|segment| match segment {
            "" => Err(PathError("has an empty segment, or ends with a slash")),
            "." | ".." => Err(PathError("has a dot segment")),
            _ if segment.bytes().all(unreserved) => Ok(()),
            _ => Err(PathError("has a character that can be written in two ways")),
        })?;
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for RoutePath {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        text.parse()
    }
}

impl From<RoutePath> for String {
    fn from(path: RoutePath) -> Self {
        (*path.0).into()
    }
}

impl Borrow<str> for RoutePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_it_is_written() {
        for (text, segments) in [("/a", 1), ("/alice/code", 2), ("/A-z.~_0/.well/...", 3)] {
            let path: RoutePath = text.parse().unwrap();
            assert_eq!((path.as_str(), path.segments()), (text, segments));
        }
    }

    #[test]
    fn a_decoded_path_may_have_what_is_sent_encoded_and_nothing_doubtful() {
        for good in [
            "/user/ada@example.test",
            "/user/Ada L",
            "/user/\u{e4}",
            "/a?b#c",
        ] {
            assert_eq!(RoutePath::decoded(good).unwrap().as_str(), good);
        }
        let long = format!("/{}", "a".repeat(RoutePath::LENGTH));
        for bad in [
            "",
            "/",
            "a",
            "/a/",
            "//a",
            "/a//b",
            "/a/../b",
            "/.",
            "/a;b",
            "/a%41",
            "/a\\b",
            "/a\n",
            "/_gitspace/x",
            &long,
        ] {
            assert_eq!(RoutePath::decoded(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_no_path() {
        let long = format!("/{}", "a".repeat(RoutePath::LENGTH));
        let deep = "/a".repeat(RoutePath::SEGMENTS + 1);
        for bad in [
            "",
            "/",
            "a",
            "a/b",
            "//a",
            "/a//b",
            "/a/",
            "/.",
            "/..",
            "/a/..",
            "/a/./b",
            "/a%20b",
            "/a b",
            "/a?b",
            "/a#b",
            "/a;b",
            "/a\\b",
            "/\u{e4}",
            "/@alice",
            "/_gitspace",
            "/_GITSPACE/x",
            &long,
            &deep,
        ] {
            assert!(bad.parse::<RoutePath>().is_err(), "{bad}");
        }
        assert!("/a/_gitspace".parse::<RoutePath>().is_ok());
    }
}
