//! When somebody typed into a terminal of the instance, whichever way it is shown: the IDE, an app, ssh, tmux.
//!
//! The kernel keeps that: a terminal's access time is renewed when a program takes up input from it, in steps of eight seconds, and
//! by nothing else. Output, a resize and a prompt leave it alone. A terminal that was only opened was accessed last when it was
//! made, which is its change time.
//!
//! Not here: which terminals are the instance's (`descendants`); who is told (the runner asks for the agent's status).

use std::{
    collections::HashSet,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// Where the kernel has terminals.
const TERMINALS: &str = "/dev/pts";
/// As many as the kernel allows if nobody changed that.
const TERMINALS_MAX: usize = 4096;

/// When somebody typed last, as far as was looked.
#[derive(Debug)]
pub(super) struct Typing {
    folder: PathBuf,
    /// Seconds since 1970; 0: never.
    last: AtomicU64,
}

impl Default for Typing {
    fn default() -> Self {
        Self::of(Path::new(TERMINALS))
    }
}

impl Typing {
    fn of(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            last: AtomicU64::new(0),
        }
    }

    /// Looks at the terminals with these device numbers. Blocks.
    pub(super) fn look(&self, ours: &HashSet<u64>, now: SystemTime) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else {
            return;
        };
        let now = seconds(now);
        let typed = entries.take(TERMINALS_MAX).filter_map(|entry| {
            let found = entry.ok()?.metadata().ok()?;
            let (read, made) = (found.atime(), found.ctime());
            ours.contains(&found.rdev())
                .then(|| typed(read, made, now))?
        });
        if let Some(last) = typed.max() {
            self.last.fetch_max(last, Ordering::Relaxed);
        }
    }

    /// How many seconds ago that was. None: never.
    pub(super) fn ago(&self, now: SystemTime) -> Option<u64> {
        let last = self.last.load(Ordering::Relaxed);
        (last > 0).then(|| seconds(now).saturating_sub(last))
    }
}

/// When a terminal was typed into, if it was since it was made. A time that is still to come is none: it would count for ever.
fn typed(read: i64, made: i64, now: u64) -> Option<u64> {
    let at = u64::try_from(read).ok()?;
    (read > made && at <= now).then_some(at)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{File, FileTimes},
        time::Duration,
    };

    use super::*;

    /// Whatever is no device has this number.
    const NO_DEVICE: u64 = 0;

    #[test]
    fn a_terminal_counts_when_it_was_read_after_it_was_made_and_not_in_the_future() {
        assert_eq!(typed(108, 100, 110), Some(108));
        assert_eq!(typed(110, 100, 110), Some(110));
        assert_eq!(typed(100, 100, 110), None, "only opened");
        assert_eq!(typed(100, 105, 110), None, "its owner was changed");
        assert_eq!(typed(111, 100, 110), None, "set by hand");
        assert_eq!(typed(-5, -10, 110), None);
    }

    #[test]
    fn the_newest_of_our_own_terminals_counts_and_stays_when_it_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        // The change time is that of the change: now.
        let read = |name: &str, at| {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_times(FileTimes::new().set_accessed(at)).unwrap();
        };
        read("0", now - Duration::from_secs(60));
        let typing = Typing::of(folder.path());
        let (ours, of_others) = ([NO_DEVICE].into(), [7].into());
        typing.look(&ours, later(100));
        assert_eq!(typing.ago(later(100)), None, "open and left alone");
        read("1", later(40));
        read("2", later(50));
        typing.look(&of_others, later(100));
        assert_eq!(typing.ago(later(100)), None, "those are not ours");
        typing.look(&ours, later(100));
        assert_eq!(typing.ago(later(100)), Some(50));
        assert_eq!(typing.ago(now), Some(0), "the clock was set back");
        std::fs::remove_file(folder.path().join("2")).unwrap();
        typing.look(&ours, later(100));
        assert_eq!(typing.ago(later(100)), Some(50));
        let gone = Typing::of(Path::new("/no/such/folder"));
        gone.look(&ours, now);
        assert_eq!(gone.ago(now), None);
    }
}
