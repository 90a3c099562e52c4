//! What the agent of an instance says while it works on a task: followed by asking the runner now and then.
//!
//! Lines are a comfort: what cannot be had is not asked for again, and a task that says too much is not told to its end.

use std::time::Duration;

use super::call::Peer;
use crate::api::{
    agent::Logs,
    runner,
    task::{InstanceRef, Work},
};

const WITHIN: Duration = Duration::from_secs(5);
/// So many lines of one task are passed on.
const LINES_MAX: usize = 500;
const ENOUGH: &str = "What follows is in the log of the instance's agent only";

/// See the module.
pub(super) struct Said<'a> {
    runner: &'a Peer,
    /// Whose log, and from which line on. None: nothing is followed.
    of: Option<(InstanceRef, u64)>,
    left: usize,
}

impl<'a> Said<'a> {
    /// From now on, if it is a task whose agent works for long.
    pub(super) async fn while_doing(work: &Work, runner: &'a Peer) -> Self {
        let mut said = Self {
            runner,
            of: None,
            left: LINES_MAX,
        };
        if let Work::AgentStart(start) = work {
            let now = said.ask(&start.of, None).await;
            said.of = now.map(|now| (start.of.clone(), now.next));
        }
        said
    }

    /// Whether there may be lines.
    pub(super) fn is_followed(&self) -> bool {
        self.of.is_some()
    }

    /// What came since, as much as fits into one report.
    pub(super) async fn news(&mut self) -> Vec<String> {
        let Some((of, after)) = self.of.clone().filter(|_| self.left > 0) else {
            return Vec::new();
        };
        let Some(Logs { mut lines, next }) = self.ask(&of, Some(after)).await else {
            return Vec::new();
        };
        self.of = Some((of, next));
        if lines.len() >= self.left {
            lines.truncate(self.left - 1);
            lines.push(ENOUGH.into());
        }
        self.left -= lines.len();
        lines
    }

    async fn ask(&self, of: &InstanceRef, after: Option<u64>) -> Option<Logs> {
        let asked = runner::Said {
            of: of.clone(),
            after,
        };
        self.runner.ask("/said", &asked, WITHIN).await.ok()
    }
}
