//! The lifecycle against a table of every transition there is.

use super::*;
use Step::*;
use Trigger::*;

const ERASE: Step = VmDestroy { delete_data: true };
const DESTROY: Step = VmDestroy { delete_data: false };
const STEPS: [Step; 6] = [VmSetup, AgentStart, AgentStop, VmSuspend, ERASE, DESTROY];
const YOUNG: Duration = Duration::from_secs(1);

/// Every transition there is while no busy state is old, as (from, trigger, to, work, fresh).
fn table() -> Vec<(I, Trigger, I, Option<Step>, bool)> {
    let mut rows = vec![
        (I::Stopped, Start, I::Starting, Some(VmSetup), false),
        (I::Starting, Start, I::Starting, None, false),
        (I::Running, Start, I::Running, None, false),
        (I::Running, Stop, I::Stopping, Some(AgentStop), false),
        (I::Stopping, Stop, I::Stopping, None, false),
        (I::Stopped, Stop, I::Stopped, None, false),
        (I::Uninitialized, Delete, I::Deleted, None, false),
        (I::Deleted, Delete, I::Deleted, None, false),
        (I::Cleaning, Delete, I::Cleaning, None, false),
        (
            I::Starting,
            Done(VmSetup),
            I::Starting,
            Some(AgentStart),
            false,
        ),
        (I::Starting, Done(AgentStart), I::Running, None, false),
        (
            I::Stopping,
            Done(AgentStop),
            I::Stopping,
            Some(VmSuspend),
            false,
        ),
        (I::Stopping, Done(VmSuspend), I::Stopped, None, false),
        (I::Starting, Failed(VmSetup), I::Error, None, false),
        (I::Starting, Failed(AgentStart), I::Error, None, false),
        (I::Stopping, Failed(AgentStop), I::Error, None, false),
        (I::Stopping, Failed(VmSuspend), I::Error, None, false),
        (I::Starting, TimedOut, I::Error, None, false),
        (I::Stopping, TimedOut, I::Error, None, false),
        (I::Cleaning, TimedOut, I::Error, None, false),
        (I::Resetting, TimedOut, I::PendingCleanup, None, false),
    ];
    for destroy in [ERASE, DESTROY] {
        rows.push((I::Resetting, Done(destroy), I::Cleaned, None, false));
        rows.push((I::Cleaning, Done(destroy), I::Deleted, None, false));
        rows.push((
            I::Resetting,
            Failed(destroy),
            I::PendingCleanup,
            None,
            false,
        ));
        rows.push((I::Cleaning, Failed(destroy), I::Error, None, false));
    }
    for from in [
        I::Uninitialized,
        I::Deleted,
        I::Cleaned,
        I::PendingCleanup,
        I::Error,
    ] {
        rows.push((from, Start, I::Starting, Some(VmSetup), true));
    }
    for from in [
        I::Running,
        I::Stopped,
        I::Resetting,
        I::Cleaned,
        I::PendingCleanup,
        I::Error,
    ] {
        rows.push((from, Delete, I::Cleaning, Some(ERASE), false));
    }
    for from in [
        I::Uninitialized,
        I::Deleted,
        I::Cleaned,
        I::Cleaning,
        I::Resetting,
    ] {
        rows.push((from, Replace, from, None, false));
    }
    for from in [
        I::Starting,
        I::Running,
        I::Stopping,
        I::Stopped,
        I::PendingCleanup,
        I::Error,
    ] {
        rows.push((from, Replace, I::Resetting, Some(DESTROY), false));
    }
    for step in STEPS {
        let undo = if step == AgentStart {
            AgentStop
        } else {
            VmSuspend
        };
        rows.push((I::Starting, Cancel(step), I::Stopping, Some(undo), false));
    }
    rows
}

fn triggers() -> Vec<Trigger> {
    let of_steps = |step: &Step| [Done(*step), Failed(*step), Cancel(*step)];
    let ends = STEPS.iter().flat_map(of_steps);
    [Start, Stop, Delete, Replace, TimedOut]
        .into_iter()
        .chain(ends)
        .collect()
}

#[test]
fn every_pair_of_state_and_trigger_is_in_the_table_or_refused() {
    let table = table();
    for (state, _) in NAMES {
        for trigger in triggers() {
            let found = next(state, trigger, YOUNG);
            let row = table.iter().find(|row| (row.0, row.1) == (state, trigger));
            match row {
                Some(&(_, _, to, work, fresh)) => {
                    assert_eq!(
                        found,
                        Ok(Change { to, work, fresh }),
                        "{state:?} {trigger:?}"
                    );
                }
                None => assert!(found.is_err(), "{state:?} {trigger:?} gave {found:?}"),
            }
        }
    }
}

#[test]
fn only_an_old_busy_state_gives_way_to_what_contradicts_it() {
    let old = BUSY_GUARD;
    for (state, trigger, after) in [
        (I::Starting, Start, anew()),
        (I::Stopping, Start, anew()),
        (I::Resetting, Start, anew()),
        (I::Starting, Stop, go(I::Stopping, AgentStop)),
        (I::Stopping, Stop, go(I::Stopping, AgentStop)),
        (I::Starting, Delete, go(I::Cleaning, ERASE)),
        (I::Stopping, Delete, go(I::Cleaning, ERASE)),
        (I::Cleaning, Delete, go(I::Cleaning, ERASE)),
    ] {
        assert_eq!(
            next(state, trigger, old),
            Ok(after),
            "{state:?} {trigger:?}"
        );
        assert_ne!(
            next(state, trigger, YOUNG),
            Ok(after),
            "{state:?} {trigger:?}"
        );
    }
    assert_eq!(next(I::Cleaning, Start, old), Err(Refused::BeingDeleted));
    assert_eq!(next(I::Stopping, Start, YOUNG), Err(Refused::Busy));
}

#[test]
fn every_busy_state_waits_for_a_step_and_no_other_does() {
    for (from, trigger, to, work, _) in table() {
        if from != to && !matches!(trigger, Done(_) | Failed(_) | TimedOut) {
            assert_eq!(work.is_some(), busy(to), "{from:?} {trigger:?}");
        }
    }
}

#[test]
fn names_of_states_are_those_of_the_api() {
    for (state, text) in NAMES {
        assert_eq!(serde_json::to_value(state).unwrap(), text);
        assert_eq!((name(state), named(text)), (text, Some(state)));
    }
}
