//! When certificates end: in metrics, and in the operating log in time.
//!
//! Not here: when that is looked at (`watch`).

use std::{
    sync::atomic::AtomicI64,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use super::certificates::Certificates;

const DAY: i64 = 24 * 3600;
/// Warnings begin so many days before the end.
const WARN_DAYS: i64 = 14;

/// Which certificate: its place in the configuration, from 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Place {
    certificate: u32,
}

/// See the module.
pub(super) struct Expiry(Family<Place, Gauge<i64, AtomicI64>>);

impl Expiry {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let ends = Family::default();
        registry
            .sub_registry_with_prefix("cde_gateway")
            .register(
                "certificate_not_after_seconds",
                "When a certificate ends, in seconds since 1970; `certificate` is its place in the configuration",
                Family::clone(&ends),
            );
        Self(ends)
    }

    /// Shows the ends of these, and of no others.
    pub(super) fn take(&self, certificates: &Certificates) {
        self.0.clear();
        for (certificate, served) in (0..).zip(certificates.all()) {
            self.0
                .get_or_create(&Place { certificate })
                .set(served.not_after);
        }
    }

    /// Warns of those that end soon or have ended.
    pub(super) fn warn(&self, files: &[crate::config::Certificate]) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        for (certificate, files) in (0..).zip(files) {
            let not_after = self.0.get_or_create(&Place { certificate }).get();
            match state(not_after, now) {
                State::Good => {}
                State::Soon { days } => tracing::warn!(
                    path = %files.chain.display(),
                    days,
                    "a certificate expires soon; put a new one in its place, it is taken without a restart"
                ),
                State::Expired => tracing::error!(
                    path = %files.chain.display(),
                    "a certificate has expired and clients refuse it; put a new one in its place, it is taken without a restart"
                ),
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Good,
    /// Whole days until then.
    Soon {
        days: i64,
    },
    Expired,
}

fn state(not_after: i64, now: i64) -> State {
    match not_after - now {
        ..0 => State::Expired,
        left if left < WARN_DAYS * DAY => State::Soon { days: left / DAY },
        _ => State::Good,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_begin_fourteen_days_before_the_end() {
        let now = 1_800_000_000;
        assert_eq!(state(now + 14 * DAY, now), State::Good);
        assert_eq!(state(now + 14 * DAY - 1, now), State::Soon { days: 13 });
        assert_eq!(state(now, now), State::Soon { days: 0 });
        assert_eq!(state(now - 1, now), State::Expired);
    }
}
