//! The route feed, and what gateways ask and tell beside it.
//!
//! The `route` table is the truth: a row per gitspace with the revision of its last change. A long poll reads it in one
//! transaction and waits for the next commit if there is nothing to tell.

use std::time::Duration;

use sqlx::SqliteConnection;
use tokio_util::sync::CancellationToken;

use super::{
    Timing,
    keys::Keys,
    refusal::Refusal,
    store::{Store, Write},
};
use crate::api::{
    feed::{Feed, FeedKind, Redeem, Removed, Report},
    route::Route,
};

/// How much longer than its `exp` a ticket may be accepted by a gateway whose clock is behind.
const SKEW: i64 = 30;
/// How far off a ticket's `exp` may be: ours hold a minute.
const TICKET_LIFE_MAX: i64 = 24 * 60 * 60;
const JTI_MAX: usize = 128;
const GATEWAY_NAME_MAX: usize = 128;
/// How many gateways' last reports are kept.
const REPORTS_MAX: i64 = 200;

/// What a gateway has already.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// The epoch of its last answer.
    pub(super) epoch: Option<String>,
    /// The revision of its last answer.
    pub(super) after: Option<u64>,
}

/// What changed since `known`; waits up to `wait` for something to tell.
pub(super) async fn poll(
    store: &Store,
    keys: &Keys,
    timing: &Timing,
    known: &Known,
    wait: Duration,
    stop: &CancellationToken,
) -> Result<Feed, Refusal> {
    let deadline = tokio::time::Instant::now() + wait;
    let mut changes = store.route_changes();
    loop {
        changes.borrow_and_update();
        let feed = read(store, keys, timing, known).await?;
        if feed.kind == FeedKind::Snapshot || !feed.routes.is_empty() || !feed.removed.is_empty() {
            return Ok(feed);
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return Ok(feed) },
            () = tokio::time::sleep_until(deadline) => return Ok(feed),
            () = stop.cancelled() => return Ok(feed),
        }
    }
}

async fn read(store: &Store, keys: &Keys, timing: &Timing, known: &Known) -> Result<Feed, Refusal> {
    let mut view = store.read().await?;
    let (epoch, revision): (String, i64) = sqlx::query_as("SELECT epoch, revision FROM meta")
        .fetch_one(&mut *view)
        .await?;
    let revision = u64::try_from(revision).unwrap_or(0);
    let after = known
        .after
        .filter(|after| known.epoch.as_ref() == Some(&epoch) && *after <= revision);
    let (kind, (routes, removed)) = match after {
        Some(after) if after == revision => (FeedKind::Delta, (Vec::new(), Vec::new())),
        Some(after) => (FeedKind::Delta, changed_after(&mut view, after).await?),
        None => (
            FeedKind::Snapshot,
            (changed_after(&mut view, 0).await?.0, Vec::new()),
        ),
    };
    Ok(Feed {
        // Nothing is revoked by a control plane yet.
        revoked: Vec::new(),
        epoch,
        revision,
        time: store.clock.wall_seconds(),
        lease: timing.feed_lease.as_secs(),
        kind,
        routes,
        removed,
        keys: keys.feed(),
    })
}

async fn changed_after(
    db: &mut SqliteConnection,
    after: u64,
) -> Result<(Vec<Route>, Vec<Removed>), Refusal> {
    let rows: Vec<(String, i64, Option<String>)> = sqlx::query_as(
        "SELECT gitspace, generation, body FROM route WHERE revision > ? ORDER BY revision",
    )
    .bind(i64::try_from(after).unwrap_or(i64::MAX))
    .fetch_all(db)
    .await?;
    let (mut routes, mut removed) = (Vec::new(), Vec::new());
    for (gitspace, generation, body) in rows {
        let generation = u64::try_from(generation).unwrap_or(0);
        match body {
            Some(body) => routes.push(Route {
                generation,
                ..serde_json::from_str(&body)?
            }),
            None => removed.push(Removed {
                gitspace: super::rows::stored(&gitspace)?,
                generation,
            }),
        }
    }
    Ok((routes, removed))
}

/// The first redemption of a ticket wins.
pub(super) async fn redeem(store: &Store, asked: &Redeem) -> Result<(), Refusal> {
    if asked.jti.is_empty() || asked.jti.len() > JTI_MAX {
        let found = asked.jti.len();
        return Err(Refusal::BadRequest(format!(
            "jti: has {found} bytes; 1 to {JTI_MAX} are accepted"
        )));
    }
    let now = store.clock.wall_seconds();
    // Its record is forgotten after that, so it must not be redeemed after that.
    if asked.exp < now - SKEW {
        return Err(Refusal::ExpiredToken);
    }
    if asked.exp > now + TICKET_LIFE_MAX {
        return Err(Refusal::BadRequest(format!(
            "exp: {} is more than a day away; a ticket holds a minute",
            asked.exp
        )));
    }
    let mut w = store.write().await?;
    let first = sqlx::query("INSERT OR IGNORE INTO redeemed (jti, exp) VALUES (?, ?)")
        .bind(&asked.jti)
        .bind(asked.exp)
        .execute(w.connection())
        .await?;
    if first.rows_affected() == 0 {
        return Err(Refusal::TicketUsed);
    }
    w.commit().await
}

/// Keeps a gateway's last report.
pub(super) async fn report(store: &Store, report: &Report) -> Result<(), Refusal> {
    if report.gateway.is_empty() || report.gateway.len() > GATEWAY_NAME_MAX {
        let found = report.gateway.len();
        return Err(Refusal::BadRequest(format!(
            "gateway: has {found} bytes; 1 to {GATEWAY_NAME_MAX} are accepted"
        )));
    }
    let mut w = store.write().await?;
    let wall = w.wall;
    sqlx::query("INSERT OR REPLACE INTO report (gateway, received, body) VALUES (?, ?, ?)")
        .bind(&report.gateway)
        .bind(wall)
        .bind(serde_json::to_string(report)?)
        .execute(w.connection())
        .await?;
    sqlx::query(
        "DELETE FROM report WHERE gateway NOT IN (SELECT gateway FROM report ORDER BY received DESC, gateway LIMIT ?)",
    )
    .bind(REPORTS_MAX)
    .execute(w.connection())
    .await?;
    w.commit().await
}

/// Forgets redeemed tickets that nobody accepts any more.
pub(super) async fn forget_redeemed(w: &mut Write) -> Result<bool, Refusal> {
    let before = w.wall / 1000 - 2 * SKEW;
    let old = sqlx::query("DELETE FROM redeemed WHERE exp < ?")
        .bind(before)
        .execute(w.connection())
        .await?;
    Ok(old.rows_affected() > 0)
}
