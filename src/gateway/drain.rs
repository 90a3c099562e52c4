//! Draining: how the gateway stops without dropping a stream before its time.
//!
//! First nothing new is accepted and connections are told to end; streams are told to go one after the other (`live`); what is left
//! at the drain deadline ends there, with the reason `drained`.
//!
//! Before that, another process may have taken over: then nothing new is accepted either, connections end when it costs nobody a
//! request, and streams are not told to go.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Shared by everything that must end. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Drain {
    handed_over: CancellationToken,
    /// The same, for each request: a read that shares its memory with no write.
    is_handed_over: Arc<AtomicBool>,
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

    /// Another process has taken over.
    pub(crate) fn hand_over(&self) {
        self.is_handed_over.store(true, Ordering::Relaxed);
        self.handed_over.cancel();
    }

    /// Resolves when another process has taken over.
    pub(crate) async fn handed_over(&self) {
        self.handed_over.cancelled().await;
    }

    /// Whether another process has taken over.
    pub(crate) fn is_handed_over(&self) -> bool {
        self.is_handed_over.load(Ordering::Relaxed)
    }

    /// Resolves when nothing new is to come, for whichever of the two reasons.
    pub(crate) async fn closing(&self) {
        tokio::select! {
            () = self.handed_over() => {}
            () = self.begun() => {}
        }
    }

    /// Resolves when all has ended. To be asked once nothing new is accepted.
    pub(crate) async fn idle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// How many tasks there are that a stop would wait for.
    pub(crate) fn tasks(&self) -> usize {
        self.tasks.len()
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

    /// Begins the stop, and returns when all has ended: by itself, or because the deadline passed. How much was left then.
    pub(crate) async fn run(&self, deadline: Duration) -> usize {
        let mut left = 0;
        self.begun.cancel();
        self.tasks.close();
        if tokio::time::timeout(deadline, self.tasks.wait())
            .await
            .is_err()
        {
            left = self.tasks.len();
            tracing::warn!(
                streams = left,
                "the drain deadline has passed; ending what is left"
            );
            self.over.cancel();
            // Ended tasks only close their accounts; this is not a second deadline for streams.
            let _ = tokio::time::timeout(Duration::from_secs(1), self.tasks.wait()).await;
        }
        self.finished.cancel();
        left
    }
}
