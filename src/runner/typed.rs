//! When somebody typed into the terminals of running instances, as their agents said when they were looked at last (`keep`).
//!
//! The delegate asks for it. A runner that starts anew learns it from the agents again.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::api::{InstanceId, activity, task::InstanceRef};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Typed(Mutex<HashMap<InstanceId, Last>>);

#[derive(Debug)]
struct Last {
    of: InstanceRef,
    at: Instant,
}

impl Typed {
    /// Its agent says that somebody typed so many seconds ago.
    pub(super) fn note(&self, of: &InstanceRef, ago: u64) {
        // Longer ago than this machine is up: nobody needs to know.
        if let Some(at) = Instant::now().checked_sub(Duration::from_secs(ago)) {
            let last = Last { of: of.clone(), at };
            self.all().insert(of.instance.clone(), last);
        }
    }

    /// Forgets all others.
    pub(super) fn retain(&self, instances: &[InstanceId]) {
        self.all()
            .retain(|instance, _| instances.contains(instance));
    }

    /// What is known now.
    pub(super) fn list(&self) -> Vec<activity::Typed> {
        let all = self.all();
        let typed = all.values().map(|last| activity::Typed {
            gitspace: last.of.gitspace.clone(),
            ago: last.at.elapsed().as_secs(),
        });
        typed.collect()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<InstanceId, Last>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_agents_said_last_grows_older_until_the_instance_is_gone() {
        let of = InstanceRef {
            gitspace: "api-k3x9q2".parse().unwrap(),
            instance: "api-k3x9q2.aaaaaa".parse().unwrap(),
        };
        let typed = Typed::default();
        assert_eq!(typed.list(), []);
        tokio::time::advance(Duration::from_secs(100)).await;
        typed.note(&of, 30);
        tokio::time::advance(Duration::from_secs(5)).await;
        typed.note(&of, u64::MAX);
        let known = activity::Typed {
            gitspace: of.gitspace.clone(),
            ago: 35,
        };
        assert_eq!(typed.list(), [known]);
        typed.retain(&[of.instance]);
        assert_eq!(typed.list().len(), 1);
        typed.retain(&[]);
        assert_eq!(typed.list(), []);
    }
}
