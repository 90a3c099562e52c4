//! The temporary folder: private, and gone in the end.

use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use super::DemoError;

/// A folder that is removed when it is dropped.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes one with mode 0700 where temporary files go.
    pub(super) fn make() -> Result<Self, DemoError> {
        let place = std::env::temp_dir();
        let error = |source| DemoError::Folder {
            path: place.clone(),
            source,
        };
        let place = place.canonicalize().map_err(error)?;
        let mut random = [0; 6];
        getrandom::fill(&mut random).map_err(|source| error(std::io::Error::other(source)))?;
        let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = place.join(format!("cde-gateway-demo-{name}"));
        // Fails if it is there: nobody can have prepared it.
        DirBuilder::new().mode(0o700).create(&path).map_err(error)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Removes it with everything in it.
    pub(super) fn remove(self) {}
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "the temporary folder was not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_gone_with_its_content() {
        let folder = Folder::make().unwrap();
        let path = folder.path().to_owned();
        std::fs::write(path.join("x"), "x").unwrap();
        folder.remove();
        assert!(!path.exists());
    }
}
