//! What is left of an instance whose agent has ended: processes that carry its mark in their environment.
//!
//! The agent ends everything below it; this is for an agent that was killed, and for what ran when the runner was.

use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

const ROUNDS: usize = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// Kills every process with `mark` (`NAME=value`), until there is none. False: some cannot be ended.
pub(super) async fn end(mark: &str) -> bool {
    for _ in 0..ROUNDS {
        let mark = mark.to_owned();
        if tokio::task::spawn_blocking(move || kill_marked(&mark))
            .await
            .unwrap_or(0)
            == 0
        {
            return true;
        }
        tokio::time::sleep(PAUSE).await;
    }
    false
}

fn kill_marked(mark: &str) -> usize {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return 0;
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| kill_if_marked(*pid, mark).is_some())
        .count()
}

/// The handle is opened before the mark is read: a process that gets the number meanwhile is not hit. Processes of other
/// users cannot be read and are not ours; those that have ended have no environment.
fn kill_if_marked(pid: i32, mark: &str) -> Option<()> {
    let handle = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    if !environment
        .split(|byte| *byte == 0)
        .any(|variable| variable == mark.as_bytes())
    {
        return None;
    }
    let _ = pidfd_send_signal(&handle, Signal::KILL);
    Some(())
}
