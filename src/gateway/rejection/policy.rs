//! Which limit refused, and how an answer tells it: `Retry-After`, `RateLimit` and `RateLimit-Policy`
//! (draft-ietf-httpapi-ratelimit-headers).

use std::{fmt, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::Rejection;
use crate::config::Scope;

/// When who has too much under way may try again: nobody knows when something of it ends.
const SOON: u64 = 1;

/// The limit that refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Requests in a window.
    Requests(Scope),
    /// New streams in a window.
    NewStreams(Scope),
    /// Requests and streams at once.
    Streams(Scope),
    /// Tokens that were refused, of one network.
    FailedLogins,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without a token one is counted by the network.
        let whose = |scope: Scope| match scope {
            Scope::Anonymous => "network",
            scope => scope.name(),
        };
        match *self {
            Self::Requests(scope) => f.write_str(whose(scope)),
            Self::NewStreams(scope) => write!(f, "{}-new-streams", whose(scope)),
            Self::Streams(scope) => write!(f, "{}-streams", whose(scope)),
            Self::FailedLogins => f.write_str("failed-logins"),
        }
    }
}

/// Says which limit refused, and when to come again: never sooner than it would help.
pub(super) fn tell(rejection: &Rejection, headers: &mut HeaderMap) {
    let (seconds, left, policy) = match *rejection {
        Rejection::RateLimited {
            policy,
            limit,
            window,
            retry_after,
        } => {
            let (seconds, window) = (whole(retry_after), window.as_secs());
            let left = format!("\"{policy}\";r=0;t={seconds}");
            (seconds, left, format!("\"{policy}\";q={limit};w={window}"))
        }
        Rejection::TooManyStreams { policy, limit } => {
            let told = format!("\"{policy}\";q={limit};qu=\"concurrent-requests\"");
            (SOON, format!("\"{policy}\";r=0"), told)
        }
        _ => return,
    };
    headers.insert(header::RETRY_AFTER, seconds.into());
    let fields = [("ratelimit", left), ("ratelimit-policy", policy)];
    for (name, value) in fields {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// Rounded up.
fn whole(wait: Duration) -> u64 {
    let part = u64::from(wait.subsec_nanos() > 0);
    (wait.as_secs() + part).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(rejection: &Rejection) -> [String; 3] {
        let mut headers = HeaderMap::new();
        tell(rejection, &mut headers);
        ["retry-after", "ratelimit", "ratelimit-policy"].map(|name| {
            let value = headers.get(name).map(|value| value.to_str().unwrap());
            value.unwrap_or_default().to_owned()
        })
    }

    fn limited(policy: Policy, window: u64, wait: Duration) -> [String; 3] {
        told(&Rejection::RateLimited {
            policy,
            limit: 100,
            window: Duration::from_secs(window),
            retry_after: wait,
        })
    }

    #[test]
    fn who_waits_as_long_as_told_has_waited_long_enough() {
        for (wait, seconds) in [
            (0, "1"),
            (200, "1"),
            (1_000, "1"),
            (1_001, "2"),
            (1_999, "2"),
        ] {
            let wait = Duration::from_millis(wait);
            let [retry, left, policy] = limited(Policy::Requests(Scope::Gitspace), 1, wait);
            assert_eq!(retry, seconds, "{wait:?}");
            assert_eq!(left, format!("\"gitspace\";r=0;t={seconds}"));
            assert_eq!(policy, "\"gitspace\";q=100;w=1");
        }
    }

    #[test]
    fn each_limit_has_its_name() {
        let name = |policy: Policy| limited(policy, 60, Duration::ZERO)[2].clone();
        assert_eq!(name(Policy::FailedLogins), "\"failed-logins\";q=100;w=60");
        assert_eq!(
            name(Policy::NewStreams(Scope::Share)),
            "\"share-new-streams\";q=100;w=60"
        );
        // The key is called "anonymous", which says nothing to who is told.
        assert_eq!(
            name(Policy::Requests(Scope::Anonymous)),
            "\"network\";q=100;w=60"
        );
    }

    #[test]
    fn what_is_under_way_is_counted_in_concurrent_requests() {
        let policy = Policy::Streams(Scope::Principal);
        let told = told(&Rejection::TooManyStreams { policy, limit: 5 });
        let policy = "\"principal-streams\";q=5;qu=\"concurrent-requests\"";
        assert_eq!(told, ["1", "\"principal-streams\";r=0", policy]);
    }

    #[test]
    fn other_rejections_say_nothing_of_limits() {
        assert_eq!(told(&Rejection::NoToken), ["", "", ""]);
    }
}
