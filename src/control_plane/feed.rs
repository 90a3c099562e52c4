//! What gateways ask and tell beside the feed itself: tickets to redeem, and how they are.
//!
//! Not here: the long poll (`poll`).

use super::{
    refusal::Refusal,
    store::{Store, Write},
};
use crate::api::feed::{Redeem, Report};

/// How much longer than its `exp` a ticket may be accepted by a gateway whose clock is behind.
const SKEW: i64 = 30;
/// How far off a ticket's `exp` may be: ours hold a minute.
const TICKET_LIFE_MAX: i64 = 24 * 60 * 60;
const JTI_MAX: usize = 128;
const GATEWAY_NAME_MAX: usize = 128;
/// How many gateways' last reports are kept.
const REPORTS_MAX: i64 = 200;

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
