//! Keeping up what is to run: an instance that ended by itself, or with the runner, is brought up again on the ports that it
//! had, so that routes stay true.
//!
//! An IDE that was stopped and an instance that was suspended are left alone, also while they are. What agents say of terminals when
//! they are looked at goes to `typed`.

use std::{collections::HashMap, time::Duration};

use futures_util::{StreamExt, stream};
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use super::{
    driver::{Driver, DriverError},
    instances::{CallError, Instances, Note},
};
use crate::{api::InstanceId, telemetry::Chain};

/// How often instances are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How many are brought up at once.
const AT_ONCE: usize = 4;
/// The pause after a try; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LAST_PAUSE: Duration = Duration::from_secs(300);
/// An instance that is up for so long has no trouble any more.
const STEADY: Duration = Duration::from_secs(60);

/// Keeps up, for ever; the first look comes at once.
pub(super) async fn keep_up<D: Driver>(instances: &Instances<D>, restored: &Counter) {
    let mut troubles: HashMap<InstanceId, Trouble> = HashMap::new();
    loop {
        let wanted = instances.driver.wanted();
        troubles.retain(|instance, _| wanted.contains(instance));
        instances.typed.retain(&wanted);
        let now = Instant::now();
        let due = wanted.into_iter().filter(|instance| {
            let trouble = troubles.get(instance);
            trouble.is_none_or(|trouble| trouble.until <= now)
        });
        let looked: Vec<_> = stream::iter(due)
            .map(|instance| async move {
                let found = look(instances, &instance).await;
                (instance, found)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (instance, found) in looked {
            match found {
                Ok(Found::Up) => {
                    let trouble = troubles.get(&instance);
                    if trouble.is_some_and(|trouble| trouble.until + STEADY <= Instant::now()) {
                        troubles.remove(&instance);
                    }
                }
                Ok(Found::Restored) => {
                    restored.inc();
                    tracing::info!(%instance, "an instance is up again");
                    troubles.entry(instance).or_default().again();
                }
                Err(error) => {
                    let trouble = troubles.entry(instance.clone()).or_default();
                    trouble.again();
                    let pause = trouble.pause.as_secs();
                    tracing::error!(%instance, error = %Chain(&error), "cannot bring an instance up again; next try in {pause} s");
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

enum Found {
    /// As it is to be.
    Up,
    Restored,
}

/// When to look again at an instance that had to be brought up.
struct Trouble {
    pause: Duration,
    until: Instant,
}

impl Default for Trouble {
    fn default() -> Self {
        Self {
            pause: FIRST_PAUSE / 2,
            until: Instant::now(),
        }
    }
}

impl Trouble {
    fn again(&mut self) {
        self.pause = (self.pause * 2).min(LAST_PAUSE);
        self.until = Instant::now() + self.pause;
    }
}

async fn look<D: Driver>(
    instances: &Instances<D>,
    instance: &InstanceId,
) -> Result<Found, CallError> {
    let Some(_busy) = instances.idle(instance) else {
        return Ok(Found::Up);
    };
    let note = instances.noted(instance).filter(|note| note.wanted);
    let Some(reason) = down(instances, instance, note.as_ref()).await else {
        return Ok(Found::Up);
    };
    tracing::warn!(%instance, %reason, "an instance is brought up again");
    match restore(instances, instance, note).await {
        Ok(()) => Ok(Found::Restored),
        // Suspended or destroyed meanwhile, or the runner ends: nothing to be done.
        Err(_) if !instances.driver.wanted().contains(instance) => Ok(Found::Up),
        Err(CallError::Driver(DriverError::ShuttingDown(_))) => Ok(Found::Up),
        Err(error) => Err(error),
    }
}

/// Why an instance is not what it is to be, if so.
async fn down<D: Driver>(
    instances: &Instances<D>,
    instance: &InstanceId,
    note: Option<&Note>,
) -> Option<String> {
    let Some(machine) = instances.driver.machine(instance) else {
        return Some("its agent does not run".into());
    };
    let note = note?;
    // One that does not answer is on its way out, or too busy: the next look tells.
    let status = instances.agents.status(&machine).await.ok()?;
    if let Some(ago) = status.typed_ago {
        instances.typed.note(&note.start.of, ago);
    }
    let ended = || status.ended.unwrap_or("its IDE does not run".into());
    (!status.running).then(ended)
}

async fn restore<D: Driver>(
    instances: &Instances<D>,
    instance: &InstanceId,
    note: Option<Note>,
) -> Result<(), CallError> {
    instances.driver.revive(instance).await?;
    let Some(before) = note else {
        return Ok(());
    };
    let started = instances.bring_up(&before.start).await?;
    if (started.ide_port, &started.ports) != (before.started.ide_port, &before.started.ports) {
        tracing::warn!(%instance, "its ports were taken and changed; stop and start the gitspace to renew its route");
    }
    let _alone = instances.notes();
    // A stop that came meanwhile has the last word.
    if instances.noted(instance).is_some_and(|note| note.wanted) {
        instances.note(&Note { started, ..before })?;
    }
    Ok(())
}
