//! The last lines of what the agent and its programs said, numbered.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::api::agent::Logs;

const LINES: usize = 2000;
const LINE_MAX: usize = 2000;
/// So many at once: what a runner takes as one answer, and a control plane as one report.
const PAGE: usize = 100;

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

    /// Lines from a number on, and where the next ones begin.
    pub(super) fn after(&self, after: u64) -> Logs {
        let inner = self.inner();
        let first = inner.next - inner.lines.len() as u64;
        let from = after.clamp(first, inner.next);
        let skip = usize::try_from(from - first).unwrap_or(usize::MAX);
        let lines: Vec<_> = inner.lines.iter().skip(skip).take(PAGE).cloned().collect();
        Logs {
            next: from + lines.len() as u64,
            lines,
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
        let page = log.after(0);
        assert_eq!((page.lines.len(), page.next), (PAGE, PAGE as u64 + 5));
        assert_eq!(page.lines[0], "line 5");
        assert_eq!(log.after(page.next).lines[0], format!("line {}", PAGE + 5));
        let end = LINES as u64 + 5;
        let last = log.after(end - 1);
        assert_eq!(last.lines, [format!("line {}", LINES + 4)]);
        for beyond in [end, end + 9, u64::MAX] {
            let none = log.after(beyond);
            assert_eq!((none.lines.len(), none.next), (0, end));
        }
    }
}
