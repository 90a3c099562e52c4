//! The time, twice: a monotonic one for leases and deadlines, and the wall clock for what users and other programs read.
//!
//! The monotonic time counts from the wall clock's reading at start, so that what is stored still compares after a
//! restart, and a wall clock that is set while the program runs moves no lease.

use jiff::Timestamp;
use tokio::time::Instant;

/// The clock of a process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    start: Instant,
    start_wall: i64,
}

impl Clock {
    /// Starts it.
    pub(super) fn start() -> Self {
        Self {
            start: Instant::now(),
            start_wall: Timestamp::now().as_millisecond(),
        }
    }

    /// Monotonic milliseconds.
    pub(super) fn now(&self) -> i64 {
        let elapsed = i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.start_wall.saturating_add(elapsed)
    }

    /// Milliseconds since 1970 by the wall clock.
    pub(super) fn wall(&self) -> i64 {
        Timestamp::now().as_millisecond()
    }

    /// Seconds since 1970 by the wall clock.
    pub(super) fn wall_seconds(&self) -> i64 {
        Timestamp::now().as_second()
    }
}

/// A wall time as RFC 3339 with milliseconds.
pub(super) fn rfc3339(milliseconds: i64) -> String {
    Timestamp::from_millisecond(milliseconds)
        .map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_with_milliseconds() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
    }
}
