//! Ending a shell with all that it started: everything of its kernel session.

use rustix::process::{Pid, Signal, kill_process};

/// Hangs up every process of the session that `leader` leads, then kills what is left.
pub(super) async fn end_session(leader: u32) {
    signal(leader, Signal::HUP).await;
    for _ in 0..20 {
        if members(leader).await.is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    signal(leader, Signal::KILL).await;
}

async fn signal(leader: u32, signal: Signal) {
    for pid in members(leader).await {
        // One that has ended meanwhile is what we want.
        let _ = kill_process(pid, signal);
    }
}

/// The processes of a session, zombies left out.
async fn members(leader: u32) -> Vec<Pid> {
    let found = tokio::task::spawn_blocking(move || {
        let Ok(entries) = std::fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| session_of(*pid) == Some(leader))
            .filter_map(Pid::from_raw)
            .collect()
    });
    found.await.unwrap_or_default()
}

/// The session of a process that still runs (proc(5): state and session stand after the name in parentheses).
fn session_of(pid: i32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let session = fields.nth(2)?.parse().ok()?;
    (state != "Z").then_some(session)
}
