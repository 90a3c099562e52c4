//! Shares: who may use a port beside its owner, and until when.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::access::Port;

/// The longest name that a share may be for, in bytes.
const NAME_MAX: usize = 256;
/// The longest identifier, in bytes.
const ID_MAX: usize = 64;

/// One port of a gitspace for somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Its own identifier, never used again.
    pub id: Arc<str>,
    /// Which port.
    pub port: Port,
    /// For whom.
    pub to: Audience,
    /// Until when, seconds since 1970. None: until it is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
}

/// For whom a [`Share`] is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Audience {
    /// Whoever has its signed link.
    Link,
    /// A principal, as the gateway names it: the issuer's prefix and `sub`.
    User(Arc<str>),
    /// A group, with its issuer's prefix.
    Group(Arc<str>),
    /// An organization, with its issuer's prefix.
    Organization(Arc<str>),
}

/// Why a share cannot be taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ShareError {
    /// An identifier that cannot be one.
    #[error("`id` must have 1 to {ID_MAX} of the characters a-z, A-Z, 0-9, _ and -")]
    Id,
    /// A name that cannot be one.
    #[error("`to` must name somebody with 1 to {NAME_MAX} bytes and no control characters")]
    Name,
}

impl Share {
    /// Whether it can be taken.
    pub fn check(&self) -> Result<(), ShareError> {
        let id = &*self.id;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if !(1..=ID_MAX).contains(&id.len()) || !id.bytes().all(allowed) {
            return Err(ShareError::Id);
        }
        match &self.to {
            Audience::Link => Ok(()),
            Audience::User(name) | Audience::Group(name) | Audience::Organization(name) => {
                let good = (1..=NAME_MAX).contains(&name.len()) && !name.contains(char::is_control);
                good.then_some(()).ok_or(ShareError::Name)
            }
        }
    }

    /// Whether it counts at a moment, seconds since 1970.
    pub fn counts(&self, now: i64) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn share(value: serde_json::Value) -> Result<Share, serde_json::Error> {
        serde_json::from_value(value)
    }

    #[test]
    fn it_is_written_as_the_contract_says() {
        for (to, meant) in [
            (json!("link"), Audience::Link),
            (
                json!({ "user": "hub:ada" }),
                Audience::User("hub:ada".into()),
            ),
            (json!({ "group": "dev" }), Audience::Group("dev".into())),
            (
                json!({ "organization": "acme" }),
                Audience::Organization("acme".into()),
            ),
        ] {
            let one = share(json!({ "id": "s1", "port": 3000, "to": to })).unwrap();
            assert_eq!(
                (one.port, &one.to, one.until),
                (Port::App(3000), &meant, None)
            );
            assert_eq!(one.check(), Ok(()));
            assert_eq!(serde_json::to_value(&one).unwrap()["to"], to);
        }
        assert!(share(json!({ "id": "s1", "port": 3000, "to": "everybody" })).is_err());
        assert!(share(json!({ "id": "s1", "port": 3000, "to": "link", "for": "x" })).is_err());
    }

    #[test]
    fn what_cannot_be_one_is_told() {
        for (id, name, why) in [
            ("", "ada", ShareError::Id),
            ("a b", "ada", ShareError::Id),
            (&"x".repeat(65), "ada", ShareError::Id),
            ("s1", "", ShareError::Name),
            ("s1", "a\nb", ShareError::Name),
            ("s1", &"x".repeat(257), ShareError::Name),
        ] {
            let one = share(json!({ "id": id, "port": "ide", "to": { "user": name } })).unwrap();
            assert_eq!(one.check(), Err(why));
        }
    }

    #[test]
    fn it_counts_until_its_end() {
        let one = share(json!({ "id": "s1", "port": "ide", "to": "link", "until": 10 })).unwrap();
        assert!(one.counts(9) && !one.counts(10));
    }
}
