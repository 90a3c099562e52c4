//! Carries out what the lifecycle says: state, task, events and route of a change, in one transaction.
//!
//! Whoever calls this commits afterwards; nothing is acknowledged before. A crash at any point leaves either all of a
//! change or nothing of it, and the open task carries the lifecycle on.

use super::{
    Timing,
    lifecycle::{self, Change, Step, Trigger},
    refusal::Refusal,
    routes::{publish, withdraw},
    rows::{GitspaceRow, InstanceRow, state_of, stored},
    store::{Write, random_name, shortened},
};
use crate::api::{
    GitspaceId, InstanceId,
    gitspace::{InstanceState, State},
    task::{Destroy, Done, InstanceRef, Start, Work},
};

/// The user wants the gitspace started or stopped.
pub(super) async fn act(
    w: &mut Write,
    row: &GitspaceRow,
    trigger: Trigger,
    timing: &Timing,
) -> Result<(), Refusal> {
    let latest = InstanceRow::latest(w.connection(), &row.id).await?;
    let state = state_of(latest.as_ref());
    if row.deleting {
        return Err(refused(row, state, lifecycle::Refused::BeingDeleted));
    }
    let age = latest
        .as_ref()
        .map(|instance| instance.age(w.now))
        .unwrap_or_default();
    let change = lifecycle::next(state, trigger, age).map_err(|why| refused(row, state, why))?;
    let Some(step) = change.work else {
        return Ok(());
    };
    let verb = if trigger == Trigger::Stop {
        "stop"
    } else {
        "start"
    };
    begin_action(w, row, verb).await?;
    let instance = match latest {
        Some(old) if change.fresh => {
            replace(w, row, &old, timing).await?;
            insert_instance(w, row, Some(&old)).await?
        }
        Some(same) => {
            cancel_tasks(w, &same.id).await?;
            same
        }
        None => insert_instance(w, row, None).await?,
    };
    enter(w, &instance, change.to, None, Some(timing)).await?;
    enqueue(w, row, &instance, step).await?;
    publish(w, row).await
}

/// The user does not want the start any more that is under way.
pub(super) async fn cancel(
    w: &mut Write,
    row: &GitspaceRow,
    timing: &Timing,
) -> Result<(), Refusal> {
    let none = |state| refused(row, state, lifecycle::Refused::NotStarting);
    let latest = InstanceRow::latest(w.connection(), &row.id).await?;
    let instance = latest.ok_or_else(|| none(InstanceState::Uninitialized))?;
    let state = instance.state();
    let step = under_way(w, &instance.id).await?;
    let trigger = Trigger::Cancel(step.ok_or_else(|| none(state))?);
    let Change { to, work, .. } = lifecycle::next(state, trigger, instance.age(w.now))
        .map_err(|why| refused(row, state, why))?;
    begin_action(w, row, "stop").await?;
    cancel_tasks(w, &instance.id).await?;
    enter(w, &instance, to, None, Some(timing)).await?;
    if let Some(step) = work {
        enqueue(w, row, &instance, step).await?;
    }
    publish(w, row).await
}

/// What is being done for an instance, or is to be done next.
async fn under_way(w: &mut Write, instance: &str) -> Result<Option<Step>, Refusal> {
    let work: Option<String> = sqlx::query_scalar(
        "SELECT work FROM task WHERE instance = ? AND state IN ('queued', 'leased') ORDER BY seq LIMIT 1",
    )
    .bind(instance)
    .fetch_optional(w.connection())
    .await?;
    let step = |work: String| Ok(step_of(&serde_json::from_str::<Work>(&work)?));
    work.map(step).transpose()
}

/// The user wants the gitspace gone. Whether it is gone already.
pub(super) async fn delete(
    w: &mut Write,
    row: &GitspaceRow,
    timing: &Timing,
) -> Result<bool, Refusal> {
    let instances = InstanceRow::of(w.connection(), &row.id).await?;
    let mut changes = Vec::new();
    for instance in &instances {
        let state = instance.state();
        let change = lifecycle::next(state, Trigger::Delete, instance.age(w.now))
            .map_err(|why| refused(row, state, why))?;
        changes.push((instance, change));
    }
    if !row.deleting {
        begin_action(w, row, "delete").await?;
        sqlx::query("UPDATE gitspace SET deleting = 1 WHERE id = ?")
            .bind(&row.id)
            .execute(w.connection())
            .await?;
    }
    // The oldest first: the latest has the data.
    for (instance, Change { to, work, .. }) in changes.into_iter().rev() {
        if let Some(step) = work {
            cancel_tasks(w, &instance.id).await?;
            enter(w, instance, to, None, Some(timing)).await?;
            enqueue(w, row, instance, step).await?;
        }
    }
    withdraw(w, row).await?;
    forget_if_gone(w, row).await
}

/// A task ended, or will not: what follows for its instance.
pub(super) async fn advance(
    w: &mut Write,
    instance: &InstanceRow,
    trigger: Trigger,
    message: Option<&str>,
) -> Result<(), Refusal> {
    let row = GitspaceRow::find(w.connection(), &instance.gitspace).await?;
    let change = match lifecycle::next(instance.state(), trigger, instance.age(w.now)) {
        Ok(change) => change,
        Err(why) => {
            tracing::warn!(instance = instance.id, ?trigger, %why, "a step ended that nobody waits for");
            return Ok(());
        }
    };
    tell(w, &row, instance, trigger, change, message).await?;
    enter(w, instance, change.to, message, None).await?;
    if let Some(step) = change.work {
        enqueue(w, &row, instance, step).await?;
    }
    if row.deleting {
        forget_if_gone(w, &row).await.map(drop)
    } else {
        publish(w, &row).await
    }
}

/// What a done task told of its instance.
pub(super) async fn learn(
    w: &mut Write,
    instance: &mut InstanceRow,
    step: Step,
    done: &Done,
    runner: Option<String>,
) -> Result<(), Refusal> {
    match step {
        Step::VmSetup => {
            instance.address = done.address.map(|address| address.to_string());
            instance.runner = runner.or(instance.runner.take());
        }
        Step::AgentStart => {
            instance.ide_port = done.ide_port;
            instance.ide_path = done.ide_path.as_deref().and_then(super::domain::clean_path);
            instance.ports = serde_json::to_string(&done.ports)?;
        }
        Step::AgentStop | Step::VmSuspend | Step::VmDestroy { .. } => return Ok(()),
    }
    sqlx::query("UPDATE instance SET address = ?, runner = ?, ide_port = ?, ide_path = ?, ports = ? WHERE id = ?")
        .bind(&instance.address)
        .bind(&instance.runner)
        .bind(instance.ide_port)
        .bind(&instance.ide_path)
        .bind(&instance.ports)
        .bind(&instance.id)
        .execute(w.connection())
        .await?;
    Ok(())
}

/// Takes back what an instance's open tasks were to do. A delegate that is at one may go on until its lease ends; until
/// then the gitspace's next task waits.
pub(super) async fn cancel_tasks(w: &mut Write, instance: &str) -> Result<(), Refusal> {
    w.frees_tasks();
    sqlx::query("UPDATE task SET state = 'cancelled', finished = ? WHERE instance = ? AND state IN ('queued', 'leased')")
        .bind(w.wall)
        .bind(instance)
        .execute(w.connection())
        .await?;
    Ok(())
}

/// An old instance makes room for a new one; its data is kept.
async fn replace(
    w: &mut Write,
    row: &GitspaceRow,
    old: &InstanceRow,
    timing: &Timing,
) -> Result<(), Refusal> {
    let state = old.state();
    let change = lifecycle::next(state, Trigger::Replace, old.age(w.now))
        .map_err(|why| refused(row, state, why))?;
    if let Some(step) = change.work {
        cancel_tasks(w, &old.id).await?;
        enter(w, old, change.to, None, Some(timing)).await?;
        enqueue(w, row, old, step).await?;
    }
    Ok(())
}

async fn insert_instance(
    w: &mut Write,
    row: &GitspaceRow,
    old: Option<&InstanceRow>,
) -> Result<InstanceRow, Refusal> {
    let gitspace: GitspaceId = stored(&row.id)?;
    let mut random = [0; 6];
    getrandom::fill(&mut random)?;
    let id = InstanceId::new(&gitspace, random);
    let now = w.now;
    Ok(sqlx::query_as(
        "INSERT INTO instance (id, gitspace, state, since, runner, ports) VALUES (?, ?, ?, ?, ?, ?) RETURNING *",
    )
    .bind(id.as_str())
    .bind(&row.id)
    .bind(lifecycle::name(InstanceState::Uninitialized))
    .bind(now)
    // The data of earlier instances is on that runner.
    .bind(old.and_then(|old| old.runner.as_deref()))
    // Until it says its own: whoever opens one of them meanwhile is told that it starts, and not that there is no such port.
    .bind(old.map_or("{}", |old| &old.ports))
    .fetch_one(w.connection())
    .await?)
}

/// Sets an instance's state. With `action`, a user's action begins here and its deadline too.
async fn enter(
    w: &mut Write,
    instance: &InstanceRow,
    to: InstanceState,
    message: Option<&str>,
    action: Option<&Timing>,
) -> Result<(), Refusal> {
    tracing::info!(
        instance = instance.id,
        from = instance.state,
        to = lifecycle::name(to),
        "an instance changes its state"
    );
    let begun = action.map(|timing| w.now.saturating_add(millis(timing.orchestration)));
    let now = w.now;
    sqlx::query(
        "UPDATE instance SET since = CASE WHEN state = ?1 AND ?4 IS NULL THEN since ELSE ?2 END, state = ?1, message = ?3,
         deadline = CASE WHEN ?5 THEN coalesce(?4, deadline) END WHERE id = ?6",
    )
    .bind(lifecycle::name(to))
    .bind(now)
    .bind(message.map(shortened))
    .bind(begun)
    .bind(lifecycle::busy(to))
    .bind(&instance.id)
    .execute(w.connection())
    .await?;
    Ok(())
}

async fn enqueue(
    w: &mut Write,
    row: &GitspaceRow,
    instance: &InstanceRow,
    step: Step,
) -> Result<(), Refusal> {
    w.frees_tasks();
    let work = serde_json::to_string(&work(row, instance, step)?)?;
    sqlx::query("INSERT INTO task (id, gitspace, instance, work, runner, state) VALUES (?, ?, ?, ?, ?, 'queued')")
        .bind(random_name()?)
        .bind(&row.id)
        .bind(&instance.id)
        .bind(work)
        .bind(&instance.runner)
        .execute(w.connection())
        .await?;
    w.event(
        &row.id,
        &format!("{}_queued", step.label()),
        &format!("Asked a delegate to {}", step.sentence()),
    )
    .await
    .map(drop)
}

fn work(row: &GitspaceRow, instance: &InstanceRow, step: Step) -> Result<Work, Refusal> {
    let of = InstanceRef {
        gitspace: stored(&row.id)?,
        instance: stored(&instance.id)?,
    };
    Ok(match step {
        Step::VmSetup => Work::VmSetup(of),
        Step::VmSuspend => Work::VmSuspend(of),
        Step::AgentStop => Work::AgentStop(of),
        Step::VmDestroy { delete_data } => Work::VmDestroy(Destroy { of, delete_data }),
        Step::AgentStart => Work::AgentStart(Start {
            of,
            repository: row.repository.clone(),
            branch: row.branch.clone(),
            ide: stored(&row.ide)?,
            ports: row.asked_ports()?,
            trust: row.trust,
        }),
    })
}

/// The step that a task's work is for.
pub(super) fn step_of(work: &Work) -> Step {
    match work {
        Work::VmSetup(_) => Step::VmSetup,
        Work::VmSuspend(_) => Step::VmSuspend,
        Work::VmDestroy(destroy) => Step::VmDestroy {
            delete_data: destroy.delete_data,
        },
        Work::AgentStart(_) => Step::AgentStart,
        Work::AgentStop(_) => Step::AgentStop,
    }
}

async fn begin_action(w: &mut Write, row: &GitspaceRow, verb: &str) -> Result<(), Refusal> {
    let message = format!("{} asked to {verb} it", row.owner);
    let first = w
        .event(&row.id, &format!("gitspace_action_{verb}"), &message)
        .await?;
    sqlx::query("UPDATE gitspace SET action_from = ? WHERE id = ?")
        .bind(first)
        .bind(&row.id)
        .execute(w.connection())
        .await?;
    Ok(())
}

/// The events of a step's end, and of the action's end if that was the last one.
async fn tell(
    w: &mut Write,
    row: &GitspaceRow,
    instance: &InstanceRow,
    trigger: Trigger,
    change: Change,
    message: Option<&str>,
) -> Result<(), Refusal> {
    let action = match instance.state() {
        InstanceState::Starting => "start",
        InstanceState::Stopping => "stop",
        InstanceState::Resetting => "reset",
        _ => "delete",
    };
    match trigger {
        Trigger::Done(step) => {
            w.event(
                &row.id,
                &format!("{}_completed", step.label()),
                &format!("Done: {}", step.sentence()),
            )
            .await?;
            if change.work.is_none() {
                let now = State::from(change.to);
                let kind = format!("gitspace_action_{action}_completed");
                w.event(&row.id, &kind, &format!("It is {now}")).await?;
            }
        }
        Trigger::Failed(step) => {
            w.event(
                &row.id,
                &format!("{}_failed", step.label()),
                message.unwrap_or("It failed"),
            )
            .await?;
        }
        _ => {
            let kind = format!("gitspace_action_{action}_failed");
            w.event(&row.id, &kind, message.unwrap_or("It took too long"))
                .await?;
        }
    }
    Ok(())
}

/// Deletes the gitspace's row, as a mark, once none of its instances is left.
async fn forget_if_gone(w: &mut Write, row: &GitspaceRow) -> Result<bool, Refusal> {
    let wall = w.wall;
    let gone = sqlx::query(
        "UPDATE gitspace SET deleted = ?1, idempotency_key = NULL WHERE id = ?2
         AND NOT EXISTS (SELECT 1 FROM instance WHERE gitspace = ?2 AND state <> 'deleted')",
    )
    .bind(wall)
    .bind(&row.id)
    .execute(w.connection())
    .await?;
    Ok(gone.rows_affected() == 1)
}

fn refused(row: &GitspaceRow, state: InstanceState, why: lifecycle::Refused) -> Refusal {
    Refusal::WrongState(format!("{} is {}: {why}", row.id, State::from(state)))
}

/// A duration in the store's unit.
pub(super) fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
