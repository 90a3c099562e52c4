//! All sessions of a server: bounded in number, found by a name that cannot be guessed.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Settings,
    session::Session,
    shell::{Shell, Window},
};

/// All sessions of a server.
pub(super) struct Sessions {
    settings: Settings,
    stop: CancellationToken,
    tasks: TaskTracker,
    map: Mutex<HashMap<String, Arc<Session>>>,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("there are {0} shells already; close one")]
    TooMany(usize),
    #[error("the shell {shell} cannot be started: {problem}")]
    Shell { shell: String, problem: String },
}

impl Sessions {
    pub(super) fn new(settings: Settings, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            settings,
            stop,
            tasks: TaskTracker::new(),
            map: Mutex::default(),
        })
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Cancelled when the server stops.
    pub(super) fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// A task that the server waits for when it stops.
    pub(super) fn tracked<F: Future>(&self, task: F) -> impl Future<Output = F::Output> + use<F> {
        self.tasks.track_future(task)
    }

    /// Waits until every shell and every viewer has ended, after a stop.
    pub(super) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn map(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session of that name, or a new one.
    pub(super) fn open(
        self: &Arc<Self>,
        id: &str,
        window: Window,
    ) -> Result<Arc<Session>, OpenError> {
        let mut map = self.map();
        if let Some(session) = map.get(id) {
            return Ok(Arc::clone(session));
        }
        if map.len() >= self.settings.sessions {
            return Err(OpenError::TooMany(map.len()));
        }
        let failed = |problem: String| OpenError::Shell {
            shell: self.settings.shell.display().to_string(),
            problem,
        };
        let id = random_id().map_err(|error| failed(error.to_string()))?;
        let shell =
            Shell::spawn(&self.settings, window).map_err(|error| failed(error.to_string()))?;
        let (session, inputs) = Session::new(id, window);
        let session = Arc::new(session);
        map.insert(session.id.clone(), Arc::clone(&session));
        drop(map);
        let (sessions, running) = (Arc::clone(self), Arc::clone(&session));
        self.tasks.spawn(async move {
            running
                .run(&sessions.settings, &sessions.stop, shell, inputs)
                .await;
            sessions.map().remove(&running.id);
        });
        Ok(session)
    }
}

fn random_id() -> Result<String, getrandom::Error> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
