//! Revoking at this gateway, and passing it on to its control plane, which tells all gateways.
//!
//! Asked by the admin API and by a logout, off the data path.
//!
//! Not here: what is revoked and kept (`auth::revoked`), what the feed revokes (`route::feed`), the end of streams (`live`).

use std::{sync::Arc, time::SystemTime};

use super::{Gateway, auth::RevokeError};
use crate::api::revocation::{Reach, Revocation, Revoked};

impl Gateway {
    /// Revokes here, on disk, and then everywhere if it can be passed on. The answer says how far it got.
    pub(crate) async fn revoke(
        self: &Arc<Self>,
        revocation: Revocation,
        now: SystemTime,
    ) -> Result<Revoked, RevokeError> {
        let revocations = self.auth.revoke_all(vec![revocation], now).await?;
        let problem = self.pass_on(&revocations).await;
        Ok(Revoked {
            reaches: match &problem {
                Some(Ok(())) => Reach::All,
                _ => Reach::One,
            },
            problem: problem.and_then(Result::err),
            revocations,
        })
    }

    /// None: there is nobody to pass it on to.
    async fn pass_on(self: &Arc<Self>, revocations: &[Revocation]) -> Option<Result<(), String>> {
        self.exchanges.link.as_ref()?;
        let (gateway, revocations) = (Arc::clone(self), revocations.to_vec());
        let told = async move {
            for revocation in &revocations {
                if let Some(link) = &gateway.exchanges.link {
                    link.revoke(revocation).await?;
                }
            }
            Ok(())
        };
        // Its connections belong to the background runtime.
        let told = self.exchanges.background.spawn(told).await;
        let told = told.unwrap_or_else(|_| Err("the gateway is stopping".into()));
        if let Err(problem) = &told {
            tracing::warn!(
                problem,
                "the control plane did not take a revocation; it counts at this gateway alone"
            );
        }
        Some(told)
    }
}
