//! Files of the process driver: private, written whole, deleted whole.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// A folder for us only, with those above it.
pub(super) fn private_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// An empty file for us only.
pub(super) fn private_file(path: &Path) -> io::Result<fs::File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

/// Whole or not at all, and for us only.
pub(super) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    private_file(&temporary)?.write_all(text.as_bytes())?;
    fs::rename(temporary, path)
}

/// What is not there needs no removing.
pub(super) fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Deletes a folder with all in it, also what its user made unwritable (caches of some languages are).
pub(super) async fn delete(folder: PathBuf) -> io::Result<()> {
    let deleting = tokio::task::spawn_blocking(move || match gone(fs::remove_dir_all(&folder)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_deletable(&folder)?;
            gone(fs::remove_dir_all(&folder))
        }
        deleted => deleted,
    });
    deleting.await.map_err(io::Error::other)?
}

/// Gives us every folder below back. Links are not followed.
fn make_deletable(root: &Path) -> io::Result<()> {
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn folders_that_cannot_be_written_are_deleted_too() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("home/cache");
        private_folder(&cache).unwrap();
        write_private(&cache.join("module"), "x").unwrap();
        fs::set_permissions(&cache, Permissions::from_mode(0o500)).unwrap();
        make_deletable(&folder.path().join("home")).unwrap();
        assert_eq!(
            fs::metadata(&cache).unwrap().permissions().mode() & 0o777,
            0o700
        );
        delete(folder.path().join("home")).await.unwrap();
        assert!(!folder.path().join("home").exists());
        delete(folder.path().join("home")).await.unwrap();
    }
}
