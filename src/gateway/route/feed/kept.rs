//! What the gateway has of the feed, and the file with it: with that it starts and serves without its control plane.
//!
//! The file is a head, one line with everything, and a line for every answer after it; when those are more than the whole, it is
//! written anew. What a crash cut off at its end is asked for again.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    api::{
        GitspaceId,
        feed::{Feed, FeedKeys, FeedKind},
        route::Route,
    },
    gateway::auth,
};

const HEAD: &str = "cde-gateway feed 1";
/// So much may be appended, however small the whole is.
const APPENDED_MIN: usize = 64 * 1024;

/// What is had of the feed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(super) epoch: String,
    #[serde(default)]
    pub(super) run: Option<String>,
    pub(super) revision: u64,
    pub(super) keys: FeedKeys,
    pub(super) routes: BTreeMap<GitspaceId, Route>,
}

impl Kept {
    /// Takes an answer that was checked. Generations compare within an epoch only.
    pub(super) fn take(kept: &mut Option<Self>, feed: Feed) {
        let of_same = kept.take().filter(|kept| kept.epoch == feed.epoch);
        let mut known = of_same.map(|kept| kept.routes).unwrap_or_default();
        let mut routes = match feed.kind {
            FeedKind::Snapshot => BTreeMap::new(),
            FeedKind::Delta => std::mem::take(&mut known),
        };
        for gone in feed.removed {
            let newer = |route: &Route| route.generation > gone.generation;
            if !routes.get(&gone.gitspace).is_some_and(newer) {
                routes.remove(&gone.gitspace);
            }
        }
        for route in feed.routes {
            let before = routes
                .remove(&route.gitspace)
                .or_else(|| known.remove(&route.gitspace));
            let newer = before.filter(|before| before.generation > route.generation);
            routes.insert(route.gitspace.clone(), newer.unwrap_or(route));
        }
        *kept = Some(Self {
            epoch: feed.epoch,
            run: feed.run,
            revision: feed.revision,
            keys: feed.keys,
            routes,
        });
    }
}

/// The file with it.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    /// Bytes of the whole, as it was written last. None: it has to be written anew.
    whole: Option<usize>,
    /// Bytes behind it.
    appended: usize,
}

/// What is to be written.
pub(super) enum Change {
    Whole(Vec<u8>),
    Line(Vec<u8>),
}

impl Store {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join("feed"),
            whole: None,
            appended: 0,
        }
    }

    /// The last good state, if there is one that can be read.
    pub(crate) fn load(&self) -> Option<Kept> {
        let text = std::fs::read(&self.path).ok()?;
        let kept = read(&text);
        if kept.is_none() {
            let path = self.path.display();
            tracing::warn!(%path, "the kept feed cannot be read (is it of a newer version?); waiting for the control plane");
        }
        kept
    }

    /// What has to be written after `feed` was taken.
    pub(super) fn change(&self, kept: &Kept, line: Option<Vec<u8>>) -> io::Result<Change> {
        let room = self.whole.map(|whole| whole.max(APPENDED_MIN));
        match (line, room) {
            (Some(line), Some(room)) if self.appended + line.len() <= room => {
                Ok(Change::Line(line))
            }
            _ => {
                let mut text = format!("{HEAD}\n").into_bytes();
                serde_json::to_writer(&mut text, kept)?;
                text.push(b'\n');
                Ok(Change::Whole(text))
            }
        }
    }

    /// Writes it. Blocks.
    pub(super) fn write(&mut self, change: &Change) -> io::Result<()> {
        match change {
            Change::Whole(text) => {
                self.whole = None;
                auth::replace_file(&self.path, text)?;
                (self.whole, self.appended) = (Some(text.len()), 0);
            }
            Change::Line(line) => {
                let appended = OpenOptions::new()
                    .append(true)
                    .open(&self.path)
                    .and_then(|mut file| file.write_all(line));
                if let Err(error) = appended {
                    // It may end in half a line now.
                    self.whole = None;
                    return Err(error);
                }
                self.appended += line.len();
            }
        }
        Ok(())
    }
}

/// The line for an answer that changes something. A snapshot has none: it is the whole. What it revokes is kept elsewhere.
pub(super) fn line(feed: &Feed) -> io::Result<Option<Vec<u8>>> {
    if feed.kind == FeedKind::Snapshot {
        return Ok(None);
    }
    let mut line = serde_json::to_vec(&Feed {
        revoked: Vec::new(),
        ..feed.clone()
    })?;
    line.push(b'\n');
    Ok(Some(line))
}

fn read(text: &[u8]) -> Option<Kept> {
    let mut lines = text.split(|byte| *byte == b'\n');
    if lines.next()? != HEAD.as_bytes() {
        return None;
    }
    let mut kept: Option<Kept> = serde_json::from_slice(lines.next()?).ok()?;
    for line in lines.take_while(|line| !line.is_empty()) {
        let Ok(feed) = serde_json::from_slice(line) else {
            break;
        };
        Kept::take(&mut kept, feed);
    }
    kept
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn feed(kind: &str, epoch: &str, revision: u64, routes: &Value, removed: &Value) -> Feed {
        serde_json::from_value(json!({
            "epoch": epoch, "revision": revision, "time": 0, "lease": 60, "type": kind,
            "routes": routes, "removed": removed,
            "keys": { "issuer": "i", "audience": "a", "jwks": { "keys": [] } },
        }))
        .unwrap()
    }

    fn route(gitspace: &str, generation: u64) -> Value {
        json!({ "gitspace": gitspace, "generation": generation, "ide": { "port": 80 } })
    }

    fn generations(kept: &Kept) -> Vec<(&str, u64)> {
        let routes = kept.routes.values();
        routes
            .map(|route| (route.gitspace.as_str(), route.generation))
            .collect()
    }

    #[test]
    fn older_generations_change_nothing_within_an_epoch_and_count_in_the_next() {
        let mut kept = None;
        let none = json!([]);
        Kept::take(
            &mut kept,
            feed(
                "snapshot",
                "e1",
                5,
                &json!([route("a", 5), route("b", 5)]),
                &none,
            ),
        );
        let gone = json!([{ "gitspace": "b", "generation": 4 }]);
        Kept::take(
            &mut kept,
            feed("delta", "e1", 6, &json!([route("a", 4)]), &gone),
        );
        assert_eq!(generations(kept.as_ref().unwrap()), [("a", 5), ("b", 5)]);
        let gone = json!([{ "gitspace": "b", "generation": 6 }]);
        Kept::take(
            &mut kept,
            feed("delta", "e1", 7, &json!([route("a", 6)]), &gone),
        );
        assert_eq!(generations(kept.as_ref().unwrap()), [("a", 6)]);
        Kept::take(
            &mut kept,
            feed("snapshot", "e2", 1, &json!([route("a", 1)]), &none),
        );
        assert_eq!(generations(kept.as_ref().unwrap()), [("a", 1)]);
    }

    #[test]
    fn the_file_gives_back_what_was_written_whatever_was_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::new(dir.path());
        assert!(store.load().is_none());
        let mut kept = None;
        let mut texts = Vec::new();
        for revision in 1..=4 {
            let kind = if revision == 1 { "snapshot" } else { "delta" };
            let name = format!("g{revision}");
            let feed = feed(kind, "e1", revision, &json!([route(&name, 1)]), &json!([]));
            let line = line(&feed).unwrap();
            Kept::take(&mut kept, feed);
            let change = store.change(kept.as_ref().unwrap(), line).unwrap();
            assert_eq!(matches!(change, Change::Whole(_)), revision == 1);
            store.write(&change).unwrap();
            texts.push(std::fs::read(dir.path().join("feed")).unwrap());
            let read = store.load().unwrap();
            assert_eq!(
                (read.revision, read.routes.len() as u64),
                (revision, revision)
            );
        }
        // A crash in the middle of a line.
        let (before, after) = (&texts[2], &texts[3]);
        for cut in before.len()..after.len() - 1 {
            std::fs::write(dir.path().join("feed"), &after[..cut]).unwrap();
            assert_eq!(store.load().unwrap().revision, 3);
        }
        std::fs::write(dir.path().join("feed"), "cde-gateway feed 2\n{}\n").unwrap();
        assert!(store.load().is_none());
    }

    #[test]
    fn the_file_does_not_grow_with_every_answer() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::new(dir.path());
        let mut kept = None;
        for revision in 1..2000 {
            let kind = if revision == 1 { "snapshot" } else { "delta" };
            let feed = feed(
                kind,
                "e1",
                revision,
                &json!([route("a", revision)]),
                &json!([]),
            );
            let line = line(&feed).unwrap();
            Kept::take(&mut kept, feed);
            let change = store.change(kept.as_ref().unwrap(), line).unwrap();
            store.write(&change).unwrap();
        }
        let size = std::fs::metadata(dir.path().join("feed")).unwrap().len();
        assert!(size < 2 * APPENDED_MIN as u64, "{size}");
        assert_eq!(store.load().unwrap().revision, 1999);
    }
}
