//! The feed's long poll: what changed since a gateway asked last, or everything.
//!
//! The `route` table is the truth: a row per gitspace with the revision of its last change, and those that are gone for a time. An
//! answer is read in one view of one moment, and encoded and compressed once: gateways that ask for the same get the same bytes, and only one
//! snapshot is made at a time, so that many gateways that begin anew at once cost memory and time for one.

use std::{
    io::{self, Write},
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use sqlx::SqliteConnection;
use tokio::{sync::Mutex, time::Instant};

use super::{
    State,
    history::{self, Known, Point},
    refusal::Refusal,
    revocations,
    rows::stored,
};
use crate::api::{
    feed::{Feed, FeedKind, Removed},
    route::Route,
};

/// A gateway that finds news at once is being told of many changes: so long more of them are waited for.
const BATCH: Duration = Duration::from_millis(50);
/// A shorter answer is one packet either way.
const WORTH_GZIP: usize = 1024;
/// An answer is older than this for nobody: it tells the time.
const PREPARED_FOR: Duration = Duration::from_secs(1);

/// An answer as gateways may get it.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    plain: Encoded,
    /// For those who take it, where it is worth it.
    gzip: Option<Encoded>,
}

/// What is sent.
#[derive(Debug, Clone)]
pub(super) struct Encoded {
    pub(super) body: Bytes,
    /// Its `Content-Digest` (RFC 9530), of what is sent.
    pub(super) digest: String,
}

impl Answer {
    fn of(feed: &Feed) -> Result<Self, Refusal> {
        let plain = serde_json::to_vec(feed)?;
        let gzip = match plain.len() {
            ..WORTH_GZIP => None,
            _ => gzip(&plain).ok().map(Encoded::of),
        };
        Ok(Self {
            plain: Encoded::of(plain),
            gzip,
        })
    }

    /// As one gets it who takes gzip, or does not: whether it is, and what is sent.
    pub(super) fn encoded(self, takes_gzip: bool) -> (bool, Encoded) {
        match self.gzip.filter(|_| takes_gzip) {
            Some(gzip) => (true, gzip),
            None => (false, self.plain),
        }
    }
}

impl Encoded {
    fn of(body: Vec<u8>) -> Self {
        let digest = STANDARD.encode(digest(&SHA256, &body));
        Self {
            body: body.into(),
            digest: format!("sha-256=:{digest}:"),
        }
    }
}

fn gzip(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain)?;
    encoder.finish()
}

/// The last answers, for the next gateways that ask for the same.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    snapshot: Slot,
    delta: Slot,
}

type Slot = Mutex<Option<Ready>>;

#[derive(Debug)]
struct Ready {
    at: Instant,
    point: Point,
    after: Option<i64>,
    answer: Answer,
}

impl Prepared {
    /// Lets go of answers that nobody gets any more.
    pub(super) fn forget(&self) {
        for slot in [&self.snapshot, &self.delta] {
            // Where somebody is at it, there is something to keep.
            if let Ok(mut slot) = slot.try_lock() {
                slot.take_if(|ready| ready.at.elapsed() >= PREPARED_FOR);
            }
        }
    }
}

/// What changed since `known`; waits up to `wait` for something to tell.
pub(super) async fn poll(state: &State, known: &Known, wait: Duration) -> Result<Answer, Refusal> {
    let deadline = Instant::now() + wait;
    let mut changes = state.store.feed_changes();
    history::compare(&state.store, known).await?;
    let mut first = true;
    loop {
        changes.borrow_and_update();
        let mut view = state.store.read().await?;
        let point = Point::of(&mut view).await?;
        drop(view);
        let over = |after| after == point.revision;
        match point.after(known) {
            Some(after) if over(after) => {}
            Some(_) if first && Instant::now() + BATCH < deadline => {
                first = false;
                tokio::time::sleep(BATCH).await;
                continue;
            }
            _ => return answer(state, known).await,
        }
        first = false;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return answer(state, known).await },
            () = tokio::time::sleep_until(deadline) => return answer(state, known).await,
            () = state.stop.cancelled() => return answer(state, known).await,
        }
    }
}

async fn answer(state: &State, known: &Known) -> Result<Answer, Refusal> {
    let mut view = state.store.read().await?;
    let slot = match Point::of(&mut view).await?.after(known) {
        Some(_) => &state.prepared.delta,
        None => &state.prepared.snapshot,
    };
    // Nobody holds a connection of the store while it waits for its turn.
    drop(view);
    let mut slot = slot.lock().await;
    let mut view = state.store.read().await?;
    let point = Point::of(&mut view).await?;
    let after = point.after(known);
    let fits = |ready: &&Ready| {
        ready.at.elapsed() < PREPARED_FOR && ready.point == point && ready.after == after
    };
    if let Some(ready) = slot.as_ref().filter(fits) {
        return Ok(ready.answer.clone());
    }
    let feed = read(state, &mut view, &point, after).await?;
    drop(view);
    // A large one takes its time: other tasks of the thread do not wait for it.
    let encoding = tokio::task::spawn_blocking(move || Answer::of(&feed));
    let answer = encoding.await??;
    *slot = Some(Ready {
        at: Instant::now(),
        point,
        after,
        answer: answer.clone(),
    });
    Ok(answer)
}

async fn read(
    state: &State,
    view: &mut SqliteConnection,
    point: &Point,
    after: Option<i64>,
) -> Result<Feed, Refusal> {
    let time = state.store.clock.wall_seconds();
    let (routes, removed) = changed_after(view, after).await?;
    Ok(Feed {
        epoch: point.epoch.clone(),
        run: Some(state.run.clone()),
        revision: u64::try_from(point.revision).unwrap_or(0),
        time,
        lease: state.timing.feed_lease.as_secs(),
        kind: match after {
            Some(_) => FeedKind::Delta,
            None => FeedKind::Snapshot,
        },
        routes,
        removed,
        revoked: revocations::after(view, after.unwrap_or(-1), time).await?,
        keys: state.keys.feed(),
    })
}

/// None: everything that is there.
async fn changed_after(
    db: &mut SqliteConnection,
    after: Option<i64>,
) -> Result<(Vec<Route>, Vec<Removed>), Refusal> {
    let rows: Vec<(String, i64, Option<String>)> = sqlx::query_as(
        "SELECT gitspace, generation, body FROM route WHERE revision > ?1 AND (?2 OR body IS NOT NULL) ORDER BY revision",
    )
    .bind(after.unwrap_or(-1))
    .bind(after.is_some())
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
                gitspace: stored(&gitspace)?,
                generation,
            }),
        }
    }
    Ok((routes, removed))
}
