//! Work for delegates: handed out under leases, renewed by heartbeats, ended by results that may be sent twice.
//!
//! A gitspace's tasks are done one after the other, in order. A task whose instance has a runner goes to delegates of
//! that runner only. What follows from a result is `orchestrate`'s.

use std::time::Duration;

use sqlx::FromRow;

use super::{
    Timing,
    lifecycle::{Step, Trigger},
    orchestrate::{advance, learn, millis, step_of},
    refusal::Refusal,
    rows::InstanceRow,
    store::{Store, Write, random_name},
};
use crate::api::task::{
    Done, Heartbeat, Outcome, Progress, Register, Registered, Task, TaskResult, Work,
};

/// How often a delegate is to send a heartbeat.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// A task that its delegate does not name in a heartbeat this long after it was handed out never reached it.
const UNNAMED: Duration = Duration::from_secs(20);
/// The longest name of a delegate, a runner or a tag.
const NAME_MAX: usize = 128;
const TAGS_MAX: usize = 32;
/// How many tasks a delegate may have at once, whatever it says.
const CAPACITY_MAX: u32 = 1000;
/// How many lines of a progress report are kept.
const LINES_MAX: usize = 100;

/// A task as it is stored.
#[derive(Debug, FromRow)]
pub(super) struct TaskRow {
    pub(super) id: String,
    pub(super) gitspace: String,
    instance: String,
    work: String,
    state: String,
    pub(super) attempt: u32,
    delegate: Option<String>,
    lease: Option<String>,
    progress: Option<i64>,
    outcome: Option<String>,
}

impl TaskRow {
    async fn find(w: &mut Write, id: &str) -> Result<Self, Refusal> {
        sqlx::query_as("SELECT * FROM task WHERE id = ?")
            .bind(id)
            .fetch_optional(w.connection())
            .await?
            .ok_or(Refusal::NoSuchTask)
    }

    /// What it does.
    pub(super) fn step(&self) -> Result<Step, Refusal> {
        Ok(step_of(&serde_json::from_str::<Work>(&self.work)?))
    }

    async fn instance(&self, w: &mut Write) -> Result<InstanceRow, Refusal> {
        Ok(sqlx::query_as("SELECT * FROM instance WHERE id = ?")
            .bind(&self.instance)
            .fetch_one(w.connection())
            .await?)
    }

    fn leased_as(&self, lease: &str) -> bool {
        self.state == "leased" && self.lease.as_deref() == Some(lease)
    }
}

/// A delegate says that it is there. The same name is the same delegate.
pub(super) async fn register(store: &Store, asked: &Register) -> Result<Registered, Refusal> {
    check_register(asked)?;
    let mut w = store.write().await?;
    let now = w.now;
    let id: String = sqlx::query_scalar(
        "INSERT INTO delegate (id, name, runner, tags, capacity, seen) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (name) DO UPDATE SET runner = excluded.runner, tags = excluded.tags, capacity = excluded.capacity,
         seen = excluded.seen RETURNING id",
    )
    .bind(random_name()?)
    .bind(&asked.name)
    .bind(&asked.runner)
    .bind(serde_json::to_string(&asked.tags)?)
    .bind(asked.capacity.min(CAPACITY_MAX))
    .bind(now)
    .fetch_one(w.connection())
    .await?;
    w.commit().await?;
    Ok(Registered {
        id,
        heartbeat_seconds: HEARTBEAT.as_secs(),
    })
}

fn check_register(asked: &Register) -> Result<(), Refusal> {
    let texts = [("name", &asked.name), ("runner", &asked.runner)];
    let tags = asked.tags.iter().map(|tag| ("tags", tag));
    for (key, text) in texts.into_iter().chain(tags) {
        if text.is_empty() || text.len() > NAME_MAX {
            let found = text.len();
            return Err(Refusal::BadRequest(format!(
                "{key}: has {found} bytes; 1 to {NAME_MAX} are accepted"
            )));
        }
    }
    if asked.capacity == 0 || asked.tags.len() > TAGS_MAX {
        return Err(Refusal::BadRequest(format!(
            "capacity must be at least 1 (is {}), and at most {TAGS_MAX} tags are accepted",
            asked.capacity
        )));
    }
    Ok(())
}

/// A delegate is still there: its leases are renewed, and what it does not know of is handed out again.
pub(super) async fn heartbeat(
    store: &Store,
    delegate: &str,
    beat: &Heartbeat,
    timing: &Timing,
) -> Result<(), Refusal> {
    let mut w = store.write().await?;
    let now = w.now;
    let known = sqlx::query("UPDATE delegate SET seen = ? WHERE id = ?")
        .bind(now)
        .bind(delegate)
        .execute(w.connection())
        .await?;
    if known.rows_affected() == 0 {
        return Err(Refusal::NoSuchDelegate);
    }
    let named = serde_json::to_string(&beat.tasks)?;
    sqlx::query(
        "UPDATE task SET lease_until = ?1 WHERE state = 'leased' AND delegate = ?2
         AND id IN (SELECT value FROM json_each(?3))",
    )
    .bind(now.saturating_add(millis(timing.lease)))
    .bind(delegate)
    .bind(&named)
    .execute(w.connection())
    .await?;
    sqlx::query(
        "UPDATE task SET lease_until = ?1 WHERE state = 'leased' AND delegate = ?2 AND leased_at < ?3
         AND id NOT IN (SELECT value FROM json_each(?4))",
    )
    .bind(now)
    .bind(delegate)
    .bind(now.saturating_sub(millis(UNNAMED)))
    .bind(&named)
    .execute(w.connection())
    .await?;
    w.commit().await
}

/// Hands the oldest task that `delegate` may do to it; waits up to `wait` for one.
pub(super) async fn acquire(
    store: &Store,
    delegate: &str,
    wait: Duration,
    timing: &Timing,
    stop: &tokio_util::sync::CancellationToken,
) -> Result<Option<Task>, Refusal> {
    let deadline = tokio::time::Instant::now() + wait;
    let mut changes = store.task_changes();
    loop {
        changes.borrow_and_update();
        if let Some(task) = hand_out(store, delegate, timing).await? {
            return Ok(Some(task));
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return Ok(None) },
            () = tokio::time::sleep_until(deadline) => return Ok(None),
            () = stop.cancelled() => return Ok(None),
        }
    }
}

/// The oldest open task of each gitspace, if a delegate with this runner may do it.
const NEXT: &str =
    "SELECT t.seq FROM task t WHERE t.state = 'queued' AND (t.runner IS NULL OR t.runner = ?1)
    AND NOT EXISTS (SELECT 1 FROM task o WHERE o.gitspace = t.gitspace AND o.seq < t.seq
        AND (o.state IN ('queued', 'leased') OR (o.state = 'cancelled' AND o.lease_until > ?2)))
    ORDER BY t.seq LIMIT 1";

async fn hand_out(store: &Store, delegate: &str, timing: &Timing) -> Result<Option<Task>, Refusal> {
    // Looking first keeps waiting delegates off the one writer.
    let now = store.clock.now();
    let mut view = store.read().await?;
    let runner = runner_of(&mut view, delegate).await?;
    let waiting: Option<i64> = sqlx::query_scalar(NEXT)
        .bind(&runner)
        .bind(now)
        .fetch_optional(&mut *view)
        .await?;
    drop(view);
    if waiting.is_none() {
        return Ok(None);
    }
    let mut w = store.write().await?;
    let now = w.now;
    let free: bool = sqlx::query_scalar(
        "SELECT capacity > (SELECT count(*) FROM task WHERE state = 'leased' AND delegate = ?1) FROM delegate WHERE id = ?1",
    )
    .bind(delegate)
    .fetch_one(w.connection())
    .await?;
    let next: Option<i64> = sqlx::query_scalar(NEXT)
        .bind(&runner)
        .bind(now)
        .fetch_optional(w.connection())
        .await?;
    let Some(seq) = next.filter(|_| free) else {
        return Ok(None);
    };
    let row: TaskRow = sqlx::query_as(
        "UPDATE task SET state = 'leased', attempt = attempt + 1, delegate = ?, lease = ?, leased_at = ?, lease_until = ?,
         progress = NULL WHERE seq = ? RETURNING *",
    )
    .bind(delegate)
    .bind(random_name()?)
    .bind(now)
    .bind(now.saturating_add(millis(timing.lease)))
    .bind(seq)
    .fetch_one(w.connection())
    .await?;
    tell_started(&mut w, &row).await?;
    w.commit().await?;
    Ok(Some(Task {
        work: serde_json::from_str(&row.work)?,
        id: row.id,
        attempt: row.attempt,
        lease: row.lease.unwrap_or_default(),
        lease_seconds: timing.lease.as_secs().max(1),
    }))
}

async fn tell_started(w: &mut Write, task: &TaskRow) -> Result<(), Refusal> {
    let delegate: String = sqlx::query_scalar("SELECT name FROM delegate WHERE id = ?")
        .bind(&task.delegate)
        .fetch_one(w.connection())
        .await?;
    let again = if task.attempt > 1 { " again" } else { "" };
    let kind = format!("{}_started", task.step()?.label());
    w.event(
        &task.gitspace,
        &kind,
        &format!("Delegate {delegate} took it{again}"),
    )
    .await?;
    Ok(())
}

async fn runner_of(db: &mut sqlx::SqliteConnection, delegate: &str) -> Result<String, Refusal> {
    sqlx::query_scalar("SELECT runner FROM delegate WHERE id = ?")
        .bind(delegate)
        .fetch_optional(db)
        .await?
        .ok_or(Refusal::NoSuchDelegate)
}

/// Lines of a task under way become events. A report already seen is ignored.
pub(super) async fn progress(store: &Store, id: &str, report: &Progress) -> Result<(), Refusal> {
    let mut w = store.write().await?;
    let task = TaskRow::find(&mut w, id).await?;
    if !task.leased_as(&report.lease) {
        return Err(Refusal::LostLease);
    }
    let seq = i64::try_from(report.seq)
        .map_err(|_| Refusal::BadRequest(format!("seq: {} is too large", report.seq)))?;
    if task.progress.is_some_and(|seen| seen >= seq) {
        return Ok(());
    }
    sqlx::query("UPDATE task SET progress = ? WHERE id = ?")
        .bind(seq)
        .bind(id)
        .execute(w.connection())
        .await?;
    let kind = format!("{}_progress", task.step()?.label());
    for line in report.lines.iter().take(LINES_MAX) {
        w.event(&task.gitspace, &kind, line).await?;
    }
    w.commit().await
}

/// How a task ended. The same result may be sent again, also after the task was forgotten to be leased.
pub(super) async fn result(store: &Store, id: &str, sent: &TaskResult) -> Result<(), Refusal> {
    let mut w = store.write().await?;
    let task = TaskRow::find(&mut w, id).await?;
    if let Some(recorded) = task.outcome.as_deref() {
        let same = serde_json::from_str::<Outcome>(recorded)? == sent.outcome;
        return if same {
            Ok(())
        } else {
            Err(Refusal::LostLease)
        };
    }
    if task.state == "cancelled" && task.lease.as_ref() == Some(&sent.lease) {
        release(&mut w, id).await?;
        w.commit().await?;
        return Err(Refusal::LostLease);
    }
    if !task.leased_as(&sent.lease) {
        return Err(Refusal::LostLease);
    }
    let runner = match task.delegate.as_deref() {
        Some(delegate) => Some(runner_of(w.connection(), delegate).await?),
        None => None,
    };
    finish(&mut w, &task, &sent.outcome, runner).await?;
    w.commit().await
}

/// A delegate has ended a task that was cancelled meanwhile: the gitspace's next one need not wait for its lease.
async fn release(w: &mut Write, id: &str) -> Result<(), Refusal> {
    w.frees_tasks();
    sqlx::query("UPDATE task SET lease_until = NULL WHERE id = ?")
        .bind(id)
        .execute(w.connection())
        .await?;
    Ok(())
}

/// Records how a task ended, and what follows.
pub(super) async fn finish(
    w: &mut Write,
    task: &TaskRow,
    outcome: &Outcome,
    runner: Option<String>,
) -> Result<(), Refusal> {
    w.frees_tasks();
    let wall = w.wall;
    sqlx::query("UPDATE task SET state = 'done', outcome = ?, finished = ? WHERE id = ?")
        .bind(serde_json::to_string(outcome)?)
        .bind(wall)
        .bind(&task.id)
        .execute(w.connection())
        .await?;
    let step = task.step()?;
    let mut instance = task.instance(w).await?;
    let failure = match outcome {
        Outcome::Failed { message } => Some(message.as_str()),
        Outcome::Done(done) => missing(step, done),
    };
    if let Outcome::Done(done) = outcome {
        learn(w, &mut instance, step, done, runner).await?;
    }
    let trigger = if failure.is_some() {
        Trigger::Failed(step)
    } else {
        Trigger::Done(step)
    };
    advance(w, &instance, trigger, failure).await
}

/// What a done task should have told and did not.
fn missing(step: Step, done: &Done) -> Option<&'static str> {
    match step {
        Step::VmSetup if done.address.is_none() => {
            Some("the runner did not say where the instance is")
        }
        Step::AgentStart if done.ide_port.unwrap_or(0) == 0 => {
            Some("the agent did not say where the IDE listens")
        }
        _ => None,
    }
}
