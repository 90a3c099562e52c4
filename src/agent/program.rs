//! A program that the agent runs beside itself: a process group of its own, whose words go to the log.
//!
//! Dropping it kills it. It may still leave processes that went to other groups; `descendants` finds those.

use std::{
    collections::VecDeque,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    process::{Child, Command},
    sync::watch,
    task::JoinHandle,
};

use super::logs::Log;

/// How long a program has to end in order.
const TERM_WITHIN: Duration = Duration::from_secs(3);
/// How long its last words may come after its end.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How many of them a message repeats.
const WORDS_KEPT: usize = 5;
/// A line without end is cut here.
const LINE_MAX: u64 = 64 * 1024;

type Words = Arc<Mutex<VecDeque<String>>>;

/// See the module.
pub(super) struct Program {
    group: Group,
    words: Words,
    ended: watch::Receiver<Option<String>>,
}

impl Program {
    /// Starts it.
    pub(super) fn spawn(
        command: &mut Command,
        name: &'static str,
        log: &Arc<Log>,
    ) -> std::io::Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let group = Group::of(&child);
        let words = Words::default();
        let listening = [
            child
                .stdout
                .take()
                .map(|out| listen(out, name, log, &words)),
            child
                .stderr
                .take()
                .map(|err| listen(err, name, log, &words)),
        ];
        let (end, ended) = watch::channel(None);
        tokio::spawn(async move {
            let status = child.wait().await;
            let rest = futures_util::future::join_all(listening.into_iter().flatten());
            let _ = tokio::time::timeout(LAST_WORDS, rest).await;
            end.send_replace(Some(
                status.map_or_else(|error| error.to_string(), |status| status.to_string()),
            ));
        });
        Ok(Self {
            group,
            words,
            ended,
        })
    }

    /// How it ended, if it did.
    pub(super) fn status(&self) -> Option<String> {
        self.ended.borrow().clone()
    }

    /// Waits for its end, and says how it ended.
    pub(super) async fn ended(&self) -> String {
        let mut ended = self.ended.clone();
        let status = ended.wait_for(Option::is_some).await;
        // The sender goes only after it has sent.
        status
            .map_or_else(|_| None, |status| status.clone())
            .unwrap_or_default()
    }

    /// The last that it said, for a message.
    pub(super) fn last_words(&self) -> String {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        match words.is_empty() {
            true => "(none)".into(),
            false => words
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(" | "),
        }
    }

    /// Ends its group: in order, then by force.
    pub(super) async fn stop(self) {
        self.group.signal(Signal::TERM);
        let _ = tokio::time::timeout(TERM_WITHIN, self.ended()).await;
        self.group.signal(Signal::KILL);
        let _ = tokio::time::timeout(TERM_WITHIN, self.ended()).await;
    }
}

/// A process group, killed when it is dropped.
pub(super) struct Group(Option<Pid>);

impl Group {
    /// The group that `child` leads; it was started with one of its own.
    pub(super) fn of(child: &Child) -> Self {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        Self(pid.and_then(Pid::from_raw))
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // One that has ended meanwhile is what we want.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Passes lines on.
fn listen(
    output: impl AsyncRead + Unpin + Send + 'static,
    name: &'static str,
    log: &Arc<Log>,
    words: &Words,
) -> JoinHandle<()> {
    let (log, words) = (Arc::clone(log), Arc::clone(words));
    tokio::spawn(async move {
        let mut reader = BufReader::new(output);
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let mut limited = (&mut reader).take(LINE_MAX);
            if !matches!(limited.read_until(b'\n', &mut bytes).await, Ok(1..)) {
                return;
            }
            let line = String::from_utf8_lossy(&bytes);
            let line = line.trim_end();
            log.line(format!("{name}: {line}"));
            let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
            if words.len() == WORDS_KEPT {
                words.pop_front();
            }
            words.push_back(line.chars().take(500).collect());
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(line: &str) -> Program {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]);
        Program::spawn(&mut command, "test", &Arc::default()).unwrap()
    }

    #[tokio::test]
    async fn its_end_and_last_words_are_known() {
        let program = shell("seq 1 9; echo oh no >&2; exit 3");
        assert_eq!(program.ended().await, "exit status: 3");
        let words = program.last_words();
        assert!(words.contains("oh no") && !words.contains('1'), "{words}");
    }

    #[tokio::test]
    async fn stopping_ends_what_ignores_a_request_to_end() {
        let program = shell("trap '' TERM; sleep 600 & echo ready; wait; wait");
        let log_has_it = async {
            while program.last_words() != "ready" {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), log_has_it)
            .await
            .unwrap();
        let ended = program.ended.clone();
        program.stop().await;
        assert_eq!(ended.borrow().as_deref(), Some("signal: 9 (SIGKILL)"));
    }
}
