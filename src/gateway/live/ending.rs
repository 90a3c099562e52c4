//! Whose access has ended: what is under way is asked again what a new request of its kind would be asked.
//!
//! Off the data path. All of it is looked through when a revocation, a share or a route has changed, and now and then for what ends
//! by its time. A request that passed its check at the very moment of a change may take its seat behind the look, so there is a second
//! one. A token's `exp` ends nothing.
//!
//! Not here: targets that changed or are gone, whose streams end by their fence (`route`).

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio_util::sync::CancellationToken;

use super::{Ending, Live};
use crate::{
    api::{access::Visibility, revocation::Revocation},
    gateway::{
        Gateway,
        account::End,
        auth::{Principal, seconds},
        authorize::still_may,
    },
};

/// How often changes are looked for.
const EVERY: Duration = Duration::from_millis(500);
/// How often all is looked through without one: what ends by its time ends so much later at the most.
const AT_LEAST: Duration = Duration::from_secs(5);

/// Ends what has lost its access, until the stop.
pub(crate) async fn watch(gateway: Arc<Gateway>, stop: CancellationToken) {
    let mut seen = gateway.changes();
    let mut looked = Instant::now();
    // How often it is still looked because of the last change.
    let mut again = 0_u32;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        gateway.catch_up().await;
        let changes = gateway.changes();
        if changes != seen {
            (seen, again) = (changes, 2);
        }
        if again == 0 && looked.elapsed() < AT_LEAST {
            continue;
        }
        again = again.saturating_sub(1);
        looked = Instant::now();
        gateway.end_what_lost_access(SystemTime::now());
    }
}

impl Gateway {
    /// Takes in what another process has changed, while one hands over to the next.
    async fn catch_up(self: &Arc<Self>) {
        let gateway = Arc::clone(self);
        let caught_up = move || {
            if let Err(error) = gateway.auth.catch_up() {
                tracing::error!(%error, "cannot follow what is revoked");
            }
            if let Err(error) = gateway.shares.catch_up() {
                tracing::error!(%error, "cannot follow the shares");
            }
        };
        let _ = tokio::task::spawn_blocking(caught_up).await;
    }

    /// How often something changed that access may hang on.
    fn changes(&self) -> [u64; 3] {
        [
            self.auth.revocation_changes(),
            self.shares.changes(),
            self.routes.changes(),
        ]
    }

    /// Ends whatever a new request like it would be refused for.
    pub(crate) fn end_what_lost_access(&self, now: SystemTime) {
        let mut ended = 0_usize;
        for live in self.lives.all() {
            if live.ending().is_none()
                && let Some(ending) = self.lost(&live, now)
            {
                ended += usize::from(live.end(ending));
            }
        }
        if ended > 0 {
            tracing::info!(ended, "ended what has lost its access");
        }
    }

    fn lost(&self, live: &Live, now: SystemTime) -> Option<Ending> {
        let about = &live.about;
        // A gitspace that is gone ends its streams itself.
        let (entry, port) = (self.routes.get(&about.gitspace)?, about.port);
        let endpoint = entry.endpoint(port)?;
        if endpoint.visibility == Visibility::Public {
            return None;
        }
        let principal = about.principal.as_deref();
        if principal.is_some_and(|principal| is_over(principal, now)) {
            return Some(ending("its session is over", "your session is over"));
        }
        let revocation = principal.and_then(|principal| {
            self.auth
                .revocation_of(principal, &entry.gitspace, port, now)
        });
        if let Some(revocation) = revocation {
            return Some(revoked(&revocation));
        }
        if still_may(principal, &entry, endpoint, &self.grants(now)) {
            return None;
        }
        let share = about.share.as_deref();
        let revocation = share.and_then(|share| self.auth.revocation_of_share(share, now));
        Some(match (revocation, share) {
            (Some(revocation), _) => revoked(&revocation),
            (None, Some(_)) => ending("its share is over or was taken back", "the share is over"),
            (None, None) => ending(
                "its route does not let it in any more",
                "you may not use this port any more",
            ),
        })
    }
}

fn is_over(principal: &Principal, now: SystemTime) -> bool {
    principal.session_end.is_some_and(|end| end <= seconds(now))
}

fn ending(detail: &str, message: &str) -> Ending {
    Ending {
        end: End::AccessEnded,
        detail: detail.into(),
        message: message.into(),
    }
}

/// Who revoked it, for the log; why, for the person.
fn revoked(revocation: &Revocation) -> Ending {
    let kind = revocation.kind.name();
    let by = revocation.by.as_deref().unwrap_or("an operator");
    let reason = revocation.reason.as_deref();
    let detail = match reason {
        Some(reason) => format!("{kind} revoked by {by}: {reason}"),
        None => format!("{kind} revoked by {by}"),
    };
    let message = match reason {
        Some(reason) => format!("access was revoked: {reason}"),
        None => "access was revoked".to_owned(),
    };
    ending(&detail, &message)
}
