//! The feed's client: a long poll that keeps the table as the control plane wants it.
//!
//! Answers are validated whole before anything is applied (`answer`), and kept on disk (`kept`), so that a gateway starts and serves
//! without its control plane. Within an epoch nothing older overwrites anything newer; another epoch is another history, and its
//! snapshot is taken over whole. It runs on the background runtime, never on a worker. Beside it the gateway reports (`report`).

mod answer;
mod back_off;
mod clock;
mod kept;
mod lease;
mod report;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use http::header;
use tokio_util::sync::CancellationToken;

use self::{
    answer::{ANSWER_MAX, FeedError},
    back_off::BackOff,
};
pub(crate) use self::{
    clock::Clock,
    kept::{Kept, Store},
    lease::{Lack, Lease},
};
use super::{RouteError, Source, Table};
use crate::{
    api::{
        GitspaceId, Secret,
        feed::{Feed, FeedKind},
        revocation::Revocation,
    },
    gateway::{
        Gateway,
        auth::{Authenticator, seconds},
    },
    telemetry::Chain,
};

const WAIT_SECONDS: u64 = 30;
/// An answer without news that comes sooner is one that did not wait.
const SOON: Duration = Duration::from_secs(1);

/// Follows a control plane on behalf of a gateway.
pub(crate) struct Follower {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) url: String,
    pub(crate) token: Secret,
    pub(crate) store: Arc<Mutex<Store>>,
    pub(crate) name: String,
    pub(crate) clock: Clock,
}

/// What a turn of the poll came to.
enum Turn {
    News,
    Nothing,
}

/// Applies what was kept, so that the gateway serves before it has heard from the control plane.
pub(crate) fn restore(kept: &Kept, table: &Table, auth: &Authenticator) {
    if let Err(error) = auth.feed_keys(&kept.keys) {
        tracing::warn!(%error, "the kept keys cannot be used");
    }
    for (gitspace, route) in &kept.routes {
        skip(gitspace, table.apply(Source::Feed, route));
    }
}

fn skip(gitspace: &GitspaceId, applied: Result<bool, RouteError>) {
    if let Err(error) = applied {
        tracing::error!(%gitspace, %error, "a route of the feed is skipped");
    }
}

impl Follower {
    /// Follows until the stop.
    pub(crate) async fn run(self, kept: Option<Kept>, stop: CancellationToken) {
        let Ok(client) = reqwest::Client::builder()
            // The token goes to whom the configuration names: not through a proxy that the environment names.
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .build()
        else {
            tracing::error!("the feed's client cannot be made");
            return;
        };
        let follow = self.follow(&client, kept);
        tokio::select! {
            () = stop.cancelled() => {}
            () = follow => {}
            () = self.report(&client) => {}
        }
    }

    async fn follow(&self, client: &reqwest::Client, mut kept: Option<Kept>) {
        let mut back_off = BackOff::default();
        let mut failing = false;
        // Whether what is had is no base for a change, and everything is wanted.
        let mut whole = false;
        loop {
            let begun = Instant::now();
            let least = match self.turn(client, &mut kept, whole).await {
                Ok(turn) => {
                    if std::mem::take(&mut failing) {
                        let revision = kept.as_ref().map(|kept| kept.revision);
                        tracing::info!(revision, "the feed is back");
                    }
                    whole = false;
                    back_off.reset();
                    if matches!(turn, Turn::News) || begun.elapsed() >= SOON {
                        continue;
                    }
                    0
                }
                Err(error) => {
                    self.failed(&error, &mut failing);
                    whole = matches!(error, FeedError::Gap);
                    match error {
                        FeedError::Status { retry_after, .. } => retry_after,
                        _ => 0,
                    }
                }
            };
            back_off.wait(Duration::from_secs(least)).await;
        }
    }

    /// Said once per change, counted always.
    fn failed(&self, error: &FeedError, failing: &mut bool) {
        self.gateway.sink.metrics.feed_failures.inc();
        if !std::mem::replace(failing, true) {
            let error = Chain(error);
            tracing::warn!(url = %self.url, %error, "the feed fails; serving the routes that are known");
        }
    }

    async fn turn(
        &self,
        client: &reqwest::Client,
        kept: &mut Option<Kept>,
        whole: bool,
    ) -> Result<Turn, FeedError> {
        let asked = kept.as_ref().filter(|_| !whole);
        let (feed, came) = self.ask(client, asked, kept.as_ref()).await?;
        let ahead = self.clock.compare(seconds(came), feed.time);
        self.gateway.sink.metrics.clock_skew.set(ahead);
        self.take(feed, kept).await
    }

    /// Asks for what comes after what is had, or for everything. With the time when the answer began to come.
    async fn ask(
        &self,
        client: &reqwest::Client,
        after: Option<&Kept>,
        had: Option<&Kept>,
    ) -> Result<(Feed, SystemTime), FeedError> {
        let (epoch, run, after) = after.map_or(("", "", 0), |kept| {
            let run = kept.run.as_deref().unwrap_or_default();
            (&kept.epoch, run, kept.revision)
        });
        let mut response = client
            .get(format!("{}/v1/feed", self.url))
            .query(&[
                ("epoch", epoch),
                ("run", run),
                ("after", &after.to_string()),
                ("wait", &WAIT_SECONDS.to_string()),
            ])
            .bearer_auth(self.token.reveal())
            .header(header::ACCEPT_ENCODING, "gzip")
            .timeout(Duration::from_secs(WAIT_SECONDS + 15))
            .send()
            .await?;
        let came = SystemTime::now();
        if !response.status().is_success() {
            return Err(refused(&response));
        }
        let headers = std::mem::take(response.headers_mut());
        let body = body(response, ANSWER_MAX).await?;
        Ok((answer::read(&body, &headers, had)?, came))
    }

    /// Takes an answer: what it revokes first, so that no route opens for what counts no more. That is on disk before the next poll
    /// acknowledges the answer's revision.
    async fn take(&self, feed: Feed, kept: &mut Option<Kept>) -> Result<Turn, FeedError> {
        let gateway = &self.gateway;
        gateway.auth.check_feed_keys(&feed.keys)?;
        let revoked = feed.revoked.iter().filter(|one| can_be(one)).cloned();
        let revoked = revoked.collect();
        gateway.auth.revoke_all(revoked, SystemTime::now()).await?;
        gateway.auth.feed_keys(&feed.keys)?;
        let quiet = self.routes(&feed, kept.as_ref());
        gateway.feed.renew(feed.lease);
        let metrics = &gateway.sink.metrics;
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        metrics.feed_revision.set(number(feed.revision));
        metrics.routes.set(number(gateway.routes.len() as u64));
        let known = |kept: &Kept| {
            quiet
                && kept.revision == feed.revision
                && kept.run == feed.run
                && kept.keys == feed.keys
        };
        if kept.as_ref().is_some_and(known) {
            return Ok(Turn::Nothing);
        }
        let line = kept::line(&feed);
        Kept::take(kept, feed);
        if let Err(error) = self.save(kept.as_ref(), line).await {
            tracing::warn!(%error, "the feed cannot be kept on disk");
        }
        Ok(Turn::News)
    }

    /// Takes the routes. A route that may not be used is skipped and told of: one VM must not be able to stop the routes of all others.
    /// Gives whether there was nothing to take.
    fn routes(&self, feed: &Feed, kept: Option<&Kept>) -> bool {
        let table = &self.gateway.routes;
        if feed.kind == FeedKind::Snapshot {
            if kept.is_none_or(|kept| kept.epoch != feed.epoch) {
                table.forget_generations(Source::Feed);
            }
            table.retain(Source::Feed, &feed.routes);
        }
        for gone in &feed.removed {
            let entry = table.get(&gone.gitspace);
            if entry.is_some_and(|entry| entry.generation > gone.generation) {
                continue;
            }
            let removed = table.remove(Source::Feed, &gone.gitspace);
            skip(&gone.gitspace, removed);
        }
        for route in &feed.routes {
            skip(&route.gitspace, table.apply(Source::Feed, route));
        }
        feed.kind == FeedKind::Delta && feed.routes.is_empty() && feed.removed.is_empty()
    }

    async fn save(&self, kept: Option<&Kept>, line: io::Result<Option<Vec<u8>>>) -> io::Result<()> {
        let Some(kept) = kept else {
            return Ok(());
        };
        // The process that has taken over keeps it, and may be ahead.
        if self.gateway.drain.is_handed_over() {
            return Ok(());
        }
        let change = lock(&self.store).change(kept, line?)?;
        let store = Arc::clone(&self.store);
        let write = move || lock(&store).write(&change);
        tokio::task::spawn_blocking(write)
            .await
            .map_err(io::Error::other)?
    }
}

/// An answer's body, if it is not larger than it may be.
async fn body(mut response: reqwest::Response, max: usize) -> Result<Vec<u8>, FeedError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > max {
            return Err(FeedError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A thread that panicked while it held the lock left the file to be written anew.
fn lock(store: &Mutex<Store>) -> std::sync::MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused(response: &reqwest::Response) -> FeedError {
    let retry_after = response.headers().get(header::RETRY_AFTER);
    let seconds = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
    FeedError::Status {
        status: response.status(),
        retry_after: seconds.unwrap_or(0),
    }
}

/// One that can never be one is skipped and told of, as routes are.
fn can_be(revocation: &Revocation) -> bool {
    let checked = revocation.check();
    if let Err(error) = &checked {
        tracing::error!(kind = ?revocation.kind, %error, "a revocation of the feed is skipped");
    }
    checked.is_ok()
}
