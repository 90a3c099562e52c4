//! The machine behind a gitspace: from a state and a trigger to the next state and the work it takes.
//!
//! Pure: no store, no clock. `orchestrate` commits what it says. A trigger whose wish is fulfilled or under way already
//! is accepted and changes nothing, so that a repeated request is no error; one that contradicts the step under way is
//! refused until the step has been busy for [`BUSY_GUARD`].

use std::time::Duration;

use crate::api::gitspace::InstanceState;
use InstanceState as I;

/// How long a busy state refuses actions that contradict it.
pub(super) const BUSY_GUARD: Duration = Duration::from_secs(15 * 60);

/// What happens to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trigger {
    /// The user wants it up.
    Start,
    /// The user wants it suspended.
    Stop,
    /// The user does not want the start any more that this step is under way for.
    Cancel(Step),
    /// The user wants the gitspace gone.
    Delete,
    /// A new instance takes its place; the data is kept for it.
    Replace,
    /// A task was done.
    Done(Step),
    /// A task failed.
    Failed(Step),
    /// The action took too long as a whole.
    TimedOut,
}

/// What a task does for an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Make the instance, or bring a suspended one back.
    VmSetup,
    /// Set up repository and IDE.
    AgentStart,
    /// Stop the IDE.
    AgentStop,
    /// Suspend the instance.
    VmSuspend,
    /// Destroy it.
    VmDestroy {
        /// And its data.
        delete_data: bool,
    },
}

/// What follows from a trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    /// The state to go to.
    pub(super) to: InstanceState,
    /// The step that the new state waits for.
    pub(super) work: Option<Step>,
    /// Whether it is a new instance that goes there; the old one is replaced.
    pub(super) fresh: bool,
}

/// Why a trigger does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// A step is under way.
    #[error("a step is under way; wait until it has ended")]
    Busy,
    /// It is being deleted.
    #[error("it is being deleted")]
    BeingDeleted,
    /// Nothing to stop.
    #[error("it is not running")]
    NotRunning,
    /// No start to cancel.
    #[error("no start is under way")]
    NotStarting,
    /// It is in error.
    #[error("it is in error; start it again or delete it")]
    InError,
    /// A task's end that nobody waits for any more.
    #[error("the step is not expected in this state")]
    Unexpected,
}

/// Where `trigger` leads from `state`, in which the instance has been for `age`.
pub(super) fn next(state: I, trigger: Trigger, age: Duration) -> Result<Change, Refused> {
    match trigger {
        Trigger::Start => start(state, age),
        Trigger::Stop => stop(state, age),
        Trigger::Cancel(step) => cancel(state, step),
        Trigger::Delete => delete(state, age),
        Trigger::Replace => Ok(replace(state)),
        Trigger::Done(step) => done(state, step),
        Trigger::Failed(step) => failed(state, step),
        Trigger::TimedOut => timed_out(state),
    }
}

fn start(state: I, age: Duration) -> Result<Change, Refused> {
    match state {
        I::Uninitialized | I::Deleted | I::Cleaned | I::Error | I::PendingCleanup => Ok(anew()),
        I::Stopped => Ok(go(I::Starting, Step::VmSetup)),
        I::Running => Ok(stay(state)),
        I::Starting if age < BUSY_GUARD => Ok(stay(state)),
        I::Stopping | I::Resetting if age < BUSY_GUARD => Err(Refused::Busy),
        I::Starting | I::Stopping | I::Resetting => Ok(anew()),
        I::Cleaning => Err(Refused::BeingDeleted),
    }
}

fn stop(state: I, age: Duration) -> Result<Change, Refused> {
    match state {
        I::Running => Ok(go(I::Stopping, Step::AgentStop)),
        I::Stopped => Ok(stay(state)),
        I::Stopping if age < BUSY_GUARD => Ok(stay(state)),
        I::Starting | I::Resetting if age < BUSY_GUARD => Err(Refused::Busy),
        I::Starting | I::Stopping => Ok(go(I::Stopping, Step::AgentStop)),
        I::Cleaning => Err(Refused::BeingDeleted),
        I::Error => Err(Refused::InError),
        I::Uninitialized | I::Deleted | I::Cleaned | I::PendingCleanup | I::Resetting => {
            Err(Refused::NotRunning)
        }
    }
}

/// However young it is: what is under way is what is not wanted. Whoever is later than the start's end ends nothing.
fn cancel(state: I, step: Step) -> Result<Change, Refused> {
    match (state, step) {
        (I::Starting, Step::AgentStart) => Ok(go(I::Stopping, Step::AgentStop)),
        // Nothing runs in the instance yet.
        (I::Starting, _) => Ok(go(I::Stopping, Step::VmSuspend)),
        _ => Err(Refused::NotStarting),
    }
}

fn delete(state: I, age: Duration) -> Result<Change, Refused> {
    match state {
        I::Uninitialized | I::Deleted => Ok(stay(I::Deleted)),
        I::Cleaning if age < BUSY_GUARD => Ok(stay(state)),
        I::Starting | I::Stopping if age < BUSY_GUARD => Err(Refused::Busy),
        // A reset that is under way is overtaken: the data goes too.
        I::Starting
        | I::Stopping
        | I::Cleaning
        | I::Running
        | I::Stopped
        | I::Resetting
        | I::Cleaned
        | I::PendingCleanup
        | I::Error => Ok(go(I::Cleaning, Step::VmDestroy { delete_data: true })),
    }
}

fn replace(state: I) -> Change {
    match state {
        I::Uninitialized | I::Deleted | I::Cleaned | I::Cleaning | I::Resetting => stay(state),
        I::Starting | I::Running | I::Stopping | I::Stopped | I::PendingCleanup | I::Error => {
            go(I::Resetting, Step::VmDestroy { delete_data: false })
        }
    }
}

fn done(state: I, step: Step) -> Result<Change, Refused> {
    match (state, step) {
        (I::Starting, Step::VmSetup) => Ok(go(I::Starting, Step::AgentStart)),
        (I::Starting, Step::AgentStart) => Ok(stay(I::Running)),
        (I::Stopping, Step::AgentStop) => Ok(go(I::Stopping, Step::VmSuspend)),
        (I::Stopping, Step::VmSuspend) => Ok(stay(I::Stopped)),
        (I::Resetting, Step::VmDestroy { .. }) => Ok(stay(I::Cleaned)),
        (I::Cleaning, Step::VmDestroy { .. }) => Ok(stay(I::Deleted)),
        _ => Err(Refused::Unexpected),
    }
}

fn failed(state: I, step: Step) -> Result<Change, Refused> {
    match (state, step) {
        (I::Starting, Step::VmSetup | Step::AgentStart)
        | (I::Stopping, Step::AgentStop | Step::VmSuspend)
        | (I::Cleaning | I::Resetting, Step::VmDestroy { .. }) => timed_out(state),
        _ => Err(Refused::Unexpected),
    }
}

fn timed_out(state: I) -> Result<Change, Refused> {
    match state {
        I::Starting | I::Stopping | I::Cleaning => Ok(stay(I::Error)),
        // The new instance is not held up by what is left of the old one.
        I::Resetting => Ok(stay(I::PendingCleanup)),
        _ => Err(Refused::Unexpected),
    }
}

fn go(to: I, step: Step) -> Change {
    Change {
        to,
        work: Some(step),
        fresh: false,
    }
}

fn stay(to: I) -> Change {
    Change {
        to,
        work: None,
        fresh: false,
    }
}

fn anew() -> Change {
    Change {
        fresh: true,
        ..go(I::Starting, Step::VmSetup)
    }
}

impl Step {
    /// Stable label, for events: `vm_setup`.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::VmSetup => "vm_setup",
            Self::AgentStart => "agent_start",
            Self::AgentStop => "agent_stop",
            Self::VmSuspend => "vm_suspend",
            Self::VmDestroy { .. } => "vm_destroy",
        }
    }

    /// What it does, as the object of "could not …".
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::VmSetup => "set up the instance",
            Self::AgentStart => "set up the repository and the IDE",
            Self::AgentStop => "stop the IDE",
            Self::VmSuspend => "suspend the instance",
            Self::VmDestroy { delete_data: true } => "destroy the instance and its data",
            Self::VmDestroy { delete_data: false } => "destroy the instance and keep its data",
        }
    }
}

/// Whether a state waits for a step.
pub(super) fn busy(state: I) -> bool {
    matches!(
        state,
        I::Starting | I::Stopping | I::Resetting | I::Cleaning
    )
}

/// Every state with the name it has in the store.
const NAMES: [(I, &str); 11] = [
    (I::Uninitialized, "uninitialized"),
    (I::Starting, "starting"),
    (I::Running, "running"),
    (I::Stopping, "stopping"),
    (I::Stopped, "stopped"),
    (I::Resetting, "resetting"),
    (I::Cleaning, "cleaning"),
    (I::Cleaned, "cleaned"),
    (I::PendingCleanup, "pending_cleanup"),
    (I::Deleted, "deleted"),
    (I::Error, "error"),
];

/// The name of a state in the store.
pub(super) fn name(state: I) -> &'static str {
    NAMES
        .iter()
        .find(|(other, _)| *other == state)
        .map_or("error", |(_, name)| name)
}

/// The state of that name.
pub(super) fn named(name: &str) -> Option<I> {
    NAMES
        .iter()
        .find(|(_, other)| *other == name)
        .map(|(state, _)| *state)
}

#[cfg(test)]
mod tests;
