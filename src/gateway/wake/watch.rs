//! Watching starts: one stream of the control plane's for each gitspace, shared by all pages that show it.
//!
//! It runs on the background runtime, for as long as somebody looks, and a moment longer: pages without script come again. A
//! stream that breaks is taken up again behind the last event that is known.
//!
//! Not here: the call (`call`), who may look (`wake`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch::{Receiver, Sender};

use super::{
    call::{CallError, Events, Link},
    progress::Progress,
};
use crate::api::{
    GitspaceId,
    wake::{Cancel, Wake},
};

/// How many gitspaces are watched at once; of more there are pages without steps.
const WATCHED_MAX: usize = 1000;
/// So long a stream goes on when nobody looks any more.
const LINGER: Duration = Duration::from_secs(10);
const FIRST_BACK_OFF: Duration = Duration::from_millis(500);
const LAST_BACK_OFF: Duration = Duration::from_secs(15);

/// The starts that are watched.
#[derive(Debug)]
pub(crate) struct Wakes {
    /// Where starts are asked for. None: nothing is started by opening it.
    link: Option<Link>,
    background: tokio::runtime::Handle,
    watched: Mutex<HashMap<GitspaceId, Arc<Sender<Progress>>>>,
}

impl Wakes {
    /// None is watched. Calls are made on the runtime `background`.
    pub(crate) fn new(link: Option<Link>, background: tokio::runtime::Handle) -> Self {
        Self {
            link,
            background,
            watched: Mutex::default(),
        }
    }

    /// Whether anything can be started from here.
    pub(crate) fn can(&self) -> bool {
        self.link.is_some()
    }

    /// Starts a gitspace for somebody; it is committed when this returns.
    pub(crate) async fn wake(
        self: &Arc<Self>,
        gitspace: &GitspaceId,
        principal: &str,
    ) -> Result<Receiver<Progress>, CallError> {
        let link = self.link()?.clone();
        let asked = asked(gitspace, principal, true);
        let call = {
            let asked = asked.clone();
            async move { link.ask(&asked, None).await }
        };
        let answered = self.background.spawn(call).await;
        let events = answered.map_err(|_| CallError::Away("the gateway is stopping".into()))??;
        // What was told of an earlier action is over, so it is another stream.
        self.watch(asked, Some(events), true)
    }

    /// How its start goes, or its last action went.
    pub(crate) fn look(
        self: &Arc<Self>,
        gitspace: &GitspaceId,
        principal: &str,
    ) -> Result<Receiver<Progress>, CallError> {
        self.link()?;
        self.watch(asked(gitspace, principal, false), None, false)
    }

    /// Cancels its start; that is committed when this returns.
    pub(crate) async fn cancel(
        &self,
        gitspace: &GitspaceId,
        principal: &str,
    ) -> Result<(), CallError> {
        let link = self.link()?.clone();
        let asked = Cancel {
            gitspace: gitspace.clone(),
            principal: principal.to_owned(),
        };
        let call = async move { link.cancel(&asked).await };
        let answered = self.background.spawn(call).await;
        answered.map_err(|_| CallError::Away("the gateway is stopping".into()))?
    }

    fn link(&self) -> Result<&Link, CallError> {
        self.link
            .as_ref()
            .ok_or_else(|| CallError::Away("there is none".into()))
    }

    fn watch(
        self: &Arc<Self>,
        asked: Wake,
        events: Option<Events>,
        anew: bool,
    ) -> Result<Receiver<Progress>, CallError> {
        let mut watched = self.lock();
        if let Some(there) = watched.get(&asked.gitspace)
            && (!anew || !there.borrow().is_over())
        {
            return Ok(there.subscribe());
        }
        if watched.len() >= WATCHED_MAX {
            return Err(CallError::Away("too many starts are watched".into()));
        }
        let (sender, receiver) = tokio::sync::watch::channel(Progress::default());
        let sender = Arc::new(sender);
        watched.insert(asked.gitspace.clone(), Arc::clone(&sender));
        drop(watched);
        let follow = Arc::clone(self).follow(asked, events, sender);
        self.background.spawn(follow);
        Ok(receiver)
    }

    /// Follows until it is over or nobody looks.
    async fn follow(
        self: Arc<Self>,
        asked: Wake,
        events: Option<Events>,
        sender: Arc<Sender<Progress>>,
    ) {
        tokio::select! {
            () = self.read(&asked, events, &sender) => {}
            () = nobody(&sender) => {}
        }
        let mut watched = self.lock();
        let same = |there: &Arc<Sender<Progress>>| Arc::ptr_eq(there, &sender);
        if watched.get(&asked.gitspace).is_some_and(same) {
            watched.remove(&asked.gitspace);
        }
    }

    async fn read(&self, asked: &Wake, mut events: Option<Events>, sender: &Sender<Progress>) {
        let Some(link) = &self.link else {
            return;
        };
        let look = Wake {
            start: false,
            ..asked.clone()
        };
        let (mut after, mut back_off) = (None::<String>, FIRST_BACK_OFF);
        loop {
            let next = match events.take() {
                Some(events) => Ok(events),
                None => link.ask(&look, after.as_deref()).await,
            };
            match next {
                Ok(mut events) => {
                    while let Some((told, id)) = events.next().await {
                        back_off = FIRST_BACK_OFF;
                        after = id.or(after);
                        sender.send_modify(|progress| progress.take(told));
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, gitspace = %asked.gitspace, "a start cannot be watched")
                }
            }
            if sender.borrow().is_over() {
                return;
            }
            tokio::time::sleep(back_off).await;
            back_off = (back_off * 2).min(LAST_BACK_OFF);
        }
    }

    /// A thread that panicked while it held the lock left whole entries behind.
    fn lock(&self) -> MutexGuard<'_, HashMap<GitspaceId, Arc<Sender<Progress>>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn asked(gitspace: &GitspaceId, principal: &str, start: bool) -> Wake {
    Wake {
        gitspace: gitspace.clone(),
        principal: principal.to_owned(),
        start,
    }
}

/// Resolves when nobody has looked for a while.
async fn nobody(sender: &Sender<Progress>) {
    loop {
        sender.closed().await;
        tokio::time::sleep(LINGER).await;
        if sender.is_closed() {
            return;
        }
    }
}
