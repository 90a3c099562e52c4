//! The routes of CHP as they were posted, and the file that keeps them over a restart and from one process to the next.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::spec::Spec;
use crate::{
    api::route::Route,
    gateway::{
        auth::replace_file,
        route::{Source, Table},
        turns::{Stamp, Turn},
    },
};

const VERSION: u64 = 1;

/// All of them, by their paths.
pub(super) struct Kept {
    file: PathBuf,
    host: Arc<str>,
    routes: BTreeMap<String, Known>,
    stamp: Option<Stamp>,
}

/// A route.
pub(super) struct Known {
    /// What was posted.
    pub(super) data: Map<String, Value>,
    /// Since when it is known here. What was before a restart is not: nobody is told that nothing happened when nobody looked.
    pub(super) since: SystemTime,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u64,
    routes: BTreeMap<String, Map<String, Value>>,
}

impl Kept {
    /// Of a file that was not read yet, for routes of this host.
    pub(super) fn new(file: PathBuf, host: Arc<str>) -> Self {
        Self {
            file,
            host,
            routes: BTreeMap::new(),
            stamp: None,
        }
    }

    pub(super) fn all(&self) -> impl ExactSizeIterator<Item = (&str, &Known)> {
        self.routes.iter().map(|(path, known)| (&**path, known))
    }

    pub(super) fn get(&self, path: &str) -> Option<&Known> {
        self.routes.get(path)
    }

    /// The route that is meant by what is posted for a path.
    pub(super) fn route(&self, spec: &Spec, data: &Map<String, Value>) -> Result<Route, String> {
        let target = data.get("target").and_then(Value::as_str);
        let target = target.ok_or("`target` must be there, as a string")?;
        spec.route(&self.host, target)
    }

    pub(super) fn put(&mut self, path: &str, data: Map<String, Value>) {
        let since = SystemTime::now();
        self.routes.insert(path.to_owned(), Known { data, since });
    }

    pub(super) fn take(&mut self, path: &str) -> Option<Known> {
        self.routes.remove(path)
    }

    /// Takes in what another process wrote, if it did. Blocks.
    pub(super) fn follow(&mut self, table: &Table) -> io::Result<()> {
        match Stamp::is_behind(self.stamp, &self.file) {
            true => self.catch_up(table),
            false => Ok(()),
        }
    }

    /// The right to write, and what another process wrote before. Blocks.
    pub(super) fn turn(&mut self, table: &Table) -> io::Result<Turn> {
        let turn = Turn::take(&self.file)?;
        self.follow(table)?;
        Ok(turn)
    }

    /// Writes all of it to disk. Blocks.
    pub(super) fn save(&mut self, _turn: &Turn) -> io::Result<()> {
        let routes = self.routes.iter();
        let content = File {
            version: VERSION,
            routes: routes
                .map(|(path, known)| (path.clone(), known.data.clone()))
                .collect(),
        };
        let text = serde_json::to_vec(&content).map_err(io::Error::other)?;
        replace_file(&self.file, &text)?;
        self.stamp = Stamp::of(&self.file);
        Ok(())
    }

    /// Makes what is in the file all that there is. What stands there as it is known stays as it is.
    fn catch_up(&mut self, table: &Table) -> io::Result<()> {
        let stamp = Stamp::of(&self.file);
        let found = read(&self.file)?;
        let gone = self
            .routes
            .extract_if(.., |path, _| !found.contains_key(path));
        for (path, _) in gone {
            if let Ok(spec) = Spec::new(&path)
                && let Err(error) = table.remove(Source::Chp, spec.gitspace())
            {
                tracing::warn!(path, %error, "a route of CHP that is gone was not removed");
            }
        }
        for (path, data) in found {
            if self.get(&path).is_some_and(|known| known.data == data) {
                continue;
            }
            if let Err(problem) = self.apply(&path, &data, table) {
                tracing::warn!(path, problem, "a kept route of CHP cannot be used");
            }
            self.put(&path, data);
        }
        self.stamp = stamp;
        Ok(())
    }

    fn apply(&self, path: &str, data: &Map<String, Value>, table: &Table) -> Result<(), String> {
        let route = self.route(&Spec::new(path)?, data)?;
        let applied = table.apply(Source::Chp, &route);
        applied.map(|_| ()).map_err(|error| error.to_string())
    }
}

fn read(file: &Path) -> io::Result<BTreeMap<String, Map<String, Value>>> {
    match std::fs::read(file) {
        Ok(text) => parse(&text).map_err(|problem| {
            io::Error::other(format!(
                "{}: {problem}; remove the file to start without its routes",
                file.display()
            ))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

fn parse(text: &[u8]) -> Result<BTreeMap<String, Map<String, Value>>, String> {
    let file: File = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    match file.version {
        VERSION => Ok(file.routes),
        version => Err(format!(
            "it has the format version {version}, this program knows {VERSION}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(number: u8) -> Map<String, Value> {
        let target = format!("http://10.0.0.{number}");
        Map::from_iter([("target".to_owned(), Value::from(target))])
    }

    fn kept(file: &Path) -> Kept {
        Kept::new(file.to_owned(), "hub.test".into())
    }

    fn table() -> Table {
        Table::new(vec!["10.0.0.0/8".parse().unwrap()])
    }

    #[test]
    fn what_was_saved_is_there_again_and_another_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (file, table) = (dir.path().join("chp-routes.json"), table());
        let mut first = kept(&file);
        let turn = first.turn(&table).unwrap();
        first.put("/user/ada", target(7));
        first.put("/user/bob", target(7));
        assert!(first.take("/user/bob").is_some() && first.take("/user/bob").is_none());
        first.save(&turn).unwrap();
        let mut again = kept(&file);
        again.follow(&table).unwrap();
        assert_eq!((again.all().len(), table.len()), (1, 1));
        assert_eq!(again.get("/user/ada").unwrap().data, target(7));
        std::fs::write(&file, r#"{"version":2,"routes":{}}"#).unwrap();
        let error = again.follow(&table).unwrap_err().to_string();
        assert!(
            error.contains("chp-routes.json") && error.contains("version 2"),
            "{error}"
        );
    }

    #[test]
    fn two_processes_have_what_either_of_them_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("chp-routes.json");
        let (mut old, mut new) = (kept(&file), kept(&file));
        let (olds, news) = (table(), table());
        let turn = old.turn(&olds).unwrap();
        old.put("/user/ada", target(1));
        old.put("/user/bob", target(2));
        old.save(&turn).unwrap();
        drop(turn);
        let turn = new.turn(&news).unwrap();
        let since = new.get("/user/ada").unwrap().since;
        assert_eq!(news.len(), 2);
        new.take("/user/bob").unwrap();
        let bob = Spec::new("/user/bob").unwrap();
        news.remove(Source::Chp, bob.gitspace()).unwrap();
        new.put("/user/cy", target(3));
        new.save(&turn).unwrap();
        drop(turn);
        let turn = old.turn(&olds).unwrap();
        let paths: Vec<_> = old.all().map(|(path, _)| path).collect();
        assert_eq!(paths, ["/user/ada", "/user/cy"]);
        old.put("/user/cy", target(4));
        old.save(&turn).unwrap();
        new.follow(&news).unwrap();
        assert_eq!(new.get("/user/cy").unwrap().data, target(4));
        let ada = new.get("/user/ada").unwrap();
        assert_eq!(ada.since, since, "nothing changed about it");
        std::fs::write(&file, r#"{"version":1,"routes":{}}"#).unwrap();
        new.follow(&news).unwrap();
        assert_eq!((new.all().len(), news.len()), (0, 0));
    }
}
