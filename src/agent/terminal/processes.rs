//! Ending a shell with all that it started: everything of its kernel session.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

const ROUND: Duration = Duration::from_millis(25);
/// How long processes may take to hang up: half a second.
const HANG_UP_ROUNDS: u32 = 20;
const ROUNDS: u32 = 100;

/// Hangs up every process of the session that `leader` leads, then kills what is left.
pub(super) async fn end_session(leader: u32) {
    for round in 0..ROUNDS {
        let members = members(leader).await;
        if members.is_empty() {
            return;
        }
        match round {
            0 => send(&members, Signal::HUP),
            // Again and again: one that was just starting another is killed with it in the next round.
            HANG_UP_ROUNDS.. => send(&members, Signal::KILL),
            _ => {}
        }
        tokio::time::sleep(ROUND).await;
    }
    tracing::warn!(leader, "processes of a shell could not be killed");
}

fn send(members: &[Pid], signal: Signal) {
    for pid in members {
        // One that has ended meanwhile is what we want.
        let _ = kill_process(*pid, signal);
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
