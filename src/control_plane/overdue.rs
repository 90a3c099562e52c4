//! What time brings and nobody asks for: leases that were lost, actions that take too long, records to forget.
//!
//! One tick a second, in one transaction that is only committed if it changed something.

use std::time::Duration;

use super::{
    State, Timing, feed, history,
    lifecycle::Trigger,
    orchestrate::{advance, cancel_tasks, millis},
    refusal::{Chain, Refusal},
    revocations,
    rows::InstanceRow,
    store::{Store, Write},
    tasks::{TaskRow, finish},
};
use crate::api::task::Outcome;

/// How long ended tasks are remembered.
const TASK_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a delegate that is not seen any more is remembered.
const DELEGATE_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Does it, for as long as it is polled.
pub(super) async fn keep_time(state: &State) {
    let pace = (state.timing.lease / 4).clamp(Duration::from_millis(10), Duration::from_secs(1));
    let mut ticks = tokio::time::interval(pace);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = tick(state).await {
            tracing::error!(error = %Chain(&error), "cannot look after tasks and deadlines");
        }
    }
}

async fn tick(state: &State) -> Result<(), Refusal> {
    let mut w = state.store.write().await?;
    let changes = [
        expire(&mut w, &state.timing).await?,
        time_out(&mut w, &state.timing).await?,
        forget(&mut w).await?,
        feed::forget_redeemed(&mut w).await?,
        revocations::forget(&mut w).await?,
        history::forget_removed(&mut w, millis(state.timing.removed_kept)).await?,
    ];
    if changes.contains(&true) {
        w.commit().await?;
    }
    state.prepared.forget();
    Ok(())
}

/// Takes back the tasks whose leases have ended: they are handed out again, or fail after the last attempt.
async fn expire(w: &mut Write, timing: &Timing) -> Result<bool, Refusal> {
    let now = w.now;
    let lost: Vec<TaskRow> = sqlx::query_as(
        "SELECT * FROM task WHERE state = 'leased' AND lease_until <= ? ORDER BY seq",
    )
    .bind(now)
    .fetch_all(w.connection())
    .await?;
    for task in &lost {
        let step = task.step()?;
        tracing::warn!(
            gitspace = task.gitspace,
            task = task.id,
            attempt = task.attempt,
            "a task's lease was lost"
        );
        if task.attempt >= timing.attempts {
            let message = format!(
                "No delegate that was to {} came back, {} times; see the delegate's log",
                step.sentence(),
                task.attempt
            );
            finish(w, task, &Outcome::Failed { message }, None).await?;
        } else {
            sqlx::query("UPDATE task SET state = 'queued', lease = NULL WHERE id = ?")
                .bind(&task.id)
                .execute(w.connection())
                .await?;
            let message = format!("The delegate was lost while it was to {}", step.sentence());
            w.event(&task.gitspace, &format!("{}_lost", step.label()), &message)
                .await?;
        }
    }
    let held = sqlx::query(
        "UPDATE task SET lease_until = NULL WHERE state = 'cancelled' AND lease_until <= ?",
    )
    .bind(now)
    .execute(w.connection())
    .await?;
    let changed = !lost.is_empty() || held.rows_affected() > 0;
    if changed {
        w.frees_tasks();
    }
    Ok(changed)
}

/// Fails what was asked for too long ago.
async fn time_out(w: &mut Write, timing: &Timing) -> Result<bool, Refusal> {
    let now = w.now;
    let late: Vec<InstanceRow> =
        sqlx::query_as("SELECT * FROM instance WHERE deadline <= ? ORDER BY seq")
            .bind(now)
            .fetch_all(w.connection())
            .await?;
    for instance in &late {
        cancel_tasks(w, &instance.id).await?;
        let message = format!(
            "It took longer than {} min; see whether the delegate of its runner is up, then start it again or delete it",
            timing.orchestration.as_secs() / 60
        );
        advance(w, instance, Trigger::TimedOut, Some(&message)).await?;
    }
    Ok(!late.is_empty())
}

/// Forgets tasks that ended so long ago that nobody sends their result again, and delegates that are gone.
async fn forget(w: &mut Write) -> Result<bool, Refusal> {
    let before = w.wall.saturating_sub(millis(TASK_KEPT));
    let old = sqlx::query("DELETE FROM task WHERE state IN ('done', 'cancelled') AND finished < ?")
        .bind(before)
        .execute(w.connection())
        .await?;
    let unseen = w.now.saturating_sub(millis(DELEGATE_KEPT));
    let gone = sqlx::query(
        "DELETE FROM delegate WHERE seen < ? AND id NOT IN (SELECT delegate FROM task WHERE delegate IS NOT NULL)",
    )
    .bind(unseen)
    .execute(w.connection())
    .await?;
    Ok(old.rows_affected() > 0 || gone.rows_affected() > 0)
}

/// Gives every lease its full time again: while the control plane was down nobody could renew one.
pub(super) async fn renew_all(store: &Store, timing: &Timing) -> Result<(), Refusal> {
    let mut w = store.write().await?;
    let until = w.now.saturating_add(millis(timing.lease));
    let now = w.now;
    sqlx::query("UPDATE task SET lease_until = ?, leased_at = ? WHERE state = 'leased'")
        .bind(until)
        .bind(now)
        .execute(w.connection())
        .await?;
    w.commit().await
}
