//! The gateway's report: it tells the control plane how it is and where a person did something, and is told where somebody typed into
//! a terminal, which it does not see by itself.

use std::time::{Duration, SystemTime};

use http::StatusCode;

use super::{FeedError, Follower, Source, body};
use crate::{
    api::{
        activity::{Kind, Typed},
        feed::{Report, Reported},
    },
    gateway::activity::unsigned,
    telemetry::Chain,
};

const EVERY: Duration = Duration::from_secs(10);
/// An answer larger than this is none.
const ANSWER_MAX: usize = 4 * 1024 * 1024;

impl Follower {
    /// Reports, for ever.
    pub(super) async fn report(&self, client: &reqwest::Client) {
        let mut since = 0;
        loop {
            tokio::time::sleep(EVERY).await;
            // What was done in the second of the last report may be told twice.
            let now = unsigned(SystemTime::now());
            match self.send(client, &self.how_it_is(since)).await {
                Ok(reported) => {
                    since = now;
                    self.take_typed(&reported.typed);
                }
                Err(error) => {
                    tracing::debug!(error = %Chain(&error), "the report was not sent, or not answered");
                }
            }
        }
    }

    fn how_it_is(&self, since: u64) -> Report {
        let metrics = &self.gateway.sink.metrics;
        let number = |value: i64| u64::try_from(value).unwrap_or(0);
        Report {
            gateway: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            streams: number(metrics.streams.get()),
            revision: number(metrics.feed_revision.get()),
            activity: self.gateway.routes.acted_since(since),
        }
    }

    async fn send(&self, client: &reqwest::Client, report: &Report) -> Result<Reported, FeedError> {
        let answer = client
            .post(format!("{}/v1/feed/report", self.url))
            .bearer_auth(self.token.reveal())
            .timeout(Duration::from_secs(10))
            .json(report)
            .send()
            .await?
            .error_for_status()?;
        if answer.status() == StatusCode::NO_CONTENT {
            return Ok(Reported::default());
        }
        Ok(serde_json::from_slice(&body(answer, ANSWER_MAX).await?)?)
    }

    /// The control plane speaks for its own gitspaces.
    fn take_typed(&self, typed: &[Typed]) {
        let now = unsigned(SystemTime::now());
        for typed in typed {
            let entry = self.gateway.routes.get(&typed.gitspace);
            if let Some(entry) = entry.filter(|entry| entry.source == Source::Feed) {
                let at = now.saturating_sub(typed.ago);
                entry.activity.told(Kind::Terminal, at);
            }
        }
    }
}
