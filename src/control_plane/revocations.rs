//! What counts no more at any gateway: taken from users and gateways, kept, told by the feed.
//!
//! Not here: what a revocation covers (`api::revocation`), refusing (the gateways).

use sqlx::SqliteConnection;

use super::{
    refusal::Refusal,
    store::{Store, Write},
};
use crate::api::revocation::Revocation;

/// So many are kept, as many as a gateway keeps.
const MAX: i64 = 100_000;
/// How much longer than its `until` one is told of, for a gateway whose clock is behind.
const SKEW: i64 = 30;

/// Takes one; it is stored when this returns, and on its way to the gateways. Gives what counts now: a second one for the same
/// thing never revokes less.
pub(super) async fn take(store: &Store, asked: Revocation) -> Result<Revocation, Refusal> {
    let checked = asked.check();
    checked.map_err(|error| Refusal::BadRequest(error.to_string()))?;
    let mut w = store.write().await?;
    let kind = kind(&asked)?;
    let known: Option<String> =
        sqlx::query_scalar("SELECT body FROM revocation WHERE kind = ? AND id = ?")
            .bind(&kind)
            .bind(&asked.id)
            .fetch_optional(w.connection())
            .await?;
    let now = w.wall / 1000;
    let asked = Revocation {
        issued_before: Some(asked.issued_before.unwrap_or(now)),
        ..asked
    };
    let counts = match &known {
        Some(known) => {
            let known: Revocation = serde_json::from_str(known)?;
            let joined = asked.joined(&known);
            if joined == known {
                return Ok(known);
            }
            joined
        }
        None => asked,
    };
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM revocation")
        .fetch_one(w.connection())
        .await?;
    if known.is_none() && count >= MAX {
        return Err(Refusal::TooManyRevocations(MAX));
    }
    let revision = w.revision().await?;
    sqlx::query(
        "INSERT OR REPLACE INTO revocation (kind, id, revision, until, body) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(&kind)
    .bind(&counts.id)
    .bind(revision)
    .bind(counts.until)
    .bind(serde_json::to_string(&counts)?)
    .execute(w.connection())
    .await?;
    w.commit().await?;
    tracing::info!(kind, id = counts.id, by = counts.by, "revoked");
    Ok(counts)
}

/// Those that came after a revision and still count, in their order.
pub(super) async fn after(
    db: &mut SqliteConnection,
    revision: i64,
    now: i64,
) -> Result<Vec<Revocation>, Refusal> {
    let rows: Vec<String> = sqlx::query_scalar(
        "SELECT body FROM revocation WHERE revision > ? AND (until IS NULL OR until > ?) ORDER BY revision",
    )
    .bind(revision)
    .bind(now - SKEW)
    .fetch_all(db)
    .await?;
    let read = rows.iter().map(|body| Ok(serde_json::from_str(body)?));
    read.collect()
}

/// Forgets those that are over.
pub(super) async fn forget(w: &mut Write) -> Result<bool, Refusal> {
    let before = w.wall / 1000 - 2 * SKEW;
    let old = sqlx::query("DELETE FROM revocation WHERE until < ?")
        .bind(before)
        .execute(w.connection())
        .await?;
    Ok(old.rows_affected() > 0)
}

/// As the wire has it.
fn kind(revocation: &Revocation) -> Result<String, Refusal> {
    let name = serde_json::to_value(revocation.kind)?;
    Ok(name.as_str().unwrap_or_default().to_owned())
}
