//! Routes that were written by the admin API, and the file that keeps them over a restart and from one process to the next.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    api::{GitspaceId, route::Route},
    gateway::{
        route::{Source, Table},
        turns::{Stamp, Turn},
    },
};

/// See the module.
pub(super) struct Kept {
    path: PathBuf,
    routes: Vec<Route>,
    stamp: Option<Stamp>,
}

impl Kept {
    /// Of a file that was not read yet.
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            routes: Vec::new(),
            stamp: None,
        }
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether another process has written.
    pub(super) fn is_behind(&self) -> bool {
        Stamp::is_behind(self.stamp, &self.path)
    }

    /// Takes in what is in the file.
    pub(super) fn catch_up(&mut self, table: &Table) -> io::Result<()> {
        let stamp = Stamp::of(&self.path);
        let routes: Vec<Route> = match std::fs::read(&self.path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| {
                io::Error::other(format!(
                    "{}: {error}; remove the file to start without its routes",
                    self.path.display()
                ))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        table.retain(Source::Api, &routes);
        for route in &routes {
            if let Err(error) = table.apply(Source::Api, route) {
                tracing::warn!(gitspace = %route.gitspace, %error, "a kept route cannot be used");
            }
        }
        (self.routes, self.stamp) = (routes, stamp);
        Ok(())
    }

    /// The right to write, and what another process wrote before.
    pub(super) fn turn(&mut self, table: &Table) -> io::Result<Turn> {
        let turn = Turn::take(&self.path)?;
        if self.is_behind() {
            self.catch_up(table)?;
        }
        Ok(turn)
    }

    pub(super) fn put(&mut self, route: Route) {
        self.remove(&route.gitspace);
        self.routes.push(route);
    }

    pub(super) fn remove(&mut self, gitspace: &GitspaceId) {
        self.routes.retain(|known| known.gitspace != *gitspace);
    }

    /// On disk before it is acknowledged.
    pub(super) fn save(&mut self, _turn: &Turn) -> io::Result<()> {
        let temporary = self.path.with_extension("new");
        let mut file = std::fs::File::create(&temporary)?;
        serde_json::to_writer(&mut file, &self.routes)?;
        file.sync_all()?;
        std::fs::rename(temporary, &self.path)?;
        self.stamp = Stamp::of(&self.path);
        Ok(())
    }
}
