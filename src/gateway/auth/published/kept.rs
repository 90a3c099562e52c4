//! The last key set of a URL on disk, so that a restart while its issuer is down loses nothing.

use std::{
    io,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::gateway::auth::{error::Error, private_file, ticket::hex};

const VERSION: u64 = 1;

/// Where it is.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    path: PathBuf,
    url: Box<str>,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u64,
    url: Box<str>,
    fetched: i64,
    /// As it was fetched, to be compared with the next one.
    jwks: String,
}

impl Kept {
    pub(super) fn new(state_dir: &Path, url: &str) -> Self {
        let name = hex(digest(&SHA256, url.as_bytes()).as_ref());
        Self {
            path: state_dir.join("issuers").join(format!("{name}.json")),
            url: url.into(),
        }
    }

    /// When the set was fetched (seconds since 1970), and the set. None: there is none, or a damaged one, which a fetch replaces.
    pub(super) fn read(&self) -> Result<Option<(i64, Vec<u8>)>, Error> {
        let Some(content) = private_file::read(&self.path)? else {
            return Ok(None);
        };
        match serde_json::from_slice::<File>(&content) {
            Ok(file) if file.version > VERSION => Err(Error::Version {
                path: self.path.clone(),
                found: file.version,
                known: VERSION,
            }),
            Ok(file) if file.url == self.url => Ok(Some((file.fetched, file.jwks.into()))),
            _ => {
                tracing::warn!(path = %self.path.display(), "a kept key set is damaged; it is fetched again");
                Ok(None)
            }
        }
    }

    /// Keeps a set. Blocks.
    pub(super) fn write(&self, fetched: i64, json: &[u8]) -> io::Result<()> {
        let file = File {
            version: VERSION,
            url: self.url.clone(),
            fetched,
            jwks: String::from_utf8_lossy(json).into(),
        };
        private_file::replace(&self.path, &serde_json::to_vec(&file)?)
    }
}
