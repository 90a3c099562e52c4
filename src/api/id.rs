//! Identifiers: what a gitspace and an instance are called.
//!
//! A [`GitspaceId`] is also a DNS label, since it is the first label of the host under which the gitspace is reached.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The longest DNS label (RFC 1035 §2.3.4).
const LABEL_MAX: usize = 63;
/// The longest name; `-` and six more characters make the identifier.
const NAME_MAX: usize = 50;
const SUFFIX: usize = 6;

/// Why a text is no identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// Longer than allowed.
    #[error("has {found} characters, at most {max} are allowed")]
    TooLong {
        /// How many there were.
        found: usize,
        /// How many may be.
        max: usize,
    },
    /// A character outside `[a-z0-9-]`.
    #[error("contains {0:?}; only a-z, 0-9 and - are allowed")]
    Character(char),
    /// A dash at either end.
    #[error("starts or ends with a dash")]
    Dash,
}

/// Checks the characters and dashes of a DNS label in lower case.
fn check_label(text: &str, max: usize) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > max {
        return Err(IdError::TooLong {
            found: text.len(),
            max,
        });
    }
    if let Some(bad) = text
        .chars()
        .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-'))
    {
        return Err(IdError::Character(bad));
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err(IdError::Dash);
    }
    Ok(())
}

macro_rules! text_type {
    ($type:ident) => {
        impl $type {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $type {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }
        impl From<$type> for String {
            fn from(value: $type) -> Self {
                (*value.0).into()
            }
        }
    };
}

/// Identifier of a gitspace: `name` + `-` + 6 of `[a-z0-9]`, or any DNS label for a static route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GitspaceId(std::sync::Arc<str>);

text_type!(GitspaceId);

impl FromStr for GitspaceId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        check_label(text, LABEL_MAX)?;
        Ok(Self(text.into()))
    }
}

impl std::borrow::Borrow<str> for GitspaceId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl GitspaceId {
    /// That of no gitspace: no label has a dot.
    pub(crate) fn nobodys() -> Self {
        Self(".".into())
    }

    /// The identifier for `name`, made unlike others by `random`.
    pub fn new(name: &GitspaceName, random: [u8; SUFFIX]) -> Self {
        Self(format!("{name}-{}", suffix(random)).into())
    }
}

/// What a user calls a gitspace: ≤ 50 of `[a-z0-9-]`, no dash at either end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GitspaceName(String);

text_type!(GitspaceName);

impl FromStr for GitspaceName {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        check_label(text, NAME_MAX)?;
        Ok(Self(text.into()))
    }
}

/// Identifier of an instance: the gitspace's identifier + `.` + 6 of `[a-z0-9]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId(std::sync::Arc<str>);

text_type!(InstanceId);

impl FromStr for InstanceId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let (gitspace, own) = text.split_once('.').ok_or(IdError::Empty)?;
        check_label(gitspace, LABEL_MAX)?;
        check_label(own, SUFFIX)?;
        Ok(Self(text.into()))
    }
}

impl InstanceId {
    /// The gitspace's identifier in it.
    pub fn gitspace(&self) -> &str {
        self.0
            .split_once('.')
            .map_or(&self.0, |(gitspace, _)| gitspace)
    }

    /// The identifier of a new instance of `gitspace`.
    pub fn new(gitspace: &GitspaceId, random: [u8; SUFFIX]) -> Self {
        Self(format!("{gitspace}.{}", suffix(random)).into())
    }
}

/// Six characters of `[a-z0-9]` out of six random bytes (the small bias does not matter: they tell apart, they guard nothing).
fn suffix(random: [u8; SUFFIX]) -> String {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    random
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_label_of_at_most_50() {
        assert!("my-repo2".parse::<GitspaceName>().is_ok());
        assert_eq!("".parse::<GitspaceName>(), Err(IdError::Empty));
        assert_eq!("-a".parse::<GitspaceName>(), Err(IdError::Dash));
        assert_eq!("aB".parse::<GitspaceName>(), Err(IdError::Character('B')));
        assert_eq!(
            "a".repeat(51).parse::<GitspaceName>(),
            Err(IdError::TooLong { found: 51, max: 50 })
        );
    }

    #[test]
    fn identifiers_made_here_parse_again() {
        let name: GitspaceName = "api".parse().unwrap();
        let id = GitspaceId::new(&name, [0, 1, 35, 36, 255, 9]);
        assert_eq!(id.as_str(), "api-ab9adj");
        assert_eq!(id.as_str().parse::<GitspaceId>().unwrap(), id);
        let instance = InstanceId::new(&id, [1; 6]);
        assert_eq!(instance.as_str().parse::<InstanceId>().unwrap(), instance);
    }
}
