//! Files of ours that hold secrets or must not be torn: mode 0600, whole or not there.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::error::Error;

/// Reads a file that only we may read. None: it does not exist.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let problem = |source| Error::Read {
        path: path.into(),
        source,
    };
    let mode = match fs::metadata(path) {
        Ok(metadata) => metadata.permissions().mode() & 0o777,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(problem(error)),
    };
    if mode & 0o077 != 0 {
        return Err(Error::Mode {
            path: path.into(),
            mode,
        });
    }
    fs::read(path).map(Some).map_err(problem)
}

/// Makes a file unless somebody else just did; tells whether it was us. Replicas may start at the same time.
pub(super) fn create(path: &Path, content: &[u8]) -> Result<bool, Error> {
    let problem = |source| Error::Write {
        path: path.into(),
        source,
    };
    let temporary = write_beside(path, content).map_err(problem)?;
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary).map_err(problem)?;
    match linked {
        Ok(()) => sync_directory(path).map(|()| true).map_err(problem),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(problem(error)),
    }
}

/// Puts a file in the place of another one, all at once.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = write_beside(path, content)?;
    fs::rename(&temporary, path)?;
    sync_directory(path)
}

fn write_beside(path: &Path, content: &[u8]) -> io::Result<PathBuf> {
    let directory = directory(path);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = directory.join(format!(".{name}.{:016x}", u64::from_ne_bytes(random)));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    Ok(temporary)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(directory(path))?.sync_all()
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
