//! Turns: files of the state folder that two processes write while one of them hands over to the other.
//!
//! Such a file is the truth, and memory a copy of it. Who writes takes the turn, which is a lock in the folder, and first takes in what
//! the other one wrote; now and then everybody looks whether there is something. A look is one `stat`.
//!
//! Not here: what the files hold.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

/// The right to write, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Turn(#[expect(dead_code, reason = "held for its lock")] File);

impl Turn {
    /// Waits for the turn to write `file` and others in its folder. Blocks, for as long as another process writes.
    pub(crate) fn take(file: &Path) -> io::Result<Self> {
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(file.with_file_name("turn"))?;
        lock.lock()?;
        Ok(Self(lock))
    }
}

/// What a file was like when it was last read or written here. Two that differ are of two contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Which file it is: another takes its place when it is written anew.
    file: (u64, u64),
    length: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// Whether a file was written by somebody else since. One that is gone is no news: files of ours are replaced, never removed.
    pub(crate) fn is_behind(seen: Option<Self>, path: &Path) -> bool {
        let now = Self::of(path);
        now.is_some() && now != seen
    }

    /// Of a file as it is now. None: there is none.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self {
            file: (meta.dev(), meta.ino()),
            length: meta.len(),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_written_shows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut stamps = vec![Stamp::of(&path)];
        for content in ["", "a\n", "a\nb\n"] {
            fs::write(&path, content).unwrap();
            stamps.push(Stamp::of(&path));
        }
        let beside = folder.path().join("beside");
        fs::write(&beside, "a\nc\n").unwrap();
        fs::rename(&beside, &path).unwrap();
        stamps.push(Stamp::of(&path));
        for pair in stamps.windows(2) {
            assert_ne!(pair[0], pair[1]);
        }
    }

    #[test]
    fn the_turn_is_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let first = Turn::take(&file).unwrap();
        let other = OpenOptions::new()
            .write(true)
            .open(folder.path().join("turn"))
            .unwrap();
        other.try_lock().unwrap_err();
        drop(first);
        other.try_lock().unwrap();
    }
}
