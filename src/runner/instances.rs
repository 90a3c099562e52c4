//! What the runner does with instances: calls to its driver, and steps through their agents.
//!
//! What it has to remember of a start it notes beside the instance.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::{
    agents::{AgentError, Agents},
    driver::{Driver, DriverError},
    typed::Typed,
};
use crate::api::{
    InstanceId,
    agent::{Logs, StartRequest, Started},
    runner::{Said, StepDone},
    task::{Destroy, Done, InstanceRef, Start},
};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// What is kept of a start, beside the instance.
#[derive(Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) start: Start,
    pub(super) started: Started,
    /// Whether the IDE is to run.
    pub(super) wanted: bool,
}

/// See the module.
pub(super) struct Instances<D> {
    pub(super) driver: D,
    pub(super) agents: Agents,
    pub(super) typed: Typed,
    /// How many work on an instance.
    busy: Mutex<HashMap<InstanceId, usize>>,
    notes: Mutex<()>,
}

impl<D: Driver> Instances<D> {
    pub(super) fn new(driver: D, agents: Agents) -> Self {
        Self {
            driver,
            agents,
            typed: Typed::default(),
            busy: Mutex::default(),
            notes: Mutex::default(),
        }
    }

    pub(super) async fn setup(&self, of: &InstanceRef) -> Result<StepDone, CallError> {
        let _busy = self.busy(&of.instance);
        let machine = self.driver.setup(&of.instance).await?;
        Ok(StepDone {
            done: Done {
                address: Some(machine.address),
                ..Done::default()
            },
            lines: vec![format!("Instance is up ({})", D::NAME)],
        })
    }

    pub(super) async fn start(&self, start: &Start) -> Result<StepDone, CallError> {
        let _busy = self.busy(&start.of.instance);
        let started = self.bring_up(start).await?;
        let alone = self.notes();
        self.note(&Note {
            start: start.clone(),
            started: started.clone(),
            wanted: true,
        })?;
        drop(alone);
        Ok(StepDone {
            done: Done {
                address: None,
                ide_port: Some(started.ide_port),
                ports: started.ports,
                ide_path: started.ide_path,
            },
            lines: started.lines,
        })
    }

    pub(super) async fn stop(&self, of: &InstanceRef) -> Result<StepDone, CallError> {
        let _busy = self.busy(&of.instance);
        self.unwanted(&of.instance)?;
        // One that is gone has no IDE.
        let Some(machine) = self.driver.machine(&of.instance) else {
            return Ok(StepDone::default());
        };
        self.agents.stop(&machine).await?;
        Ok(StepDone {
            done: Done::default(),
            lines: vec!["IDE stopped".into()],
        })
    }

    pub(super) async fn suspend(&self, of: &InstanceRef) -> Result<StepDone, CallError> {
        let _busy = self.busy(&of.instance);
        self.unwanted(&of.instance)?;
        self.driver.suspend(&of.instance).await?;
        Ok(StepDone::default())
    }

    pub(super) async fn destroy(&self, destroy: &Destroy) -> Result<StepDone, CallError> {
        let _busy = self.busy(&destroy.of.instance);
        self.driver
            .destroy(&destroy.of.instance, destroy.delete_data)
            .await?;
        Ok(StepDone::default())
    }

    /// What the agent of an instance said.
    pub(super) async fn said(&self, asked: &Said) -> Result<Logs, CallError> {
        let instance = &asked.of.instance;
        let machine = self
            .driver
            .machine(instance)
            .ok_or_else(|| DriverError::Unknown(instance.clone()))?;
        // Beyond all: it gives where the next line begins.
        let after = asked.after.unwrap_or(u64::MAX);
        Ok(self.agents.logs(&machine, after).await?)
    }

    /// Asks the agent, with the ports of before.
    pub(super) async fn bring_up(&self, start: &Start) -> Result<Started, CallError> {
        let instance = &start.of.instance;
        let machine = self
            .driver
            .machine(instance)
            .ok_or_else(|| DriverError::Unknown(instance.clone()))?;
        let before = self.noted(instance).map(|note| note.started);
        let request = StartRequest {
            gitspace: start.of.gitspace.to_string(),
            repository: start.repository.clone(),
            branch: start.branch.clone(),
            ide: start.ide,
            ports: start.ports.clone(),
            trust: start.trust,
            ide_port_before: before.as_ref().map(|before| before.ide_port),
            ports_before: before.map(|before| before.ports).unwrap_or_default(),
        };
        Ok(self.agents.start(&machine, &request).await?)
    }

    pub(super) fn noted(&self, instance: &InstanceId) -> Option<Note> {
        serde_json::from_str(&self.driver.noted(instance)?).ok()
    }

    pub(super) fn note(&self, note: &Note) -> Result<(), DriverError> {
        // Texts and numbers: this does not fail.
        let text = serde_json::to_string(note).unwrap_or_default();
        self.driver.note(&note.start.of.instance, &text)
    }

    /// From now on the IDE is not to run.
    fn unwanted(&self, instance: &InstanceId) -> Result<(), DriverError> {
        let _alone = self.notes();
        match self.noted(instance) {
            Some(note) if note.wanted => self.note(&Note {
                wanted: false,
                ..note
            }),
            _ => Ok(()),
        }
    }

    /// Held while a note is read and written again.
    pub(super) fn notes(&self) -> MutexGuard<'_, ()> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks an instance as worked on.
    fn busy(&self, instance: &InstanceId) -> Busy<'_, D> {
        *self.all_busy().entry(instance.clone()).or_default() += 1;
        Busy {
            instances: self,
            instance: instance.clone(),
        }
    }

    /// Marks an instance as worked on, unless it is.
    pub(super) fn idle(&self, instance: &InstanceId) -> Option<Busy<'_, D>> {
        let mut busy = self.all_busy();
        if busy.contains_key(instance) {
            return None;
        }
        busy.insert(instance.clone(), 1);
        Some(Busy {
            instances: self,
            instance: instance.clone(),
        })
    }

    fn all_busy(&self) -> MutexGuard<'_, HashMap<InstanceId, usize>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While it lives, somebody works on an instance.
pub(super) struct Busy<'a, D: Driver> {
    instances: &'a Instances<D>,
    instance: InstanceId,
}

impl<D: Driver> Drop for Busy<'_, D> {
    fn drop(&mut self) {
        let mut busy = self.instances.all_busy();
        match busy.get_mut(&self.instance) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(busy.remove(&self.instance)),
        }
    }
}
