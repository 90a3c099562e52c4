//! Revocations: what no longer counts, though its signature and time are good.

use serde::{Deserialize, Serialize};

use super::{GitspaceId, access::Port};

/// The longest identifier, and the longest `by` and `reason`, in bytes.
const TEXT_MAX: usize = 256;

/// What was issued for something at or before a moment counts no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// Of what.
    pub kind: RevocationKind,
    /// Which one: see [`RevocationKind`].
    pub id: String,
    /// Seconds since 1970: tokens and sessions that were issued then or before. Those that do not say when count as older.
    #[serde(default)]
    pub issued_before: Option<i64>,
    /// When it may be forgotten, seconds since 1970, because nothing that was issued before still holds. None: never.
    #[serde(default)]
    pub until: Option<i64>,
    /// Who revoked it.
    #[serde(default)]
    pub by: Option<String>,
    /// Why: for the log and the list.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RevocationKind {
    /// One token: its `jti`, and the session that came of it.
    Jti,
    /// A login: all that has this `sid`.
    Sid,
    /// A principal, by the name that the gateway knows it under (the issuer's prefix and `sub`).
    Sub,
    /// A share: whom it let in is refused, whenever they came.
    Share,
    /// A port of a gitspace: `api-k3x9q2/3000`, `api-k3x9q2/ide`.
    Port,
    /// A gitspace with all its ports.
    Gitspace,
}

impl RevocationKind {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jti => "token",
            Self::Sid => "login",
            Self::Sub => "user",
            Self::Share => "share",
            Self::Port => "port",
            Self::Gitspace => "gitspace",
        }
    }
}

/// Why a revocation cannot be taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RevocationError {
    /// An identifier that cannot be one.
    #[error("`id` is {id:?}, which is no {what}")]
    Id {
        /// What was given.
        id: String,
        /// What it must be.
        what: &'static str,
    },
    /// A text that is empty, too long, or has control characters.
    #[error("`{0}` must have 1 to {TEXT_MAX} bytes and no control characters")]
    Text(&'static str),
    /// It ends before it begins.
    #[error("`until` must be later than `issued_before`")]
    Until,
}

impl Revocation {
    /// Whether it can be taken.
    pub fn check(&self) -> Result<(), RevocationError> {
        let good =
            |text: &str| (1..=TEXT_MAX).contains(&text.len()) && !text.contains(char::is_control);
        let texts = [
            ("id", Some(&self.id)),
            ("by", self.by.as_ref()),
            ("reason", self.reason.as_ref()),
        ];
        for (name, text) in texts {
            if text.is_some_and(|text| !good(text)) {
                return Err(RevocationError::Text(name));
            }
        }
        let what = match self.kind {
            RevocationKind::Jti
            | RevocationKind::Sid
            | RevocationKind::Sub
            | RevocationKind::Share => None,
            RevocationKind::Port if port(&self.id).is_none() => {
                Some("port such as \"api-k3x9q2/3000\" or \"api-k3x9q2/ide\"")
            }
            RevocationKind::Gitspace if self.id.parse::<GitspaceId>().is_err() => {
                Some("gitspace such as \"api-k3x9q2\"")
            }
            RevocationKind::Port | RevocationKind::Gitspace => None,
        };
        if let Some(what) = what {
            return Err(RevocationError::Id {
                id: self.id.clone(),
                what,
            });
        }
        match (self.issued_before, self.until) {
            (Some(before), Some(until)) if until <= before => Err(RevocationError::Until),
            _ => Ok(()),
        }
    }

    /// This one, and what is known of the same thing: the later moment counts, and the later end, so that it never revokes less.
    #[must_use]
    pub fn joined(self, known: &Self) -> Self {
        let until = known.until.zip(self.until);
        Self {
            issued_before: known.issued_before.max(self.issued_before),
            until: until.map(|(one, other)| one.max(other)),
            ..self
        }
    }
}

/// What was revoked at a gateway, and how far that reaches.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Revoked {
    /// Who refuses it from now on.
    pub reaches: Reach,
    /// Why not more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What counts now.
    pub revocations: Vec<Revocation>,
}

/// Who refuses what was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reach {
    /// The gateway that was asked.
    #[serde(rename = "this gateway")]
    One,
    /// It and all that follow the same control plane, which has it and tells them.
    #[serde(rename = "all gateways of the control plane")]
    All,
}

/// The identifier of a port as a [`Revocation`] has it.
pub fn port_id(gitspace: &GitspaceId, port: Port) -> String {
    format!("{gitspace}/{port}")
}

fn port(id: &str) -> Option<(GitspaceId, Port)> {
    let (gitspace, port) = id.split_once('/')?;
    let gitspace = gitspace.parse().ok()?;
    let port = port.parse().ok()?;
    // One spelling, for it is compared as text.
    (port_id(&gitspace, port) == id).then_some((gitspace, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: RevocationKind, id: &str) -> Revocation {
        Revocation {
            kind,
            id: id.into(),
            issued_before: None,
            until: None,
            by: None,
            reason: None,
        }
    }

    #[test]
    fn identifiers_are_what_they_must_be() {
        use RevocationKind::{Gitspace, Jti, Port, Sid, Sub};
        let good = [
            (Jti, "a"),
            (Sid, "ß"),
            (Sub, "github:ada"),
            (Port, "api-k3x9q2/3000"),
            (Port, "api-k3x9q2/ide"),
            (Gitspace, "api-k3x9q2"),
        ];
        for (kind, id) in good {
            assert_eq!(of(kind, id).check(), Ok(()), "{id}");
        }
        let long = "x".repeat(257);
        let bad = [
            (Jti, ""),
            (Sid, "a\nb"),
            (Sub, &*long),
            (Port, "api-k3x9q2"),
            (Port, "api-k3x9q2/0"),
            (Port, "api-k3x9q2/03000"),
            (Port, "API/3000"),
            (Gitspace, "api/ide"),
        ];
        for (kind, id) in bad {
            assert!(of(kind, id).check().is_err(), "{id:?}");
        }
    }

    #[test]
    fn texts_and_times_are_checked_too() {
        let good = of(RevocationKind::Jti, "a");
        let until = Revocation {
            issued_before: Some(5),
            until: Some(5),
            ..good.clone()
        };
        assert_eq!(until.check(), Err(RevocationError::Until));
        let reason = Revocation {
            reason: Some(String::new()),
            ..good
        };
        assert_eq!(reason.check(), Err(RevocationError::Text("reason")));
    }
}
