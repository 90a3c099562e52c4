//! The last lines of what the agent and its programs said, numbered.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::api::agent::Logs;

const LINES: usize = 2000;
const LINE_MAX: usize = 2000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Log(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    lines: VecDeque<String>,
    next: u64,
}

impl Log {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line; the oldest goes.
    pub(super) fn line(&self, line: impl Into<String>) {
        let mut line = line.into();
        if line.len() > LINE_MAX {
            let cut = line.floor_char_boundary(LINE_MAX);
            line.truncate(cut);
        }
        let mut inner = self.inner();
        if inner.lines.len() == LINES {
            inner.lines.pop_front();
        }
        inner.lines.push_back(line);
        inner.next += 1;
    }

    /// Lines from a number on.
    pub(super) fn after(&self, after: u64) -> Logs {
        let inner = self.inner();
        let first = inner.next - inner.lines.len() as u64;
        let skip = usize::try_from(after.saturating_sub(first)).unwrap_or(usize::MAX);
        Logs {
            lines: inner.lines.iter().skip(skip).cloned().collect(),
            next: inner.next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_and_the_oldest_go() {
        let log = Log::default();
        for n in 0..LINES + 5 {
            log.line(format!("line {n}"));
        }
        let all = log.after(0);
        assert_eq!((all.lines.len(), all.next), (LINES, LINES as u64 + 5));
        assert_eq!(all.lines[0], "line 5");
        assert_eq!(
            log.after(all.next - 1).lines,
            [format!("line {}", LINES + 4)]
        );
        assert!(log.after(all.next + 9).lines.is_empty());
    }
}
