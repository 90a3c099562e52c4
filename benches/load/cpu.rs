//! CPU time of other processes, from the scheduler's own nanoseconds instead of clock ticks.

use std::{fs, time::Duration};

use anyhow::Context;

/// What the living threads of the processes have spent so far. Threads that ended in between are not in it: the peers
/// make theirs at start.
pub(crate) fn spent(pids: &[u32]) -> anyhow::Result<Duration> {
    let mut sum = 0;
    for pid in pids {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"))
            .with_context(|| format!("process {pid} is gone"))?;
        for task in tasks {
            let text = fs::read_to_string(task?.path().join("schedstat"))
                .context("this kernel has no schedstat")?;
            let first = text.split_whitespace().next().unwrap_or_default();
            sum += first
                .parse::<u64>()
                .with_context(|| format!("schedstat reads `{text}`"))?;
        }
    }
    Ok(Duration::from_nanos(sum))
}
