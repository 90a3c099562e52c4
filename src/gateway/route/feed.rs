//! The feed's client: a long poll that keeps the table as the control plane wants it.
//!
//! Answers are validated whole before anything is applied, and kept on disk, so that a gateway starts and serves without its
//! control plane. It runs on the background runtime, never on a worker.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{Source, Table};
use crate::{
    api::{
        GitspaceId, Secret,
        feed::{Feed, FeedKeys, FeedKind, Report},
        route::Route,
    },
    config::FailMode,
    gateway::{
        Gateway,
        auth::{self, Authenticator},
        rejection::Rejection,
    },
    telemetry::Chain,
};

const WAIT_SECONDS: u64 = 30;
/// An answer larger than this is no feed.
const ANSWER_MAX: usize = 256 * 1024 * 1024;
const REPORT_EVERY: Duration = Duration::from_secs(10);
const FIRST_BACK_OFF: Duration = Duration::from_millis(200);
const LAST_BACK_OFF: Duration = Duration::from_secs(15);

/// Whether routes of the feed may still be used.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    inner: Arc<LeaseInner>,
}

#[derive(Debug)]
struct LeaseInner {
    start: Instant,
    until_millis: AtomicU64,
    closes: bool,
    /// Whether there is a feed to follow.
    followed: bool,
    /// Whether routes of it are known: by an answer, or from the disk.
    known: AtomicBool,
}

/// Why the feed's routes cannot be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lack {
    /// There was no answer, and nothing was kept from before.
    NeverAnswered,
    /// The lease has run out, and that closes them.
    Stale,
}

impl Lease {
    /// Without an answer so far. `followed`: there is a control plane that will answer.
    pub(crate) fn new(mode: FailMode, followed: bool) -> Self {
        let inner = LeaseInner {
            start: Instant::now(),
            until_millis: AtomicU64::new(0),
            closes: mode == FailMode::Closed,
            followed,
            known: AtomicBool::new(false),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    fn renew(&self, seconds: u64) {
        let until = self.inner.start.elapsed() + Duration::from_secs(seconds);
        self.inner
            .until_millis
            .store(until.as_millis() as u64, Ordering::Relaxed);
        self.restored();
    }

    /// Routes are known, those of an earlier run at least.
    pub(crate) fn restored(&self) {
        self.inner.known.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        let inner = &self.inner;
        inner.start.elapsed().as_millis() as u64 > inner.until_millis.load(Ordering::Relaxed)
    }

    /// Why the feed's routes cannot be relied on now, if they cannot.
    pub(crate) fn lacks(&self) -> Option<Lack> {
        let inner = &self.inner;
        if !inner.followed {
            None
        } else if !inner.known.load(Ordering::Relaxed) {
            Some(Lack::NeverAnswered)
        } else {
            (inner.closes && self.is_over()).then_some(Lack::Stale)
        }
    }

    /// Whether a route of this source may be used now.
    pub(crate) fn fresh(&self, source: Source) -> Result<(), Rejection> {
        let stale = self.inner.closes && source == Source::Feed && self.is_over();
        if stale {
            Err(Rejection::ControlPlaneStale)
        } else {
            Ok(())
        }
    }
}

/// Follows a control plane on behalf of a gateway.
pub(crate) struct Follower {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) url: String,
    pub(crate) token: Secret,
    pub(crate) store: Store,
    pub(crate) name: String,
}

/// What is kept of the feed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    epoch: String,
    revision: u64,
    keys: FeedKeys,
    routes: BTreeMap<GitspaceId, Route>,
}

/// The file with the last good state.
#[derive(Debug, Clone)]
pub(crate) struct Store(PathBuf);

impl Store {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self(state_dir.join("feed.json"))
    }

    /// The last good state, if there is one that can be read.
    pub(crate) fn load(&self) -> Option<Kept> {
        let text = std::fs::read(&self.0).ok()?;
        serde_json::from_slice(&text)
            .inspect_err(|error| tracing::warn!(path = %self.0.display(), %error, "the kept feed cannot be read; waiting for the control plane"))
            .ok()
    }

    fn save(&self, kept: &Kept) -> io::Result<()> {
        let temporary = self.0.with_extension("new");
        std::fs::write(&temporary, serde_json::to_vec(kept)?)?;
        std::fs::rename(temporary, &self.0)
    }
}

/// Why an answer was not used.
#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error("cannot reach the control plane")]
    Call(#[from] reqwest::Error),
    #[error("the control plane answered {0}")]
    Status(reqwest::StatusCode),
    #[error("the answer is larger than {ANSWER_MAX} bytes")]
    TooLarge,
    #[error("the answer is no feed")]
    Parse(#[from] serde_json::Error),
    #[error("the answer is a change to a state that this gateway does not have")]
    Gap,
    #[error("the keys cannot be used")]
    Keys(#[from] auth::Error),
    #[error("what it revokes cannot be kept")]
    Revoke(#[from] auth::RevokeError),
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

fn skip(gitspace: &GitspaceId, applied: Result<bool, super::RouteError>) {
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
        let mut back_off = FIRST_BACK_OFF;
        let mut failing = false;
        loop {
            match self.ask(client, kept.as_ref()).await {
                Ok(feed) => match self.take(feed, kept.take()).await {
                    Ok(now) => {
                        if failing {
                            tracing::info!(revision = now.revision, "the feed is back");
                        }
                        (failing, back_off) = (false, FIRST_BACK_OFF);
                        kept = Some(now);
                        continue;
                    }
                    // The next try asks for everything: a delta to a state that was not taken would be wrong.
                    Err(error) => self.failed(&error, &mut failing),
                },
                Err(error) => self.failed(&error, &mut failing),
            }
            tokio::time::sleep(back_off).await;
            back_off = (back_off * 2).min(LAST_BACK_OFF);
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

    async fn ask(&self, client: &reqwest::Client, kept: Option<&Kept>) -> Result<Feed, FeedError> {
        let (epoch, after) = kept.map_or(("", 0), |kept| (&kept.epoch, kept.revision));
        let mut response = client
            .get(format!("{}/v1/feed", self.url))
            .query(&[
                ("epoch", epoch),
                ("after", &after.to_string()),
                ("wait", &WAIT_SECONDS.to_string()),
            ])
            .bearer_auth(self.token.reveal())
            .timeout(Duration::from_secs(WAIT_SECONDS + 15))
            .send()
            .await?;
        if !response.status().is_success() {
            return Err(FeedError::Status(response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > ANSWER_MAX {
                return Err(FeedError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(serde_json::from_slice(&body)?)
    }

    /// Takes an answer: what it revokes first, so that no route opens for what counts no more.
    async fn take(&self, feed: Feed, kept: Option<Kept>) -> Result<Kept, FeedError> {
        for revocation in &feed.revoked {
            if let Err(error) = revocation.check() {
                tracing::error!(kind = ?revocation.kind, %error, "a revocation of the feed is skipped");
                continue;
            }
            let now = SystemTime::now();
            self.gateway.auth.revoke(revocation.clone(), now).await?;
        }
        self.apply(feed, kept)
    }

    /// Takes routes and keys, and keeps them. A route that may not be used is skipped and told of: one VM must not be able to stop the
    /// routes of all others.
    fn apply(&self, feed: Feed, kept: Option<Kept>) -> Result<Kept, FeedError> {
        if kept.as_ref().is_none_or(|kept| kept.keys != feed.keys) {
            self.gateway.auth.feed_keys(&feed.keys)?;
        }
        let mut routes = match (feed.kind, kept) {
            (FeedKind::Delta, Some(kept)) if kept.epoch == feed.epoch => kept.routes,
            (FeedKind::Delta, _) => return Err(FeedError::Gap),
            (FeedKind::Snapshot, kept) => {
                if kept.is_none_or(|kept| kept.epoch != feed.epoch) {
                    self.gateway.routes.forget_generations(Source::Feed);
                }
                self.gateway.routes.retain(Source::Feed, &feed.routes);
                BTreeMap::new()
            }
        };
        let quiet =
            feed.kind == FeedKind::Delta && feed.routes.is_empty() && feed.removed.is_empty();
        for gone in feed.removed {
            routes.remove(&gone.gitspace);
            skip(
                &gone.gitspace,
                self.gateway.routes.remove(Source::Feed, &gone.gitspace),
            );
        }
        for route in feed.routes {
            skip(
                &route.gitspace,
                self.gateway.routes.apply(Source::Feed, &route),
            );
            routes.insert(route.gitspace.clone(), route);
        }
        self.gateway.feed.renew(feed.lease);
        self.gateway
            .sink
            .metrics
            .feed_revision
            .set(i64::try_from(feed.revision).unwrap_or(i64::MAX));
        self.gateway
            .sink
            .metrics
            .routes
            .set(i64::try_from(self.gateway.routes.len()).unwrap_or(i64::MAX));
        let now = Kept {
            epoch: feed.epoch,
            revision: feed.revision,
            keys: feed.keys,
            routes,
        };
        if !quiet && let Err(error) = self.store.save(&now) {
            tracing::warn!(%error, "the feed cannot be kept on disk");
        }
        Ok(now)
    }

    /// Tells the control plane how this gateway is.
    async fn report(&self, client: &reqwest::Client) {
        loop {
            tokio::time::sleep(REPORT_EVERY).await;
            let report = Report {
                gateway: self.name.clone(),
                version: env!("CARGO_PKG_VERSION").into(),
                streams: u64::try_from(self.gateway.sink.metrics.streams.get()).unwrap_or(0),
                revision: u64::try_from(self.gateway.sink.metrics.feed_revision.get()).unwrap_or(0),
                activity: self.gateway.sink.take_activity(),
            };
            let sent = client
                .post(format!("{}/v1/feed/report", self.url))
                .bearer_auth(self.token.reveal())
                .timeout(Duration::from_secs(10))
                .json(&report)
                .send()
                .await;
            if let Err(error) = sent {
                tracing::debug!(%error, "the report was not sent");
            }
        }
    }
}
