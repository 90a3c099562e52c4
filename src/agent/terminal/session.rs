//! Sessions: a shell on a PTY with the last of its output, looked at by one viewer at a time.
//!
//! A viewer pulls output by offset when its socket has room, so a slow one costs no memory. While it is behind, the shell's
//! output waits for it, but only so long: then the shell goes on and the viewer misses what the ring no longer has.

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use pty_process::{OwnedReadPty, OwnedWritePty, Size};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Child,
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Settings, processes, ring::Ring};

/// How far a viewer may be behind before the shell waits for it.
const BEHIND_MAX: u64 = 128 * 1024;
/// How long the shell waits for a viewer that is behind.
const WAIT_FOR_VIEWER: Duration = Duration::from_secs(5);
/// Pieces of input that may wait for the shell.
const INPUT_WAITING: usize = 64;
const READ_SIZE: usize = 16 * 1024;
/// How long output may still come after the shell has ended.
const LAST_OUTPUT: Duration = Duration::from_millis(200);

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

/// What goes to the shell.
pub(super) enum Input {
    /// Typed bytes.
    Bytes(Bytes),
    /// The window's new size.
    Resize(Window),
}

/// Columns and rows of a window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) cols: u16,
    pub(super) rows: u16,
}

impl Window {
    fn size(self) -> Size {
        Size::new(self.rows.clamp(1, 1000), self.cols.clamp(1, 1000))
    }
}

/// A shell.
pub(super) struct Session {
    pub(super) id: String,
    pub(super) input: mpsc::Sender<Input>,
    output: Mutex<Ring>,
    /// Offset after the last byte of output.
    written: watch::Sender<u64>,
    /// Offset that the viewer has taken; None: nobody looks.
    seen: watch::Sender<Option<u64>>,
    /// Number of the viewer that came last.
    viewer: watch::Sender<u64>,
    /// The exit code, once the shell has ended.
    exit: watch::Sender<Option<i32>>,
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

    /// Waits until every shell has ended, after a stop.
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
        let shell = self.settings.shell.display().to_string();
        let failed = |problem: String| OpenError::Shell {
            shell: shell.clone(),
            problem,
        };
        let (child, read, write) =
            spawn(&self.settings, window).map_err(|error| failed(error.to_string()))?;
        let (input, inputs) = mpsc::channel(INPUT_WAITING);
        let session = Arc::new(Session::new(
            random_id().map_err(|error| failed(error.to_string()))?,
            input,
        ));
        map.insert(session.id.clone(), Arc::clone(&session));
        drop(map);
        let (sessions, running) = (Arc::clone(self), Arc::clone(&session));
        self.tasks.spawn(async move {
            running.run(&sessions, child, read, write, inputs).await;
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

/// A shell on a new PTY, with a clean environment.
fn spawn(
    settings: &Settings,
    window: Window,
) -> Result<(Child, OwnedReadPty, OwnedWritePty), pty_process::Error> {
    let (pty, pts) = pty_process::open()?;
    pty.resize(window.size())?;
    let inherited = ["HOME", "PATH", "LANG", "USER", "LOGNAME", "TZ"];
    let child = pty_process::Command::new(&settings.shell)
        .env_clear()
        .envs(
            inherited
                .iter()
                .filter_map(|name| Some((*name, std::env::var_os(name)?))),
        )
        .env("TERM", "xterm-256color")
        .env("COLORTERM", "truecolor")
        .env("SHELL", &settings.shell)
        .envs(
            settings
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .current_dir(existing(&settings.folder))
        .kill_on_drop(true)
        .spawn(pts)?;
    let (read, write) = pty.into_split();
    Ok((child, read, write))
}

fn existing(folder: &Path) -> &Path {
    if folder.is_dir() {
        folder
    } else {
        Path::new("/")
    }
}

impl Session {
    fn new(id: String, input: mpsc::Sender<Input>) -> Self {
        Self {
            id,
            input,
            output: Mutex::default(),
            written: watch::Sender::new(0),
            seen: watch::Sender::new(None),
            viewer: watch::Sender::new(0),
            exit: watch::Sender::new(None),
        }
    }

    fn output(&self) -> MutexGuard<'_, Ring> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Output after an offset: from where, and what.
    pub(super) fn read(&self, after: u64, most: usize) -> (u64, Vec<u8>) {
        self.output().read(after, most)
    }

    /// A new viewer; the one before it is to go.
    pub(super) fn look(&self) -> Viewer<'_> {
        let mut number = 0;
        self.viewer.send_modify(|last| {
            *last += 1;
            number = *last;
        });
        self.seen.send_replace(Some(self.output().start()));
        Viewer {
            session: self,
            number,
            written: self.written.subscribe(),
            current: self.viewer.subscribe(),
            exit: self.exit.subscribe(),
        }
    }

    /// Runs until the shell ends, nobody has looked for too long, or the server stops.
    async fn run(
        &self,
        sessions: &Sessions,
        mut child: Child,
        mut read: OwnedReadPty,
        mut write: OwnedWritePty,
        mut inputs: mpsc::Receiver<Input>,
    ) {
        let leader = child.id();
        let typing = type_in(&mut inputs, &mut write);
        let code = tokio::select! {
            status = child.wait() => status.ok().and_then(|status| status.code()).unwrap_or(-1),
            () = self.collect(&mut read) => child.wait().await.ok().and_then(|status| status.code()).unwrap_or(-1),
            () = typing => -1,
            () = self.forgotten(sessions.settings.keep_detached) => -1,
            () = sessions.stop.cancelled() => -1,
        };
        // What the shell said last may still be in the PTY.
        let _ = tokio::time::timeout(LAST_OUTPUT, self.collect(&mut read)).await;
        if let Some(leader) = leader {
            processes::end_session(leader).await;
        }
        self.exit.send_replace(Some(code));
    }

    /// Keeps output until the PTY ends.
    async fn collect(&self, read: &mut OwnedReadPty) {
        let mut buffer = vec![0; READ_SIZE];
        loop {
            self.wait_for_viewer().await;
            match read.read(&mut buffer).await {
                // EIO: the last process has closed its end.
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    let mut output = self.output();
                    output.push(&buffer[..count]);
                    self.written.send_replace(output.end());
                }
            }
        }
    }

    /// Waits while a viewer is behind, but not for ever.
    async fn wait_for_viewer(&self) {
        let end = *self.written.borrow();
        let mut seen = self.seen.subscribe();
        let near =
            |seen: &Option<u64>| seen.is_none_or(|seen| end.saturating_sub(seen) <= BEHIND_MAX);
        if near(&seen.borrow()) {
            return;
        }
        if tokio::time::timeout(WAIT_FOR_VIEWER, seen.wait_for(near))
            .await
            .is_err()
        {
            // It counts as caught up: from here on it may miss output, and the shell waits for it anew.
            self.seen.send_if_modified(|seen| {
                seen.as_mut()
                    .is_some_and(|seen| std::mem::replace(seen, end) != end)
            });
        }
    }

    /// Resolves when nobody has looked for so long.
    async fn forgotten(&self, after: Duration) {
        let mut seen = self.seen.subscribe();
        loop {
            // The sender lives as long as the session.
            let _ = seen.wait_for(Option::is_none).await;
            let deadline = Instant::now() + after;
            if tokio::time::timeout_at(deadline, seen.wait_for(Option::is_some))
                .await
                .is_err()
            {
                return;
            }
        }
    }
}

/// Passes input to the shell. Ends when the PTY takes no more.
async fn type_in(inputs: &mut mpsc::Receiver<Input>, write: &mut OwnedWritePty) {
    while let Some(input) = inputs.recv().await {
        let done = match input {
            Input::Bytes(bytes) => write.write_all(&bytes).await,
            Input::Resize(window) => write.resize(window.size()).map_err(io::Error::other),
        };
        if let Err(error) = done {
            tracing::debug!(%error, "the PTY takes no more input");
            return std::future::pending().await;
        }
    }
}

/// Somebody who looks at a session.
pub(super) struct Viewer<'a> {
    session: &'a Session,
    number: u64,
    written: watch::Receiver<u64>,
    current: watch::Receiver<u64>,
    exit: watch::Receiver<Option<i32>>,
}

/// What a viewer is to do next.
pub(super) enum Next {
    /// Output from an offset; it is later than asked for when output was missed.
    Output(u64, Vec<u8>),
    /// The shell has ended and all its output was seen.
    Exit(i32),
    /// Another one looks now.
    TakenOver,
}

impl Viewer<'_> {
    /// Waits for what comes after an offset.
    pub(super) async fn next(&mut self, after: u64, most: usize) -> Next {
        loop {
            if *self.current.borrow_and_update() != self.number {
                return Next::TakenOver;
            }
            self.written.borrow_and_update();
            let ended = *self.exit.borrow_and_update();
            let (from, bytes) = self.session.read(after, most);
            if !bytes.is_empty() {
                return Next::Output(from, bytes);
            }
            if let Some(code) = ended {
                return Next::Exit(code);
            }
            tokio::select! {
                _ = self.current.changed() => {}
                _ = self.written.changed() => {}
                _ = self.exit.changed() => {}
            }
        }
    }

    /// Tells how far it has come.
    pub(super) fn saw(&self, offset: u64) {
        if *self.current.borrow() == self.number {
            self.session.seen.send_replace(Some(offset));
        }
    }
}

impl Drop for Viewer<'_> {
    fn drop(&mut self) {
        if *self.current.borrow() == self.number {
            self.session.seen.send_replace(None);
        }
    }
}
