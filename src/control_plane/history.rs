//! The feed's history: the epoch and the revisions in it, how far back changes are known, and whether a gateway knows the same one.
//!
//! A database that was restored from a copy lacks what gateways were told after the copy was made, and counts the same revisions
//! again. Each run of the process therefore has a name, kept with the revision at which it began, and gateways give back the name
//! with the revision. Once one of them knows what cannot be of this history, the epoch is renewed, and all begin anew.

use super::{
    refusal::Refusal,
    store::{Store, Write, random_name},
};

/// How many runs are remembered. A gateway that was away for more of them begins anew, and all others with it.
const RUNS_MAX: i64 = 1000;
/// How many removed routes are remembered.
const REMOVED_MAX: i64 = 10_000;

/// What a gateway has already.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// The epoch of its last answer.
    pub(super) epoch: Option<String>,
    /// The run of its last answer.
    pub(super) run: Option<String>,
    /// The revision of its last answer.
    pub(super) after: Option<u64>,
}

/// Where the history is at one moment.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Point {
    pub(super) epoch: String,
    pub(super) revision: i64,
    pub(super) floor: i64,
}

impl Point {
    /// The point now, as a view has it.
    pub(super) async fn of(db: &mut sqlx::SqliteConnection) -> Result<Self, Refusal> {
        Ok(sqlx::query_as("SELECT epoch, revision, floor FROM meta")
            .fetch_one(db)
            .await?)
    }

    /// The revision after which a gateway is to be told, if it can be told in changes.
    pub(super) fn after(&self, known: &Known) -> Option<i64> {
        let after = i64::try_from(known.after?).unwrap_or(i64::MAX);
        let same = known.epoch.as_ref() == Some(&self.epoch);
        (same && (self.floor..=self.revision).contains(&after)).then_some(after)
    }
}

/// Names this run of the process, from the revision on that is in the database.
pub(super) async fn begin_run(store: &Store) -> Result<String, Refusal> {
    let name = random_name()?;
    let mut w = store.write().await?;
    sqlx::query("INSERT INTO run (name, began) SELECT ?, revision FROM meta")
        .bind(&name)
        .execute(w.connection())
        .await?;
    sqlx::query("DELETE FROM run WHERE seq <= (SELECT max(seq) - ? FROM run)")
        .bind(RUNS_MAX)
        .execute(w.connection())
        .await?;
    w.commit().await?;
    Ok(name)
}

/// Renews the epoch if what a gateway knows cannot be of this history.
pub(super) async fn compare(store: &Store, known: &Known) -> Result<(), Refusal> {
    let mut view = store.read().await?;
    if !is_foreign(&mut view, known).await? {
        return Ok(());
    }
    drop(view);
    let mut w = store.write().await?;
    // Another gateway may have been faster.
    if !is_foreign(w.connection(), known).await? {
        return Ok(());
    }
    sqlx::query("UPDATE meta SET epoch = ?, floor = revision")
        .bind(random_name()?)
        .execute(w.connection())
        .await?;
    w.tells_gateways();
    w.commit().await?;
    tracing::warn!(
        revision = known.after,
        "a gateway knows more than this database: it was restored from a copy. The feed begins anew, and every gateway takes over what is here"
    );
    Ok(())
}

async fn is_foreign(db: &mut sqlx::SqliteConnection, known: &Known) -> Result<bool, Refusal> {
    let point = Point::of(db).await?;
    let (Some(after), true) = (known.after, known.epoch.as_ref() == Some(&point.epoch)) else {
        return Ok(false);
    };
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let Some(run) = known.run.as_ref().filter(|run| !run.is_empty()) else {
        return Ok(after > point.revision);
    };
    // Where the run ended is where the next one began.
    let ended: Option<(Option<i64>,)> = sqlx::query_as(
        "SELECT (SELECT began FROM run later WHERE later.seq > run.seq ORDER BY later.seq LIMIT 1) FROM run WHERE name = ?",
    )
    .bind(run)
    .fetch_optional(db)
    .await?;
    Ok(match ended {
        None => true,
        Some((ended,)) => after > ended.unwrap_or(point.revision),
    })
}

/// Forgets routes that were removed so long ago, or so many later ones ago, that gateways who do not know had better get everything.
pub(super) async fn forget_removed(w: &mut Write, kept: i64) -> Result<bool, Refusal> {
    let before = w.wall.saturating_sub(kept);
    let newest: Option<i64> = sqlx::query_scalar(
        "SELECT max(revision) FROM route WHERE removed IS NOT NULL AND (removed < ?1 OR revision <= coalesce(
           (SELECT revision FROM route WHERE removed IS NOT NULL ORDER BY revision DESC LIMIT 1 OFFSET ?2), 0))",
    )
    .bind(before)
    .bind(REMOVED_MAX)
    .fetch_one(w.connection())
    .await?;
    let Some(newest) = newest else {
        return Ok(false);
    };
    sqlx::query("DELETE FROM route WHERE removed IS NOT NULL AND revision <= ?")
        .bind(newest)
        .execute(w.connection())
        .await?;
    sqlx::query("UPDATE meta SET floor = max(floor, ?)")
        .bind(newest)
        .execute(w.connection())
        .await?;
    Ok(true)
}
