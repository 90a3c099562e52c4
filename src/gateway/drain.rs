//! Draining: how the gateway stops without dropping a stream before its time.
//!
//! First nothing new is accepted and connections are told to end; streams may go on until the drain deadline; then they end
//! with the reason `drained`.

use std::{future::Future, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Shared by everything that must end. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Drain {
    begun: CancellationToken,
    over: CancellationToken,
    finished: CancellationToken,
    tasks: TaskTracker,
}

impl Drain {
    /// Runs a task that a stop waits for.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Resolves when the stop begins.
    pub(crate) async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Whether the stop has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Resolves when the drain deadline has passed.
    pub(crate) async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Whether the drain deadline has passed.
    pub(crate) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Resolves when nothing is left to wait for.
    pub(crate) async fn finished(&self) {
        self.finished.cancelled().await;
    }

    /// Begins the stop, and returns when all has ended: by itself, or because the deadline passed.
    pub(crate) async fn run(&self, deadline: Duration) {
        self.begun.cancel();
        self.tasks.close();
        if tokio::time::timeout(deadline, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                streams = self.tasks.len(),
                "the drain deadline has passed; ending what is left"
            );
            self.over.cancel();
            // Ended tasks only close their accounts; this is not a second deadline for streams.
            let _ = tokio::time::timeout(Duration::from_secs(1), self.tasks.wait()).await;
        }
        self.finished.cancel();
    }
}
