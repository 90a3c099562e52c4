//! What one HTTP/2 connection may cost us without letting us finish: requests that it breaks off before their answer begins.
//!
//! RST_STREAM frees a stream at once while its request is on the way to the gitspace (rapid reset, CVE-2023-44487), and so does an
//! error of ours that the client provokes (MadeYouReset, CVE-2025-8671); the number of streams at once bounds neither. So a request
//! takes one of [`PLACES`] until its answer's head is there. One that ends before keeps its place, and an answer that is no error
//! gives one such place back. When so many are lost, net, the connection ends.
//!
//! Browsers break off legitimately: leaving a page cancels what has not been answered, some dozens at once, and the next page's
//! answers give the places back. Meanwhile requests wait for a place; they are not refused.
//!
//! Not here: streams at once and errors in a row (hyper's settings, `h2`), frames that belong to no request (`frames`).

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Requests without an answer's head, under way or broken off.
pub(super) const PLACES: u32 = 100;

/// See the module.
pub(super) struct Budget {
    places: Arc<Semaphore>,
    /// Places kept by requests that were broken off.
    lost: AtomicU32,
    /// Those, and requests that were broken off while they waited.
    broken_off: AtomicU32,
    spent: AtomicBool,
    ended: Notify,
}

impl Budget {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(PLACES as usize)),
            lost: AtomicU32::new(0),
            broken_off: AtomicU32::new(0),
            spent: AtomicBool::new(false),
            ended: Notify::new(),
        })
    }

    /// A request has come. Dropped before [`Pending::answered`], it was broken off.
    pub(super) fn request(self: &Arc<Self>) -> Pending {
        Pending {
            budget: Arc::clone(self),
            place: None,
            answered: false,
        }
    }

    /// Whether the connection must end.
    pub(super) fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Relaxed)
    }

    /// Resolves when the connection must end.
    pub(super) async fn spent(&self) {
        while !self.is_spent() {
            self.ended.notified().await;
        }
    }

    fn give_back(&self) {
        let less = |count: u32| count.checked_sub(1);
        let _ = self
            .broken_off
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        if self
            .lost
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
        {
            self.places.add_permits(1);
        }
    }

    fn broken_off(&self) {
        if self.broken_off.fetch_add(1, Ordering::Relaxed) + 1 >= PLACES {
            self.spend();
        }
    }

    /// The connection must end.
    pub(super) fn spend(&self) {
        self.spent.store(true, Ordering::Relaxed);
        self.ended.notify_one();
    }
}

/// A request whose answer has not begun.
pub(super) struct Pending {
    budget: Arc<Budget>,
    place: Option<OwnedSemaphorePermit>,
    answered: bool,
}

impl Pending {
    /// Waits for a place: there is one at once unless requests were broken off.
    pub(super) async fn place(&mut self) {
        // It fails only if it was closed, which nobody does.
        self.place = Arc::clone(&self.budget.places).acquire_owned().await.ok();
    }

    /// Its answer begins; `good`: no error.
    pub(super) fn answered(mut self, good: bool) {
        self.answered = true;
        if good {
            self.budget.give_back();
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        if let Some(place) = self.place.take() {
            place.forget();
            self.budget.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.budget.broken_off();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn started(budget: &Arc<Budget>) -> Pending {
        let mut pending = budget.request();
        pending.place().await;
        pending
    }

    #[tokio::test]
    async fn requests_that_were_broken_off_keep_their_places() {
        let budget = Budget::new();
        for _ in 1..PLACES {
            drop(started(&budget).await);
        }
        assert!(!budget.is_spent());
        let last = started(&budget).await;
        let mut next = budget.request();
        let waits = futures_util::poll!(std::pin::pin!(next.place()));
        assert!(waits.is_pending(), "no place is left");
        drop(last);
        budget.spent().await;
    }

    #[tokio::test]
    async fn answers_give_places_back_and_errors_do_not() {
        let budget = Budget::new();
        for _ in 0..10 * PLACES {
            drop(started(&budget).await);
            started(&budget).await.answered(true);
        }
        assert!(!budget.is_spent());
        assert_eq!(budget.places.available_permits(), PLACES as usize);
        for _ in 0..PLACES {
            drop(started(&budget).await);
            if budget.is_spent() {
                return;
            }
            started(&budget).await.answered(false);
        }
        panic!("errors gave places back");
    }
}
