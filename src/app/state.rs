//! The state directory: private to this user, used by one process at a time, of a known format; and the tokens in it.
//!
//! Not here: what the roles keep in it. Each owns the format of its own files.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::api::Secret;

/// The arrangement of the directory that this program writes and reads.
const FORMAT: u32 = 1;
/// A token is this many random bytes.
const TOKEN_BYTES: usize = 32;
/// A longer file is no token.
const TOKEN_FILE_MAX: u64 = 4096;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file or directory cannot be read or made.
    #[error("cannot {action} {}: {source}\nmake it accessible to this user, or choose another `state_dir`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may look into it.
    #[error(
        "the state directory {path} may be used by others (mode {mode:04o}), and it will hold keys\nrun `chmod 700 {path}`, or choose another `state_dir`",
        path = path.display()
    )]
    Open {
        /// Which.
        path: PathBuf,
        /// How open it is.
        mode: u32,
    },
    /// Another process works in it.
    #[error(
        "the state directory {} is in use by process {pid}\nstop that process, or choose another `state_dir` for this one",
        path.display()
    )]
    InUse {
        /// Which.
        path: PathBuf,
        /// By whom, if it said so.
        pid: String,
    },
    /// It was written by a newer program.
    #[error(
        "the state directory {} has format {found:?}, this program knows {FORMAT}\nrun the newer program that wrote it, or choose another `state_dir`",
        path.display()
    )]
    Format {
        /// Which.
        path: PathBuf,
        /// Which format.
        found: String,
    },
    /// The process that is to be taken over from has another one.
    #[error(
        "the running process has another state directory than {}, and its keys and tickets would be lost\nstop it and start the new one, or leave `state_dir` as it is",
        path.display()
    )]
    Other {
        /// Which is configured now.
        path: PathBuf,
    },
    /// A token file without a token.
    #[error(
        "{} holds no token\nwrite the token into it as one line, or remove the file if this process is to make one",
        path.display()
    )]
    NoToken {
        /// Which.
        path: PathBuf,
    },
}

/// An open state directory. The lock ends with it, and with all whom it was given to.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    lock: Option<File>,
}

impl StateDir {
    /// Opens it, makes it if absent, and keeps others out.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        make_private(path)?;
        let path = fs::canonicalize(path).map_err(io_error("find", path))?;
        let lock = lock(&path)?;
        check_format(&path)?;
        Ok(Self {
            path,
            lock: Some(lock),
        })
    }

    /// Opens it with the lock of a process that is about to give it up.
    pub fn take_over(path: &Path, lock: File) -> Result<Self, StateError> {
        let path = fs::canonicalize(path).map_err(io_error("find", path))?;
        let file = path.join("lock");
        let which = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let given = lock.metadata().map(which);
        let given = given.map_err(io_error("look at the lock of", &path))?;
        if fs::metadata(&file).map(which).ok() != Some(given) {
            return Err(StateError::Other { path });
        }
        check_format(&path)?;
        Ok(Self {
            path,
            lock: Some(lock),
        })
    }

    /// The lock, for a process that is to take over.
    pub fn lock(&self) -> io::Result<File> {
        match &self.lock {
            Some(lock) => lock.try_clone(),
            None => Err(io::Error::other("another process has it already")),
        }
    }

    /// Says in the lock that it is this process' now.
    pub fn claim(&mut self) -> Result<(), StateError> {
        let path = self.path.join("lock");
        self.lock
            .as_mut()
            .map_or(Ok(()), sign)
            .map_err(io_error("write", &path))
    }

    /// Gives up the lock: another process has it too.
    pub fn release(&mut self) {
        self.lock = None;
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The token in the file `name`; made with mode 0600 if it is not there.
    pub fn token(&self, name: &str) -> Result<Secret, StateError> {
        read_or_make_token(&self.file(name))
    }
}

/// The token in `path`; made with mode 0600 if it is not there.
pub fn read_or_make_token(path: &Path) -> Result<Secret, StateError> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(mut file) => {
            let mut random = [0; TOKEN_BYTES];
            let token = getrandom::fill(&mut random)
                .map_err(io::Error::other)
                .map(|()| BASE64_URL_SAFE_NO_PAD.encode(random));
            let written = token.and_then(|token| {
                file.write_all(format!("{token}\n").as_bytes())?;
                file.sync_all()?;
                Ok(Secret::new(token))
            });
            written.map_err(|error| {
                // A half-written token must not be read as one next time.
                let _ = fs::remove_file(path);
                io_error("write", path)(error)
            })
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_token(path),
        Err(error) => Err(io_error("make", path)(error)),
    }
}

/// The token in `path`, which must be there.
pub fn read_token(path: &Path) -> Result<Secret, StateError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(TOKEN_FILE_MAX).read_to_string(&mut text))
        .map_err(io_error("read the token in", path))?;
    let token = text.trim();
    if token.is_empty() || token.contains(char::is_whitespace) {
        return Err(StateError::NoToken {
            path: path.to_owned(),
        });
    }
    Ok(Secret::new(token))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io {
        action,
        path,
        source,
    }
}

fn make_private(path: &Path) -> Result<(), StateError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io_error("make the state directory", path)(error)),
    }
    let looked = fs::metadata(path)
        .and_then(|meta| Ok((meta, fs::read_dir(path)?.next().is_none())))
        .map_err(io_error("look into the state directory", path));
    let (meta, empty) = looked?;
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    if !empty {
        let path = path.to_owned();
        return Err(StateError::Open { path, mode });
    }
    // Nothing in it yet: an operator's plain mkdir.
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .map_err(io_error("make private the state directory", path))
}

fn lock(path: &Path) -> Result<File, StateError> {
    let file_path = path.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&file_path)
        .map_err(io_error("open", &file_path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let told = file.take(32).read_to_string(&mut pid).is_ok() && !pid.trim().is_empty();
            return Err(StateError::InUse {
                path: path.to_owned(),
                pid: match told {
                    true => pid.trim().to_owned(),
                    false => "(unknown)".into(),
                },
            });
        }
        Err(TryLockError::Error(error)) => return Err(io_error("lock", &file_path)(error)),
    }
    sign(&mut file).map_err(io_error("write", &file_path))?;
    Ok(file)
}

/// Writes this process' identifier into the lock.
fn sign(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// Which process has the directory, by what its lock says. None: nobody.
pub fn holder(path: &Path) -> Option<u32> {
    let file = File::open(path.join("lock")).ok()?;
    if file.try_lock_shared().is_ok() {
        return None;
    }
    let mut pid = String::new();
    file.take(32).read_to_string(&mut pid).ok()?;
    pid.trim().parse().ok()
}

fn check_format(path: &Path) -> Result<(), StateError> {
    let file = path.join("format");
    let found = match fs::read_to_string(&file) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return fs::write(&file, format!("{FORMAT}\n")).map_err(io_error("write", &file));
        }
        Err(error) => return Err(io_error("read", &file)(error)),
    };
    match found.trim().parse::<u32>() {
        Ok(version) if version <= FORMAT => Ok(()),
        _ => Err(StateError::Format {
            path: path.to_owned(),
            found: found.trim().to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn it_is_private_and_its_tokens_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let state = StateDir::open(&path).unwrap();
        let token = state.token("user.token").unwrap();
        assert_eq!(token.reveal().len(), 43);
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&state.file("user.token")), 0o600);
        assert!(state.token("user.token").unwrap().is(token.reveal()));
        assert!(!state.token("gateway.token").unwrap().is(token.reveal()));
    }

    #[test]
    fn a_second_process_is_told_who_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let first = StateDir::open(&path).unwrap();
        let message = StateDir::open(&path).unwrap_err().to_string();
        assert!(
            message.contains(&format!("in use by process {}", std::process::id())),
            "{message}"
        );
        drop(first);
        StateDir::open(&path).unwrap();
    }

    #[test]
    fn a_newer_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        drop(StateDir::open(&path).unwrap());
        fs::write(path.join("format"), "2\n").unwrap();
        let message = StateDir::open(&path).unwrap_err().to_string();
        assert!(message.contains("has format \"2\""), "{message}");
    }

    #[test]
    fn a_directory_that_others_may_read_is_refused_unless_it_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.path(), open.clone()).unwrap();
        drop(StateDir::open(folder.path()).unwrap());
        assert_eq!(mode(folder.path()), 0o700);
        fs::set_permissions(folder.path(), open).unwrap();
        let message = StateDir::open(folder.path()).unwrap_err().to_string();
        assert!(message.contains("chmod 700"), "{message}");
    }

    #[test]
    fn a_file_without_a_token_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        for bad in ["", "\n", "two words\n"] {
            fs::write(&path, bad).unwrap();
            assert!(read_or_make_token(&path).is_err(), "{bad:?}");
        }
        fs::write(&path, "secret\n").unwrap();
        assert!(read_token(&path).unwrap().is("secret"));
    }
}
