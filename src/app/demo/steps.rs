//! Tells each step with the time since the start.

use std::{io::Write, time::Instant};

/// Tells steps on standard error.
#[derive(Debug)]
pub struct Steps {
    begun: Instant,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
        }
    }
}

impl Steps {
    /// One line: when, which step, what happened.
    pub fn step(&self, kind: &str, message: &str) {
        let seconds = self.begun.elapsed().as_secs_f64();
        // A closed standard error stops nothing.
        let _ = writeln!(
            std::io::stderr().lock(),
            "{seconds:7.2} s  {kind:<34} {message}"
        );
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }
}
