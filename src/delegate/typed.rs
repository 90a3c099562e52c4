//! What is new of what the runner knows of typing in terminals, for the next heartbeat.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::api::{GitspaceId, activity::Typed};

/// Ages are whole seconds and take a moment to arrive: so much later is the same key.
const SAME: Duration = Duration::from_secs(3);
/// A heartbeat has at most so many; the next one has the rest.
const NEWS_MAX: usize = 500;

/// What the control plane was told. It goes with the session: whoever is registered with anew is told everything.
#[derive(Debug, Default)]
pub(super) struct Told(HashMap<GitspaceId, Instant>);

impl Told {
    /// What is new of all that the runner knows. It counts as told.
    pub(super) fn news(&mut self, all: Vec<Typed>) -> Vec<Typed> {
        let now = Instant::now();
        let before = std::mem::take(&mut self.0);
        let mut news = Vec::new();
        for typed in all {
            let told = before.get(&typed.gitspace).copied();
            let at = now.checked_sub(Duration::from_secs(typed.ago));
            let new = at.filter(|at| told.is_none_or(|told| *at > told + SAME));
            let new = new.filter(|_| news.len() < NEWS_MAX);
            if let Some(at) = new.or(told) {
                self.0.insert(typed.gitspace.clone(), at);
            }
            if new.is_some() {
                news.push(typed);
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(gitspace: &str, ago: u64) -> Typed {
        Typed {
            gitspace: gitspace.parse().unwrap(),
            ago,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_told_once_and_the_next_one_again() {
        let pass = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        pass(1000).await;
        let mut told = Told::default();
        let (api, web) = (typed("api-k3x9q2", 4), typed("web-b7n2m4", 60));
        assert_eq!(
            told.news(vec![api.clone(), web.clone()]),
            [api.clone(), web]
        );
        pass(10).await;
        assert_eq!(
            told.news(vec![typed("api-k3x9q2", 13), typed("web-b7n2m4", 70)]),
            []
        );
        // Somebody types again; the other one is gone, and then back.
        pass(10).await;
        assert_eq!(told.news(vec![api.clone()]), [api]);
        let back = typed("web-b7n2m4", 80);
        assert_eq!(told.news(vec![back.clone()]), [back]);
        assert_eq!(told.news(vec![typed("old-k3x9q2", u64::MAX)]), []);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_much_for_one_heartbeat_comes_with_the_next() {
        let all: Vec<_> = (0..NEWS_MAX + 3)
            .map(|n| typed(&format!("a-{n:06}"), 0))
            .collect();
        let mut told = Told::default();
        assert_eq!(told.news(all.clone()).len(), NEWS_MAX);
        assert_eq!(told.news(all.clone()).len(), 3);
        assert_eq!(told.news(all), []);
    }
}
