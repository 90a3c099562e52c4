//! How a start goes, as server-sent events for a page that shows it.
//!
//! `progress` has the steps as they stand in the page; `reload` says that the page is to be asked for again: it runs, or it failed.
//! Whoever may not wake any more gets no further word, and a stop of the gateway ends it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::Stream;
use tokio::{sync::watch::Receiver, time::Instant};

use super::{page::Shown, progress::Progress};
use crate::{
    api::{GitspaceId, access::Port, gitspace::State, route::RouteState},
    gateway::{Gateway, auth::Principal, limit::Permit, route::Entry},
};

/// How often it is looked whether the route leads there by now.
const LOOK: Duration = Duration::from_millis(250);
/// A silent stream says so often that it is there.
const ALIVE: Duration = Duration::from_secs(15);
/// A page that wants to know longer asks again by itself.
const MAX: Duration = Duration::from_secs(10 * 60);

/// A page that watches a start.
pub(super) struct Watching {
    pub(super) gateway: Arc<Gateway>,
    pub(super) principal: Arc<Principal>,
    pub(super) gitspace: GitspaceId,
    pub(super) port: Port,
    /// What is told of it. None: no more, or nothing.
    pub(super) told: Option<Receiver<Progress>>,
    pub(super) _permit: Permit,
}

/// Its events.
pub(super) fn events(watching: Watching) -> impl Stream<Item = Bytes> + Send {
    let now = Instant::now();
    let state = Events {
        watching,
        begun: now,
        spoken: now,
        fresh: true,
        over: false,
    };
    futures_util::stream::unfold(state, Events::next)
}

struct Events {
    watching: Watching,
    begun: Instant,
    spoken: Instant,
    /// Whether what is told was not said yet.
    fresh: bool,
    over: bool,
}

impl Events {
    async fn next(mut self) -> Option<(Bytes, Self)> {
        loop {
            let entry = self.entry().filter(|_| !self.over)?;
            if let Some(said) = self.say(&entry) {
                self.spoken = Instant::now();
                return Some((said, self));
            }
            if !self.wait().await {
                return None;
            }
        }
    }

    /// The route, while its principal may still look.
    fn entry(&self) -> Option<Arc<Entry>> {
        let of = &self.watching;
        let entry = of.gateway.routes.get(&of.gitspace)?;
        let endpoint = entry.endpoint(of.port)?;
        let now = SystemTime::now();
        let may = of.gateway.may_wake(&of.principal, &entry, endpoint, now);
        may.then_some(entry)
    }

    /// What is to be said now, if anything is.
    fn say(&mut self, entry: &Entry) -> Option<Bytes> {
        if entry.state == RouteState::Running {
            return Some(self.reload());
        }
        if let Some(told) = &mut self.watching.told
            && (self.fresh || told.has_changed().unwrap_or(false))
        {
            self.fresh = false;
            let progress = told.borrow_and_update().clone();
            // Once it runs, the route says so in a moment.
            let runs = matches!(progress.state, None | Some(State::Running));
            if progress.is_over() && !runs {
                return Some(self.reload());
            }
            let shown = Shown::of(&progress, entry, SystemTime::now());
            let data =
                serde_json::json!({ "says": shown.says, "title": shown.title, "html": shown.html });
            return Some(format!("event: progress\ndata: {data}\n\n").into());
        }
        let silent = self.spoken.elapsed() >= ALIVE;
        silent.then(|| Bytes::from_static(b": alive\n\n"))
    }

    fn reload(&mut self) -> Bytes {
        self.over = true;
        Bytes::from_static(b"event: reload\ndata: now\n\n")
    }

    /// Waits for something to say; false at the end.
    async fn wait(&mut self) -> bool {
        let drain = &self.watching.gateway.drain;
        let told = &mut self.watching.told;
        let changed = async {
            match told {
                Some(receiver) => receiver.changed().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            more = changed => match more {
                true => self.fresh = true,
                false => self.watching.told = None,
            },
            () = tokio::time::sleep(LOOK) => {}
            () = drain.begun() => return false,
        }
        self.begun.elapsed() < MAX
    }
}
