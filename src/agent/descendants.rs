//! What runs below the agent, whoever started it: found through /proc, since the agent adopts what loses its parent.
//!
//! Only for an agent that has a process of its own: everything below it then belongs to the instance.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, pidfd_open, pidfd_send_signal,
    set_child_subreaper, waitpid,
};

use super::typing::Typing;

const KILL_ROUNDS: usize = 100;
const KILL_PAUSE: Duration = Duration::from_millis(10);
/// How often all of them are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Makes this process the parent of every descendant that loses its own.
pub(super) fn adopt() -> std::io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Kills everything below this process.
pub(super) async fn end_all() {
    for _ in 0..KILL_ROUNDS {
        if tokio::task::spawn_blocking(kill_all).await.unwrap_or(0) == 0 {
            return;
        }
        tokio::time::sleep(KILL_PAUSE).await;
    }
    tracing::warn!("processes of the instance cannot be ended");
}

/// Looks after them, for ever: takes note of the end of those that were adopted, which nobody else would, and of what is typed into
/// their terminals.
pub(super) async fn look_after(typing: Arc<Typing>) {
    let mut before = HashSet::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let typing = Arc::clone(&typing);
        let looked = tokio::task::spawn_blocking(move || {
            let all = processes();
            typing.look(&terminals_below(&all, own_pid()), SystemTime::now());
            let zombies = zombies(&all);
            // A child of our own is reaped by who started it, at once: one that is still here the next time was adopted.
            for pid in zombies.intersection(&before) {
                let _ = Pid::from_raw(*pid).map(|pid| waitpid(Some(pid), WaitOptions::NOHANG));
            }
            zombies
        });
        before = looked.await.unwrap_or_default();
    }
}

/// A line of /proc/<pid>/stat, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    zombie: bool,
    /// The device number of its terminal; 0: it has none.
    terminal: u64,
    /// When it started; with the pid, it names a process for good.
    started: u64,
}

/// Kills what is there now, and says how much that was.
fn kill_all() -> usize {
    let below = below(&processes(), own_pid());
    for found in &below {
        kill(*found);
    }
    below.len()
}

/// Kills that process and no other that got its number meanwhile.
fn kill(found: Process) {
    let Some(pid) = Pid::from_raw(found.pid) else {
        return;
    };
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    if process(found.pid).is_some_and(|now| now.started == found.started) {
        let _ = pidfd_send_signal(&handle, Signal::KILL);
    }
}

/// Living descendants of `root`.
fn below(all: &[Process], root: i32) -> Vec<Process> {
    let mut found = Vec::new();
    let mut parents = HashSet::from([root]);
    loop {
        let next: Vec<Process> = all
            .iter()
            .filter(|process| parents.contains(&process.parent) && !parents.contains(&process.pid))
            .copied()
            .collect();
        if next.is_empty() {
            return found;
        }
        parents.extend(next.iter().map(|process| process.pid));
        found.extend(next.into_iter().filter(|process| !process.zombie));
    }
}

fn own_pid() -> i32 {
    getpid().as_raw_nonzero().get()
}

/// The terminals of the descendants of `root`, but not the one that `root` itself was started from: others type there.
fn terminals_below(all: &[Process], root: i32) -> HashSet<u64> {
    let root_is = all.iter().find(|process| process.pid == root);
    let not_ours = [0, root_is.map_or(0, |root| root.terminal)];
    let terminals = below(all, root).into_iter();
    terminals
        .map(|process| process.terminal)
        .filter(|terminal| !not_ours.contains(terminal))
        .collect()
}

fn zombies(all: &[Process]) -> HashSet<i32> {
    let us = own_pid();
    let ended = all
        .iter()
        .filter(|process| process.parent == us && process.zombie);
    ended.map(|process| process.pid).collect()
}

fn processes() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| process(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .collect()
}

fn process(pid: i32) -> Option<Process> {
    parse(
        pid,
        &std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?,
    )
}

/// proc(5): state, parent and terminal stand after the name in parentheses, which may hold anything.
fn parse(pid: i32, stat: &str) -> Option<Process> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    // A device number of 32 bits, written with a sign.
    let terminal: i32 = fields.nth(2)?.parse().ok()?;
    let started = fields.nth(14)?.parse().ok()?;
    Some(Process {
        pid,
        parent,
        zombie: matches!(state, "Z" | "X"),
        terminal: u64::from(terminal.cast_unsigned()),
        started,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(pid: i32, parent: i32) -> Process {
        Process {
            pid,
            parent,
            zombie: pid == 12,
            terminal: 0,
            started: 0,
        }
    }

    #[test]
    fn everything_below_is_found_and_nothing_beside() {
        let all = [
            at(1, 0),
            at(10, 1),
            at(11, 10),
            at(12, 10),
            at(13, 12),
            at(20, 1),
        ];
        let mut found: Vec<i32> = below(&all, 10).iter().map(|process| process.pid).collect();
        found.sort_unstable();
        assert_eq!(found, [11, 13]);
    }

    #[test]
    fn terminals_of_processes_below_are_ours_and_the_one_we_were_started_from_is_not() {
        let on = |terminal, process| Process {
            terminal,
            ..process
        };
        let all = [
            on(34816, at(10, 1)),
            on(34816, at(11, 10)),
            on(34817, at(13, 11)),
            at(14, 11),
            on(34818, at(20, 1)),
        ];
        assert_eq!(terminals_below(&all, 10), [34817].into());
        assert_eq!(terminals_below(&all, 20), [].into());
    }

    #[test]
    fn a_name_in_parentheses_confuses_nobody() {
        let stat = "7 (a) S 1) Z 5 7 7 34817 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 4711 0";
        let found = parse(7, stat).unwrap();
        assert_eq!(found.terminal, 34817);
        assert_eq!((found.parent, found.zombie, found.started), (5, true, 4711));
        let us = process(getpid().as_raw_nonzero().get()).unwrap();
        assert!(!us.zombie && us.started > 0);
    }
}
