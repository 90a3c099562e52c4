//! Typing in terminals, on its way from the agents (by the delegates' heartbeats) to the gateways (in the answers to their reports).
//!
//! Every gateway is told what was learned in the last minute, so it may miss some reports; it takes the same twice. In memory alone:
//! a control plane that starts anew learns it from the delegates again, who register anew.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::api::{GitspaceId, activity};

/// For so long gateways are told.
const TOLD_FOR: Duration = Duration::from_secs(60);
/// How many gitspaces are kept; what is beyond is not told.
const ENTRIES_MAX: usize = 20_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Typed(Mutex<HashMap<GitspaceId, Last>>);

#[derive(Debug)]
struct Last {
    at: Instant,
    learned: Instant,
}

impl Typed {
    /// A delegate says so.
    pub(super) fn learn(&self, typed: &[activity::Typed]) {
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, last| last.learned + TOLD_FOR > now);
        for typed in typed {
            let Some(at) = now.checked_sub(Duration::from_secs(typed.ago)) else {
                continue;
            };
            let room = all.len() < ENTRIES_MAX;
            let before = all.get(&typed.gitspace);
            if before.map_or(room, |before| at > before.at) {
                let last = Last { at, learned: now };
                all.insert(typed.gitspace.clone(), last);
            }
        }
    }

    /// What gateways are to know now.
    pub(super) fn lately(&self) -> Vec<activity::Typed> {
        let now = Instant::now();
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = all
            .iter()
            .filter(|(_, last)| last.learned + TOLD_FOR > now)
            .map(|(gitspace, last)| activity::Typed {
                gitspace: gitspace.clone(),
                ago: (now - last.at).as_secs(),
            });
        lately.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(gitspace: &str, ago: u64) -> activity::Typed {
        activity::Typed {
            gitspace: gitspace.parse().unwrap(),
            ago,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_learned_is_told_for_a_minute_with_its_age() {
        let pass = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        pass(1000).await;
        let all = Typed::default();
        all.learn(&[typed("api-k3x9q2", 600)]);
        pass(59).await;
        assert_eq!(all.lately(), [typed("api-k3x9q2", 659)]);
        // An older word changes nothing, a newer one counts.
        all.learn(&[typed("api-k3x9q2", 700)]);
        assert_eq!(all.lately(), [typed("api-k3x9q2", 659)]);
        all.learn(&[typed("api-k3x9q2", 5), typed("old-k3x9q2", u64::MAX)]);
        pass(30).await;
        assert_eq!(all.lately(), [typed("api-k3x9q2", 35)]);
        pass(30).await;
        assert_eq!(all.lately(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_kept_than_there_is_room_for() {
        let all = Typed::default();
        let many: Vec<_> = (0..ENTRIES_MAX + 5)
            .map(|n| typed(&format!("a-{n:06}"), 0))
            .collect();
        all.learn(&many);
        assert_eq!(all.lately().len(), ENTRIES_MAX);
        tokio::time::advance(TOLD_FOR).await;
        all.learn(&many[..1]);
        assert_eq!(all.0.lock().unwrap().len(), 1);
    }
}
