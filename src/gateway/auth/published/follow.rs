//! Who fetches: one task for all issuers, off the data path; an issuer that hangs keeps no other waiting.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use tokio_util::sync::CancellationToken;

use super::Published;
use crate::gateway::auth::{Authenticator, principal::seconds};

/// Issuers are configured, so a closed set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    issuer: String,
}

/// What operators see of it.
#[derive(Debug, Default)]
pub(in crate::gateway::auth) struct Metrics {
    fetched: Family<Labels, Gauge>,
    failures: Family<Labels, Counter>,
}

impl Metrics {
    pub(in crate::gateway::auth) fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "cde_gateway_issuer_keys_fetched_timestamp",
            "When an issuer's key set was last fetched, since 1970; 0 = never",
            Unit::Seconds,
            self.fetched.clone(),
        );
        registry.register(
            "cde_gateway_issuer_fetch_failures",
            "Key sets that could not be fetched or used",
            self.failures.clone(),
        );
    }

    fn note(&self, published: &Published, failed: bool) {
        let labels = Labels {
            issuer: published.issuer.to_string(),
        };
        let fetched = published.fetched().unwrap_or_default();
        self.fetched.get_or_create(&labels).set(fetched);
        let failures = self.failures.get_or_create(&labels);
        failures.inc_by(u64::from(failed));
    }
}

/// Fetches what is due, until the stop.
pub(in crate::gateway::auth) async fn follow(auth: &Authenticator, stop: CancellationToken) {
    let wake = auth.sources().wake();
    let mut fetches = FuturesUnordered::new();
    loop {
        let (now, wall) = (Instant::now(), seconds(SystemTime::now()));
        let published: Vec<_> = auth.sources().published().map(Arc::clone).collect();
        if published.iter().any(|one| one.has_ended(wall)) {
            auth.published_changed();
        }
        for one in published.iter().filter(|one| one.begin(now)) {
            fetches.push(fetch(auth, Arc::clone(one)));
        }
        let next = published.iter().filter_map(|one| one.next(now, wall)).min();
        let due = async {
            match next {
                Some(next) => tokio::time::sleep_until(next.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = wake.notified() => {}
            () = due => {}
            Some(()) = fetches.next() => {}
        }
    }
}

async fn fetch(auth: &Authenticator, published: Arc<Published>) {
    let fetched = published.source.fetch().await;
    let (now, wall) = (Instant::now(), seconds(SystemTime::now()));
    let set = fetched.and_then(|json| published.read(json, wall));
    let failed = set.is_err();
    if published.end(set, now, wall) {
        auth.published_changed();
    }
    // Whoever waits looks again only now, when the keys are in place.
    published.tell();
    auth.issuer_metrics().note(&published, failed);
    if !failed {
        let kept = tokio::task::spawn_blocking(move || published.keep()).await;
        if let Err(error) = kept.map_err(std::io::Error::other).and_then(|kept| kept) {
            tracing::warn!(%error, "cannot keep an issuer's keys on disk; a restart has to fetch them");
        }
    }
}
