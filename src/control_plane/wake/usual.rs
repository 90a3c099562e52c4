//! How long the steps of a start take: the median of the last few of the same gitspace that were completed.
//!
//! Read from what it went through, whose number is bounded. A time is from when a step was asked for until it was done.

use std::collections::BTreeMap;

use sqlx::SqliteConnection;

use crate::{
    api::wake::Usual,
    control_plane::{lifecycle::Step, refusal::Refusal},
};

/// Of so many starts.
const STARTS: usize = 5;
/// Among so many events: failed and repeated starts have some too.
const EVENTS_MAX: i64 = 64;
const STEPS: [Step; 2] = [Step::VmSetup, Step::AgentStart];

/// What each step took before the event `before`.
pub(super) async fn usual(
    db: &mut SqliteConnection,
    gitspace: &str,
    before: i64,
) -> Result<Usual, Refusal> {
    let [setup, agent] = STEPS.map(Step::label);
    let mut events: Vec<(i64, String)> = sqlx::query_as(
        "SELECT time, kind FROM event WHERE gitspace = ?1 AND id < ?2
         AND kind IN (?3 || '_queued', ?3 || '_completed', ?4 || '_queued', ?4 || '_completed') ORDER BY id DESC LIMIT ?5",
    )
    .bind(gitspace)
    .bind(before)
    .bind(setup)
    .bind(agent)
    .bind(EVENTS_MAX)
    .fetch_all(db)
    .await?;
    events.reverse();
    Ok(medians(&events))
}

fn medians(events: &[(i64, String)]) -> Usual {
    let mut usual = BTreeMap::new();
    for label in STEPS.map(Step::label) {
        let mut took = durations(events, label);
        took.drain(..took.len().saturating_sub(STARTS));
        took.sort_unstable();
        if let Some(median) = took.get(took.len() / 2) {
            usual.insert(label.to_owned(), *median);
        }
    }
    usual
}

/// Of each time that a step was completed, the oldest first.
fn durations(events: &[(i64, String)], label: &str) -> Vec<u64> {
    let mut begun = None;
    let mut took = Vec::new();
    for (time, kind) in events {
        match kind.strip_prefix(label) {
            Some("_queued") => begun = Some(*time),
            Some("_completed") => {
                // The wall clock may have been set back meanwhile.
                let span = begun.take().and_then(|begun| time.checked_sub(begun));
                took.extend(span.and_then(|span| u64::try_from(span).ok()));
            }
            _ => {}
        }
    }
    took
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(events: &[(i64, &str)]) -> Usual {
        let events: Vec<_> = events
            .iter()
            .map(|(time, kind)| (*time, (*kind).to_owned()))
            .collect();
        medians(&events)
    }

    #[test]
    fn the_median_of_the_last_starts_counts_and_what_was_not_completed_does_not() {
        assert!(of(&[]).is_empty());
        let mut events = Vec::new();
        for (start, took) in [900_000, 900_000, 4_000, 1_000, 60_000, 3_000, 2_000]
            .into_iter()
            .enumerate()
        {
            let begun = 1_000_000 * start as i64;
            events.push((begun, "vm_setup_queued"));
            events.push((begun + took, "vm_setup_completed"));
        }
        assert_eq!(of(&events)["vm_setup"], 3_000);
        assert!(!of(&events).contains_key("agent_start"));
        let failed = [
            (0, "agent_start_queued"),
            (5, "agent_start_queued"),
            (9, "agent_start_completed"),
            (10, "agent_start_completed"),
            (20, "agent_start_queued"),
            (12, "agent_start_completed"),
        ];
        assert_eq!(of(&failed)["agent_start"], 4);
    }
}
