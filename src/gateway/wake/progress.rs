//! How a start goes, made of what the control plane tells: steps with their times, the last lines of the log, the state.
//!
//! Bounded whatever is told. Pure: no clock.
//!
//! Not here: how it looks (`page::steps`), where it comes from (`call`, `watch`).

use std::collections::VecDeque;

use super::call::Told;
use crate::api::{
    gitspace::{Event, State},
    wake::{Usual, WakeState},
};

/// The last lines of the log.
const LINES_MAX: usize = 100;
/// Characters of a line or a message.
const TEXT_MAX: usize = 400;
const STEPS_MAX: usize = 16;

/// The steps that are known by name, and what they do.
const WORDS: [(&str, &str); 5] = [
    ("vm_setup", "Set up the instance"),
    ("agent_start", "Set up the repository and the IDE"),
    ("agent_stop", "Stop the IDE"),
    ("vm_suspend", "Suspend the instance"),
    ("vm_destroy", "Remove the old instance"),
];
/// Those of every start, in their order.
const OF_A_START: [&str; 2] = ["vm_setup", "agent_start"];

/// How far a step is. Times are milliseconds since 1970, by the control plane's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not begun.
    Later,
    /// Since then.
    Since(i64),
    /// It took so many milliseconds.
    Done(i64),
    /// And failed after them.
    Failed(i64),
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    label: &'static str,
    /// What it does.
    pub(crate) words: &'static str,
    /// How far it is.
    pub(crate) stage: Stage,
    /// What it takes as a rule, in milliseconds, if that is known.
    pub(crate) usual: Option<u64>,
}

/// How a start goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The state that was told last.
    pub(crate) state: Option<State>,
    /// What failed, in a sentence.
    pub(crate) failure: Option<String>,
    /// The label of that.
    pub(crate) code: Option<String>,
    steps: Vec<Step>,
    usual: Vec<(&'static str, u64)>,
    /// The last lines of the log.
    pub(crate) lines: VecDeque<String>,
}

impl Progress {
    /// Takes what was told.
    pub(crate) fn take(&mut self, told: Told) {
        match told {
            Told::State(WakeState { state, message }) => {
                self.state = Some(state);
                if let Some(message) = message {
                    self.failure = Some(cut(&message));
                }
            }
            Told::Step(event) => self.step(&event),
            Told::Usual(usual) => self.usual = known(&usual),
        }
    }

    /// Whether there is nothing more to come.
    pub(crate) fn is_over(&self) -> bool {
        self.state.is_some_and(|state| state != State::Starting)
    }

    /// The steps, and while it starts those that are still to come.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let mut steps = self.steps.clone();
        if self.state == Some(State::Starting) {
            let there = |label: &str| self.steps.iter().any(|step| step.label == label);
            let later = OF_A_START.into_iter().filter(|label| !there(label));
            steps.extend(later.filter_map(|label| step(label, Stage::Later)));
        }
        for step in &mut steps {
            step.usual = self.usual_of(step.label);
        }
        steps
    }

    /// What a start takes as a rule, in milliseconds, if that is known.
    pub(crate) fn usual(&self) -> Option<u64> {
        let each = OF_A_START.map(|label| self.usual_of(label));
        each.into_iter()
            .try_fold(0, |sum: u64, one| Some(sum.saturating_add(one?)))
    }

    fn usual_of(&self, label: &str) -> Option<u64> {
        let found = self.usual.iter().find(|(known, _)| *known == label);
        found.map(|(_, millis)| *millis)
    }

    /// What failed, if it was a step.
    pub(crate) fn failed(&self) -> Option<&'static str> {
        let mut steps = self.steps.iter().rev();
        let step = steps.find(|step| matches!(step.stage, Stage::Failed(_)))?;
        Some(step.words)
    }

    /// What is being done now.
    pub(crate) fn now(&self) -> Option<&'static str> {
        let mut steps = self.steps.iter().rev();
        let step = steps.find(|step| matches!(step.stage, Stage::Since(_)))?;
        Some(step.words)
    }

    fn step(&mut self, event: &Event) {
        let Some((label, what)) = event.kind.rsplit_once('_') else {
            return;
        };
        let time = event.time.parse::<jiff::Timestamp>();
        let time = time.map_or(0, |time| time.as_millisecond());
        match what {
            _ if label == "gitspace_action" => {
                *self = Self {
                    usual: std::mem::take(&mut self.usual),
                    ..Self::default()
                }
            }
            "failed" if label.starts_with("gitspace_action") => self.fails(event),
            "queued" => {
                let begun = step(label, Stage::Since(time));
                self.steps.extend(begun);
                let over = self.steps.len().saturating_sub(STEPS_MAX);
                self.steps.drain(..over);
            }
            "progress" => self.line(&event.message),
            "completed" => self.end(label, time, Stage::Done),
            "failed" => {
                self.fails(event);
                self.end(label, time, Stage::Failed);
            }
            _ => {}
        }
    }

    fn fails(&mut self, event: &Event) {
        self.failure = Some(cut(&event.message));
        self.code = Some(cut(&event.kind));
    }

    fn end(&mut self, label: &str, time: i64, how: impl Fn(i64) -> Stage) {
        let mut steps = self.steps.iter_mut().rev();
        if let Some(step) = steps.find(|step| step.label == label)
            && let Stage::Since(begun) = step.stage
        {
            step.stage = how(time.saturating_sub(begun).max(0));
        }
    }

    fn line(&mut self, line: &str) {
        if self.lines.len() >= LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(cut(line));
    }
}

fn step(label: &str, stage: Stage) -> Option<Step> {
    let (label, words) = WORDS.into_iter().find(|(known, _)| *known == label)?;
    Some(Step {
        label,
        words,
        stage,
        usual: None,
    })
}

/// Of the steps of every start.
fn known(usual: &Usual) -> Vec<(&'static str, u64)> {
    let each = OF_A_START.into_iter();
    each.filter_map(|label| Some((label, *usual.get(label)?)))
        .collect()
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(progress: &mut Progress, second: u32, kind: &str, message: &str) {
        progress.take(Told::Step(Event {
            time: format!("2026-01-01T00:00:{second:02}.500Z"),
            kind: kind.into(),
            message: message.into(),
        }));
    }

    fn state(progress: &mut Progress, state: State) {
        let message = None;
        progress.take(Told::State(WakeState { state, message }));
    }

    fn stages(progress: &Progress) -> Vec<Stage> {
        progress.steps().iter().map(|step| step.stage).collect()
    }

    #[test]
    fn a_start_becomes_steps_with_their_times() {
        let mut progress = Progress::default();
        told(&mut progress, 0, "gitspace_action_start", "alice asked");
        told(&mut progress, 0, "vm_setup_queued", "");
        state(&mut progress, State::Starting);
        assert!(matches!(
            stages(&progress)[..],
            [Stage::Since(_), Stage::Later]
        ));
        assert_eq!(progress.now(), Some("Set up the instance"));
        told(&mut progress, 2, "vm_setup_completed", "");
        told(&mut progress, 2, "agent_start_queued", "");
        told(&mut progress, 3, "agent_start_progress", "cloning");
        told(&mut progress, 4, "agent_start_failed", "no such repository");
        state(&mut progress, State::Error);
        assert_eq!(stages(&progress), [Stage::Done(2000), Stage::Failed(2000)]);
        assert_eq!(progress.failure.as_deref(), Some("no such repository"));
        assert_eq!(progress.code.as_deref(), Some("agent_start_failed"));
        let step = "Set up the repository and the IDE";
        assert_eq!(progress.failed(), Some(step));
        assert_eq!(progress.lines, ["cloning"]);
        assert!(progress.is_over());
        // The next try begins anew.
        told(&mut progress, 9, "gitspace_action_start", "alice asked");
        assert_eq!(progress, Progress::default());
    }

    #[test]
    fn what_a_start_takes_as_a_rule_is_known_over_a_second_try() {
        let mut progress = Progress::default();
        let usual = |pairs: &[(&str, u64)]| {
            let pairs = pairs.iter().map(|(label, took)| ((*label).into(), *took));
            Told::Usual(pairs.collect())
        };
        progress.take(usual(&[("vm_setup", 4_000), ("unknown", 1)]));
        assert_eq!(progress.usual(), None, "half of it");
        progress.take(usual(&[("vm_setup", 4_000), ("agent_start", 9_000)]));
        told(&mut progress, 0, "gitspace_action_start", "alice asked");
        told(&mut progress, 0, "vm_setup_queued", "");
        state(&mut progress, State::Starting);
        assert_eq!(progress.usual(), Some(13_000));
        let each: Vec<_> = progress.steps().iter().map(|step| step.usual).collect();
        assert_eq!(each, [Some(4_000), Some(9_000)]);
        progress.take(usual(&[("vm_setup", u64::MAX), ("agent_start", 9_000)]));
        assert_eq!(progress.usual(), Some(u64::MAX));
    }

    #[test]
    fn a_timeout_is_a_failure_too() {
        let mut progress = Progress::default();
        told(
            &mut progress,
            0,
            "gitspace_action_start_failed",
            "It took too long",
        );
        assert_eq!(progress.failure.as_deref(), Some("It took too long"));
    }

    #[test]
    fn nothing_grows_without_end() {
        let mut progress = Progress::default();
        for _ in 0..1000 {
            told(&mut progress, 0, "vm_setup_queued", "");
            told(&mut progress, 0, "vm_setup_progress", &"x".repeat(5000));
            told(&mut progress, 0, "unknown_queued", "");
            told(&mut progress, 0, "", "");
        }
        assert_eq!(progress.steps().len(), STEPS_MAX);
        assert_eq!(progress.lines.len(), LINES_MAX);
        assert!(progress.lines.iter().all(|line| line.len() == TEXT_MAX));
    }
}
