//! The shell on its PTY: started with a clean environment, fed with input and with the window's size.
//!
//! Not here: what becomes of its output (`session`), how it ends (`processes`).

use std::{ffi::OsString, os::unix::process::ExitStatusExt, path::Path, process::ExitStatus};

use bytes::{Buf, Bytes};
use pty_process::{OwnedReadPty, OwnedWritePty, Size};
use tokio::{
    io::AsyncWriteExt,
    process::Child,
    sync::{mpsc, watch},
};

use super::Settings;

/// What the shell gets of our own environment, and what it gets where we have none.
const INHERITED: [(&str, Option<&str>); 6] = [
    ("HOME", None),
    ("PATH", Some("/usr/local/bin:/usr/bin:/bin")),
    // Else every letter beyond ASCII is typed and drawn as several.
    ("LANG", Some("C.UTF-8")),
    ("USER", None),
    ("LOGNAME", None),
    ("TZ", None),
];

/// Columns and rows of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) cols: u16,
    pub(super) rows: u16,
}

impl Window {
    fn size(self) -> Size {
        Size::new(self.rows.clamp(1, 1000), self.cols.clamp(1, 1000))
    }
}

/// A started shell.
pub(super) struct Shell {
    pub(super) child: Child,
    pub(super) read: OwnedReadPty,
    pub(super) write: OwnedWritePty,
}

impl Shell {
    /// Starts it on a new PTY, as the leader of a kernel session of its own.
    pub(super) fn spawn(settings: &Settings, window: Window) -> Result<Self, pty_process::Error> {
        let (pty, pts) = pty_process::open()?;
        pty.resize(window.size())?;
        let child = pty_process::Command::new(&settings.shell)
            .env_clear()
            .envs(inherited(|name| std::env::var_os(name)))
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
        Ok(Self { child, read, write })
    }
}

fn inherited(
    ours: impl Fn(&str) -> Option<OsString>,
) -> impl Iterator<Item = (&'static str, OsString)> {
    INHERITED.into_iter().filter_map(move |(name, usual)| {
        Some((name, ours(name).or_else(|| usual.map(OsString::from))?))
    })
}

fn existing(folder: &Path) -> &Path {
    if folder.is_dir() {
        folder
    } else {
        Path::new("/")
    }
}

/// The exit code, as a shell would say it: 128 and the signal for one that a signal ended.
pub(super) fn exit_code(status: std::io::Result<ExitStatus>) -> i32 {
    status
        .ok()
        .and_then(|status| {
            status
                .code()
                .or_else(|| status.signal().map(|signal| 128 + signal))
        })
        .unwrap_or(-1)
}

/// Passes input and the window's size to the shell. The size does not queue behind input that nobody reads.
pub(super) async fn type_in(
    inputs: &mut mpsc::Receiver<Bytes>,
    window: &mut watch::Receiver<Window>,
    write: &mut OwnedWritePty,
) {
    let mut rest = Bytes::new();
    loop {
        let done = tokio::select! {
            biased;
            Ok(()) = window.changed() => {
                let size = window.borrow_and_update().size();
                write.resize(size).map_err(std::io::Error::other)
            }
            written = write.write(&rest), if !rest.is_empty() => written.map(|count| rest.advance(count)),
            input = inputs.recv(), if rest.is_empty() => match input {
                Some(input) => { rest = input; Ok(()) }
                None => return,
            },
        };
        if let Err(error) = done {
            tracing::debug!(%error, "the PTY takes no more input");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_gets_utf_8_and_a_path_where_we_have_none_and_nothing_else_of_ours() {
        let bare: Vec<_> = inherited(|_| None).collect();
        assert_eq!(
            bare,
            [
                ("PATH", OsString::from("/usr/local/bin:/usr/bin:/bin")),
                ("LANG", OsString::from("C.UTF-8")),
            ]
        );
        let ours: Vec<_> = inherited(|name| Some(OsString::from(format!("our {name}")))).collect();
        assert!(ours.contains(&("LANG", OsString::from("our LANG"))));
        assert_eq!(ours.len(), INHERITED.len());
    }

    #[test]
    fn a_signal_is_told_apart_from_an_exit() {
        let from_wait = |raw| exit_code(Ok(ExitStatus::from_raw(raw)));
        assert_eq!(from_wait(7 << 8), 7);
        assert_eq!(from_wait(9), 137);
        assert_eq!(exit_code(Err(std::io::Error::other("gone"))), -1);
    }
}
