//! Whether this machine's clock is that of the control plane. Tokens, tickets and revocations have times of both, so a clock that is
//! off by more than a few seconds refuses what is good, or the other way round.
//!
//! Not here: the lease, which goes by the monotonic clock.

use std::sync::atomic::{AtomicBool, Ordering};

/// So many seconds apart are told of: an answer takes a moment to be made and to arrive.
const OFF: u64 = 5;
/// And so many are right again: one that is just at the border is not told of all the time.
const RIGHT: u64 = 2;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    off: AtomicBool,
}

/// What is to be said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Off,
    Right,
}

impl Clock {
    /// Takes note of the two, and says by how many seconds ours is ahead. In the log once when it is off, and once when it no longer is.
    pub(super) fn compare(&self, ours: i64, theirs: i64) -> i64 {
        let ahead = ours.saturating_sub(theirs);
        let apart = ahead.unsigned_abs();
        match self.change(apart) {
            Some(Change::Off) => {
                let which = if ahead > 0 { "ahead of" } else { "behind" };
                tracing::warn!(
                    "this machine's clock is {apart} s {which} the control plane's: tokens and tickets that are good may be refused, and others accepted for longer; set both by NTP"
                );
            }
            Some(Change::Right) => {
                tracing::info!("this machine's clock is that of the control plane again");
            }
            None => {}
        }
        ahead
    }

    fn change(&self, apart: u64) -> Option<Change> {
        let was = self.off.load(Ordering::Relaxed);
        let off = apart > if was { RIGHT } else { OFF };
        self.off.store(off, Ordering::Relaxed);
        match (was, off) {
            (false, true) => Some(Change::Off),
            (true, false) => Some(Change::Right),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_is_told_of_once_and_once_when_that_is_over() {
        let clock = Clock::default();
        for (apart, said) in [
            (0, None),
            (5, None),
            (6, Some(Change::Off)),
            (100, None),
            (3, None),
            (2, Some(Change::Right)),
            (5, None),
            (6, Some(Change::Off)),
        ] {
            assert_eq!(clock.change(apart), said, "{apart} s");
        }
        assert_eq!(clock.compare(100, 130), -30);
        assert_eq!(clock.compare(i64::MAX, i64::MIN), i64::MAX);
        assert_eq!(clock.compare(i64::MIN, i64::MAX), i64::MIN);
    }
}
