//! A session: a shell with the last of its output, looked at by one viewer at a time.
//!
//! A viewer pulls output by offset when its socket has room, so a slow one costs no memory. While it is behind, the shell's
//! output waits for it, but only so long: then the shell goes on, and the viewer misses what the ring no longer has.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use pty_process::OwnedReadPty;
use tokio::{
    io::AsyncReadExt,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Settings, processes,
    ring::Ring,
    shell::{self, Shell, Window},
};

/// How far a viewer may be behind before the shell waits for it.
const BEHIND_MAX: u64 = 128 * 1024;
/// Pieces of input that may wait for the shell; each may be as large as a message.
const INPUT_WAITING: usize = 2;
const READ_SIZE: usize = 16 * 1024;
/// How long output may still come after the shell has ended.
const LAST_OUTPUT: Duration = Duration::from_millis(200);

/// A shell.
pub(super) struct Session {
    pub(super) id: String,
    /// What is typed.
    pub(super) input: mpsc::Sender<Bytes>,
    /// The window's size.
    pub(super) window: watch::Sender<Window>,
    output: Mutex<Ring>,
    /// Offset after the last byte of output.
    written: watch::Sender<u64>,
    view: watch::Sender<View>,
    /// The exit code, once the shell has ended.
    exit: watch::Sender<Option<i32>>,
}

/// Who looks.
#[derive(Debug, Default, Clone, Copy)]
struct View {
    /// Number of the viewer that came last.
    viewer: u64,
    /// How far it has come; None: nobody looks.
    seen: Option<u64>,
}

/// A viewer that the shell has waited for in vain: it counts as caught up until it moves again.
const STALLED: u64 = u64::MAX;

impl Session {
    /// A session, and where its shell gets its input from.
    pub(super) fn new(id: String, window: Window) -> (Self, mpsc::Receiver<Bytes>) {
        let (input, inputs) = mpsc::channel(INPUT_WAITING);
        let session = Self {
            id,
            input,
            window: watch::Sender::new(window),
            output: Mutex::default(),
            written: watch::Sender::new(0),
            view: watch::Sender::default(),
            exit: watch::Sender::new(None),
        };
        (session, inputs)
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
        let start = self.output().start();
        let mut number = 0;
        self.view.send_modify(|view| {
            number = view.viewer + 1;
            *view = View {
                viewer: number,
                seen: Some(start),
            };
        });
        Viewer {
            session: self,
            number,
            written: self.written.subscribe(),
            exit: self.exit.subscribe(),
        }
    }

    /// Runs until the shell ends, nobody has looked for too long, or the server stops.
    pub(super) async fn run(
        &self,
        settings: &Settings,
        stop: &CancellationToken,
        shell: Shell,
        mut inputs: mpsc::Receiver<Bytes>,
    ) {
        let Shell {
            mut child,
            mut read,
            mut write,
        } = shell;
        let leader = child.id();
        let mut window = self.window.subscribe();
        // A shell may let go of its terminal, and still run.
        let on_terminal = async {
            tokio::join!(
                self.collect(&mut read, settings.wait_for_viewer),
                shell::type_in(&mut inputs, &mut window, &mut write),
            );
            std::future::pending::<()>().await;
        };
        let code = tokio::select! {
            status = child.wait() => shell::exit_code(status),
            () = on_terminal => -1,
            () = self.forgotten(settings.keep_detached) => -1,
            () = stop.cancelled() => -1,
        };
        // What the shell said last may still be in the PTY: less than the ring keeps beyond what a viewer may be behind.
        let _ = timeout(LAST_OUTPUT, self.collect(&mut read, Duration::ZERO)).await;
        if let Some(leader) = leader {
            processes::end_session(leader).await;
        }
        self.exit.send_replace(Some(code));
    }

    /// Keeps output until the PTY ends.
    async fn collect(&self, read: &mut OwnedReadPty, wait_for_viewer: Duration) {
        let mut buffer = vec![0; READ_SIZE];
        loop {
            self.wait_for_viewer(wait_for_viewer).await;
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
    async fn wait_for_viewer(&self, most: Duration) {
        let end = *self.written.borrow();
        let near = |view: &View| {
            view.seen
                .is_none_or(|seen| end.saturating_sub(seen) <= BEHIND_MAX)
        };
        let mut view = self.view.subscribe();
        if near(&view.borrow()) || most.is_zero() {
            return;
        }
        if timeout(most, view.wait_for(near)).await.is_err() {
            self.view.send_modify(|view| {
                if !near(view) {
                    view.seen = Some(STALLED);
                }
            });
        }
    }

    /// Resolves when nobody has looked for so long.
    async fn forgotten(&self, after: Duration) {
        let mut view = self.view.subscribe();
        loop {
            // The sender lives as long as the session.
            let _ = view.wait_for(|view| view.seen.is_none()).await;
            let came = view.wait_for(|view| view.seen.is_some());
            if timeout(after, came).await.is_err() {
                return;
            }
        }
    }
}

/// Somebody who looks at a session.
pub(super) struct Viewer<'a> {
    session: &'a Session,
    number: u64,
    written: watch::Receiver<u64>,
    exit: watch::Receiver<Option<i32>>,
}

/// What a viewer is to do next.
pub(super) enum Next {
    /// Output from an offset; it is later than asked for when output was missed.
    Output(u64, Vec<u8>),
    /// The shell has ended and all its output was seen.
    Exit(i32),
}

impl<'a> Viewer<'a> {
    /// Waits for what comes after an offset.
    pub(super) async fn next(&mut self, after: u64, most: usize) -> Next {
        loop {
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
                _ = self.written.changed() => {}
                _ = self.exit.changed() => {}
            }
        }
    }

    /// Resolves when another one looks.
    pub(super) fn replaced(&self) -> impl Future<Output = ()> + use<'a> {
        let (mut view, number) = (self.session.view.subscribe(), self.number);
        async move {
            // The sender lives as long as the session.
            let _ = view.wait_for(|view| view.viewer != number).await;
        }
    }

    /// Tells how far it has come.
    pub(super) fn saw(&self, offset: u64) {
        self.report(Some(offset));
    }

    /// One that was replaced has no say.
    fn report(&self, seen: Option<u64>) {
        self.session.view.send_if_modified(|view| {
            let ours = view.viewer == self.number;
            if ours {
                view.seen = seen;
            }
            ours
        });
    }
}

impl Drop for Viewer<'_> {
    fn drop(&mut self) {
        self.report(None);
    }
}
