//! Waking: starts what somebody opened, and tells a gateway how that goes until it is over or not wanted any more.
//!
//! The start is committed before a word is told. What is told is read from the store after each commit that added an event, so a
//! gateway that lost its connection goes on where it was. Whoever asks for somebody is believed that it is that one, and not that
//! it may: routes say `wake: owner`, so only the owner's gitspaces are found.
//!
//! Not here: the wire's form (`rest::wake`), what a start is (`orchestrate`).

mod usual;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::Stream;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep, sleep_until},
};

use super::{
    State,
    clock::rfc3339,
    lifecycle::Trigger,
    orchestrate,
    refusal::{Chain, Refusal},
    rows::{GitspaceRow, InstanceRow, state_of},
};
use crate::api::{
    gitspace::{Event, State as Shown},
    wake::{Cancel, Usual, Wake, WakeState},
};

/// How many starts are watched at once, by all gateways.
const WATCHERS_MAX: usize = 512;
/// How many of the last events of an action are told at once.
const EVENTS_MAX: i64 = 200;
/// After a change, so long what follows it is waited for: a busy store is read so often at the most.
const GATHER: Duration = Duration::from_millis(100);
/// Who wants to know longer asks again.
const WATCH_MAX: Duration = Duration::from_secs(10 * 60);

/// Places for those who watch.
#[derive(Debug)]
pub(super) struct Watchers(Arc<Semaphore>);

impl Default for Watchers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(WATCHERS_MAX)))
    }
}

/// What is told of a start.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// How long the steps of a start take.
    Usual(Usual),
    /// Something happened.
    Step(i64, Event),
    /// How it is now.
    State(WakeState),
}

/// Starts it, if that is asked for, and tells how its last action goes, from behind the event `after`.
pub(super) async fn wake(
    state: &Arc<State>,
    asked: &Wake,
    after: i64,
) -> Result<impl Stream<Item = Told> + use<>, Refusal> {
    let place = Arc::clone(&state.watchers.0);
    let place = place
        .try_acquire_owned()
        .map_err(|_| Refusal::TooManyWatchers)?;
    let (gitspace, owner) = (asked.gitspace.as_str(), asked.principal.as_str());
    // What comes from here on is told.
    let changes = state.store.event_changes();
    if asked.start {
        let mut w = state.store.write().await?;
        let row = GitspaceRow::owned(w.connection(), gitspace, owner).await?;
        orchestrate::act(&mut w, &row, Trigger::Start, &state.timing).await?;
        w.commit().await?;
    } else {
        let mut view = state.store.read().await?;
        GitspaceRow::owned(&mut view, gitspace, owner).await?;
    }
    let watch = Watch {
        state: Arc::clone(state),
        gitspace: gitspace.to_owned(),
        after,
        changes,
        told: None,
        queue: VecDeque::new(),
        over: false,
        until: Instant::now() + WATCH_MAX,
        _place: place,
    };
    Ok(futures_util::stream::unfold(watch, Watch::next))
}

/// Cancels a start that is under way. It is committed when this returns.
pub(super) async fn cancel(state: &State, asked: &Cancel) -> Result<(), Refusal> {
    let mut w = state.store.write().await?;
    let (gitspace, owner) = (asked.gitspace.as_str(), asked.principal.as_str());
    let row = GitspaceRow::owned(w.connection(), gitspace, owner).await?;
    orchestrate::cancel(&mut w, &row, &state.timing).await?;
    w.commit().await
}

/// Somebody who watches a start.
struct Watch {
    state: Arc<State>,
    gitspace: String,
    after: i64,
    changes: watch::Receiver<()>,
    /// The state that was told last.
    told: Option<WakeState>,
    queue: VecDeque<Told>,
    over: bool,
    until: Instant,
    _place: OwnedSemaphorePermit,
}

impl Watch {
    async fn next(mut self) -> Option<(Told, Self)> {
        loop {
            if let Some(told) = self.queue.pop_front() {
                return Some((told, self));
            }
            if self.over || (self.told.is_some() && !self.changed().await) {
                return None;
            }
            self.changes.borrow_and_update();
            if let Err(error) = self.look().await {
                // Whoever watches asks again.
                tracing::debug!(error = %Chain(&error), gitspace = self.gitspace, "a start is watched no longer");
                return None;
            }
        }
    }

    /// Waits for a change; false if there is no more waiting.
    async fn changed(&mut self) -> bool {
        let stop = &self.state.stop;
        tokio::select! {
            changed = self.changes.changed() => if changed.is_err() { return false },
            () = sleep_until(self.until) => return false,
            () = stop.cancelled() => return false,
        }
        sleep(GATHER).await;
        true
    }

    /// Reads what is new: events and state of one moment.
    async fn look(&mut self) -> Result<(), Refusal> {
        let mut view = self.state.store.read().await?;
        let row = GitspaceRow::find(&mut view, &self.gitspace).await?;
        if self.told.is_none() {
            let usual = usual::usual(&mut view, &self.gitspace, row.action_from).await?;
            self.queue
                .extend((!usual.is_empty()).then_some(Told::Usual(usual)));
        }
        let mut rows: Vec<(i64, i64, String, String)> = sqlx::query_as(
            "SELECT id, time, kind, message FROM event WHERE gitspace = ? AND id > ? AND id >= ? ORDER BY id DESC LIMIT ?",
        )
        .bind(&self.gitspace)
        .bind(self.after)
        .bind(row.action_from)
        .bind(EVENTS_MAX)
        .fetch_all(&mut *view)
        .await?;
        rows.reverse();
        for (id, time, kind, message) in rows {
            self.after = id;
            let time = rfc3339(time);
            self.queue.push_back(Told::Step(
                id,
                Event {
                    time,
                    kind,
                    message,
                },
            ));
        }
        let instance = InstanceRow::shown(&mut view, &self.gitspace).await?;
        let state = Shown::from(state_of(instance.as_ref()));
        let message = instance
            .filter(|_| state == Shown::Error)
            .and_then(|instance| instance.message);
        let now = WakeState { state, message };
        self.over = state != Shown::Starting;
        if self.told.as_ref() != Some(&now) {
            self.told = Some(now.clone());
            self.queue.push_back(Told::State(now));
        }
        Ok(())
    }
}
