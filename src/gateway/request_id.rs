//! Identifiers of requests: for the log, for apps (`X-Request-Id`), and on pages of ours.
//!
//! A random start and a number, unlike any other's; they tell apart and guard nothing. Not here: those that a trusted proxy gives (`client`).

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Those of one process.
pub(crate) struct RequestIds {
    /// What tells this process from others.
    pub(crate) start: u64,
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        let mut start = [0; 8];
        // Without randomness the number alone still tells requests of this process apart.
        let _ = getrandom::fill(&mut start);
        Self {
            start: u64::from_ne_bytes(start),
            next: AtomicU64::new(1),
        }
    }

    pub(crate) fn next(&self) -> Arc<str> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}-{number:x}", self.start).into()
    }
}
