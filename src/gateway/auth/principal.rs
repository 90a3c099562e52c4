//! Who is asking: the result of the step.

use std::{sync::Arc, time::SystemTime};

use crate::api::{GitspaceId, access::Port};

/// Who acts, and what its token restricts it to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The issuer's prefix and `sub`: unique over all issuers.
    pub name: Arc<str>,
    /// `iss`.
    pub issuer: Arc<str>,
    /// Its organization.
    pub org: Option<Arc<str>>,
    /// Its groups.
    pub groups: Box<[Arc<str>]>,
    /// The gitspaces that the token is for. None: no restriction.
    pub gitspaces: Option<Box<[GitspaceId]>>,
    /// The ports that the token is for. None: no restriction.
    pub ports: Option<Box<[Port]>>,
    /// Whether `gitspaces` and `ports` grant access, or only restrict it.
    pub grants: bool,
    /// The share whose link let it in: a visitor without a name of its own.
    pub share: Option<Arc<str>>,
    /// The login that it hangs on.
    pub sid: Option<Arc<str>>,
    /// The token's own identifier.
    pub jti: Option<Arc<str>>,
    /// When the token was issued, seconds since 1970.
    pub issued_at: Option<i64>,
    /// When its session ends, seconds since 1970; streams end with it. None: a token as it is, whose `exp` ends no stream.
    pub session_end: Option<i64>,
}

/// Seconds since 1970; 0 before.
pub(crate) fn seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        })
}
