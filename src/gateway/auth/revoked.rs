//! What was revoked: looked up for every request that says who it is, on disk before it is acknowledged.
//!
//! Tokens and sessions are refused by their `jti`, `sid` and principal; a port's and a gitspace's revocations refuse those who
//! come with something older, once it is known that they may use it. While nothing is revoked, all of this is one look at a counter.
//!
//! While one process hands over to the next, both have revocations made: the file decides (`turns`).
//!
//! Not here: live streams (`live`).

use std::{
    collections::HashSet,
    fs::OpenOptions,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use dashmap::DashMap;

use super::{
    error::{Error, TokenError},
    principal::Principal,
    private_file,
};
use crate::{
    api::{
        GitspaceId,
        access::Port,
        revocation::{Revocation, RevocationKind, port_id},
    },
    gateway::turns::{Stamp, Turn},
};

const HEAD: &str = "cde-gateway revocations 1";
/// So many are kept; beyond, those that say until when they are needed have to end first.
const MAX: usize = 100_000;

/// Why a revocation was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RevokeError {
    /// There are too many.
    #[error(
        "there are {MAX} revocations, which is all that is kept; take some back, or give `until` from now on"
    )]
    Full,
    /// It holds until a restart only.
    #[error("it cannot be written to disk, so a restart would forget it: {0}")]
    NotKept(#[from] io::Error),
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Revoked(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    count: AtomicUsize,
    /// How often one was added.
    changes: AtomicU64,
    by_kind: [DashMap<Box<str>, Revocation>; 6],
    file: Mutex<File>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    /// It as it was left here.
    stamp: Option<Stamp>,
    /// Lines in it, those that were replaced or are over included.
    lines: usize,
}

impl Revoked {
    /// Reads what was revoked before a restart.
    pub(super) fn load(state_dir: &Path, now: i64) -> Result<Self, Error> {
        let path = state_dir.join("revocations");
        let content = private_file::read(&path)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&content);
        let head = text.lines().next().unwrap_or(HEAD);
        if head != HEAD {
            let found = head
                .rsplit(' ')
                .next()
                .and_then(|number| number.parse().ok());
            return Err(Error::Version {
                path,
                found: found.unwrap_or(0),
                known: 1,
            });
        }
        let inner = Inner {
            count: AtomicUsize::new(0),
            changes: AtomicU64::new(0),
            by_kind: Default::default(),
            file: Mutex::new(File {
                path,
                stamp: None,
                lines: 0,
            }),
        };
        let mut file = inner.file();
        let rewritten = Turn::take(&file.path).and_then(|_turn| {
            file.take_in(&inner)?;
            inner.forget(now);
            file.rewrite(&inner.all())
        });
        rewritten.map_err(|source| Error::Write {
            path: file.path.clone(),
            source,
        })?;
        drop(file);
        Ok(Self(Arc::new(inner)))
    }

    /// Refuses a token or session that was revoked.
    pub(super) fn check(&self, principal: &Principal, now: i64) -> Result<(), TokenError> {
        if self.0.is_empty() {
            return Ok(());
        }
        for (kind, id) in named(principal) {
            if id.is_some_and(|id| self.0.covers(kind, id, principal, now)) {
                return Err(TokenError::Revoked);
            }
        }
        Ok(())
    }

    /// What keeps a principal from a port, of all that could.
    pub(super) fn of(
        &self,
        principal: &Principal,
        gitspace: &GitspaceId,
        port: Port,
        now: i64,
    ) -> Option<Revocation> {
        if self.0.is_empty() {
            return None;
        }
        let port = port_id(gitspace, port);
        let places = [
            (RevocationKind::Gitspace, Some(gitspace.as_str())),
            (RevocationKind::Port, Some(&*port)),
        ];
        let mut all = named(principal).into_iter().chain(places);
        let found =
            all.find(|(kind, id)| id.is_some_and(|id| self.0.covers(*kind, id, principal, now)));
        let (kind, id) = found?;
        self.0.of(kind).get(id?).map(|one| one.value().clone())
    }

    /// How often one was added.
    pub(super) fn changes(&self) -> u64 {
        self.0.changes.load(Ordering::Acquire)
    }

    /// Whether what the principal came with is older than a revocation of the port or its gitspace.
    pub(super) fn covers(
        &self,
        principal: &Principal,
        gitspace: &GitspaceId,
        port: Port,
        now: i64,
    ) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let covers = |kind, id: &str| self.0.covers(kind, id, principal, now);
        covers(RevocationKind::Gitspace, gitspace.as_str())
            || covers(RevocationKind::Port, &port_id(gitspace, port))
    }

    /// Whether a share was revoked: its identifier is never used again, so it does not matter when.
    pub(super) fn share(&self, id: &str, now: i64) -> bool {
        self.of_share(id, now).is_some()
    }

    /// The revocation of a share.
    pub(super) fn of_share(&self, id: &str, now: i64) -> Option<Revocation> {
        if self.0.is_empty() {
            return None;
        }
        let revocation = self.0.of(RevocationKind::Share).get(id)?;
        let counts = revocation.until.is_none_or(|until| now < until);
        counts.then(|| revocation.value().clone())
    }

    /// Takes them, all or up to the first that is too many: they count at once, and are on disk when this returns. What is known
    /// already is not written again. Gives what counts now. Blocks.
    pub(super) fn add(
        &self,
        revocations: Vec<Revocation>,
        now: i64,
    ) -> Result<Vec<Revocation>, RevokeError> {
        let inner = &*self.0;
        let mut file = inner.file();
        let turn = file.turn(inner);
        let mut kept = Vec::with_capacity(revocations.len());
        let mut news = Vec::new();
        let mut full = false;
        for revocation in revocations {
            if inner.count.load(Ordering::Acquire) >= MAX {
                inner.forget(now);
            }
            full = inner.count.load(Ordering::Acquire) >= MAX && !inner.knows(&revocation);
            if full {
                break;
            }
            let (one, changed) = inner.keep(&Revocation {
                issued_before: Some(revocation.issued_before.unwrap_or(now)),
                ..revocation
            });
            if changed {
                news.push(one.clone());
            }
            kept.push(one);
        }
        // They count here whether or not they can be kept.
        turn.and_then(|_turn| file.append(&news, inner))?;
        if full {
            Err(RevokeError::Full)
        } else {
            Ok(kept)
        }
    }

    /// Takes in what another process wrote, if it did. Blocks.
    pub(super) fn catch_up(&self) -> io::Result<()> {
        let mut file = self.0.file();
        if file.is_behind() {
            file.turn(&self.0)?;
        }
        Ok(())
    }

    /// Takes one back. Tells whether it was there. Blocks.
    pub(super) fn remove(&self, kind: RevocationKind, id: &str) -> Result<bool, RevokeError> {
        let inner = &*self.0;
        let mut file = inner.file();
        let _turn = file.turn(inner)?;
        if inner.of(kind).remove(id).is_none() {
            return Ok(false);
        }
        inner.count.fetch_sub(1, Ordering::AcqRel);
        file.rewrite(&inner.all())?;
        Ok(true)
    }

    /// All that count.
    pub(super) fn all(&self) -> Vec<Revocation> {
        self.0.all()
    }
}

/// By what a principal's tokens are known.
fn named(principal: &Principal) -> [(RevocationKind, Option<&str>); 3] {
    [
        (RevocationKind::Sub, Some(&*principal.name)),
        (RevocationKind::Sid, principal.sid.as_deref()),
        (RevocationKind::Jti, principal.jti.as_deref()),
    ]
}

impl Inner {
    fn of(&self, kind: RevocationKind) -> &DashMap<Box<str>, Revocation> {
        &self.by_kind[kind as usize]
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    fn knows(&self, revocation: &Revocation) -> bool {
        self.of(revocation.kind).contains_key(&*revocation.id)
    }

    fn covers(&self, kind: RevocationKind, id: &str, principal: &Principal, now: i64) -> bool {
        let Some(revocation) = self.of(kind).get(id) else {
            return false;
        };
        let is_over = revocation.until.is_some_and(|until| until <= now);
        let before = revocation.issued_before.unwrap_or(i64::MAX);
        // What does not say when it was issued may be older.
        !is_over && principal.issued_at.is_none_or(|issued| issued <= before)
    }

    /// Keeps one, together with what is known of the same thing. Gives what counts now, and whether it is something else than before.
    fn keep(&self, revocation: &Revocation) -> (Revocation, bool) {
        let mut before = None;
        let mut entry = self
            .of(revocation.kind)
            .entry(revocation.id.as_str().into())
            .and_modify(|known| {
                let joined = revocation.clone().joined(known);
                before = Some(std::mem::replace(known, joined));
            })
            .or_insert_with(|| revocation.clone());
        let kept = entry.value_mut().clone();
        drop(entry);
        self.count
            .fetch_add(usize::from(before.is_none()), Ordering::AcqRel);
        let changed = before.is_none_or(|before| before != kept);
        if changed {
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
        (kept, changed)
    }

    fn forget(&self, now: i64) {
        for kind in &self.by_kind {
            kind.retain(|_, one| {
                let over = one.until.is_some_and(|until| until <= now);
                if over {
                    self.count.fetch_sub(1, Ordering::AcqRel);
                }
                !over
            });
        }
    }

    fn all(&self) -> Vec<Revocation> {
        let kinds = self.by_kind.iter();
        kinds
            .flat_map(|kind| {
                kind.iter()
                    .map(|one| one.value().clone())
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// A thread that panicked while it held the lock left whole lines behind.
    fn file(&self) -> MutexGuard<'_, File> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl File {
    fn is_behind(&self) -> bool {
        Stamp::is_behind(self.stamp, &self.path)
    }

    /// The right to write, with what another process wrote before.
    fn turn(&mut self, inner: &Inner) -> io::Result<Turn> {
        let turn = Turn::take(&self.path)?;
        if self.is_behind() {
            let there = self.take_in(inner)?;
            // What it took back is there no more.
            for (kind, of_kind) in inner.by_kind.iter().enumerate() {
                of_kind.retain(|id, _| {
                    let stays = there.contains(&(kind, id.clone()));
                    inner.count.fetch_sub(usize::from(!stays), Ordering::AcqRel);
                    stays
                });
            }
        }
        Ok(turn)
    }

    /// Takes in all that is in the file; what that is.
    fn take_in(&mut self, inner: &Inner) -> io::Result<HashSet<(usize, Box<str>)>> {
        let stamp = Stamp::of(&self.path);
        let content = match std::fs::read(&self.path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let text = String::from_utf8_lossy(&content);
        let mut there = HashSet::new();
        // A last line that a crash cut off was never acknowledged.
        for line in text.lines().skip(1) {
            if let Ok(revocation) = serde_json::from_str::<Revocation>(line) {
                there.insert((revocation.kind as usize, revocation.id.as_str().into()));
                inner.keep(&revocation);
            }
        }
        if !content.is_empty() && !content.ends_with(b"\n") {
            // Another process was cut off: the next write makes it anew.
            self.lines = usize::MAX;
        }
        self.stamp = stamp;
        Ok(there)
    }

    fn append(&mut self, news: &[Revocation], inner: &Inner) -> io::Result<()> {
        if self.lines > 1024 && self.lines > 2 * inner.count.load(Ordering::Acquire) {
            return self.rewrite(&inner.all());
        }
        if news.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::new();
        for revocation in news {
            serde_json::to_writer(&mut lines, revocation)?;
            lines.push(b'\n');
        }
        let appended = OpenOptions::new()
            .append(true)
            .open(&self.path)
            .and_then(|mut file| {
                file.write_all(&lines)?;
                file.sync_data()
            });
        match appended {
            Ok(()) => {
                self.lines += news.len();
                self.stamp = Stamp::of(&self.path);
            }
            // It may end in half a line now, so the next write makes it anew.
            Err(_) => {
                self.lines = usize::MAX;
                self.stamp = Stamp::of(&self.path);
            }
        }
        appended
    }

    fn rewrite(&mut self, all: &[Revocation]) -> io::Result<()> {
        let mut text = format!("{HEAD}\n").into_bytes();
        for revocation in all {
            serde_json::to_writer(&mut text, revocation)?;
            text.push(b'\n');
        }
        private_file::replace(&self.path, &text)?;
        self.stamp = Stamp::of(&self.path);
        self.lines = all.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(issued_at: Option<i64>) -> Principal {
        Principal {
            name: "alice".into(),
            issuer: "https://issuer.test".into(),
            org: None,
            groups: Box::default(),
            gitspaces: None,
            ports: None,
            grants: false,
            share: None,
            sid: Some("login".into()),
            jti: Some("token".into()),
            issued_at,
            session_end: None,
        }
    }

    fn of(kind: RevocationKind, id: &str, before: i64, until: Option<i64>) -> Revocation {
        Revocation {
            kind,
            id: id.into(),
            issued_before: Some(before),
            until,
            by: None,
            reason: None,
        }
    }

    fn add(revoked: &Revoked, one: Revocation, now: i64) -> Result<Revocation, RevokeError> {
        Ok(revoked.add(vec![one], now)?.remove(0))
    }

    #[test]
    fn what_was_issued_before_is_refused_by_each_of_its_names() {
        for (kind, id) in [
            (RevocationKind::Sub, "alice"),
            (RevocationKind::Sid, "login"),
            (RevocationKind::Jti, "token"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let revoked = Revoked::load(dir.path(), 0).unwrap();
            assert_eq!(revoked.check(&principal(Some(10)), 20), Ok(()));
            add(&revoked, of(kind, id, 10, None), 10).unwrap();
            assert_eq!(
                revoked.check(&principal(Some(10)), 20),
                Err(TokenError::Revoked)
            );
            assert_eq!(
                revoked.check(&principal(None), 20),
                Err(TokenError::Revoked)
            );
            assert_eq!(revoked.check(&principal(Some(11)), 20), Ok(()));
            assert!(revoked.remove(kind, id).unwrap());
            assert_eq!(revoked.check(&principal(Some(10)), 20), Ok(()));
            assert!(!revoked.remove(kind, id).unwrap());
        }
    }

    #[test]
    fn ports_and_gitspaces_are_covered_apart() {
        let dir = tempfile::tempdir().unwrap();
        let revoked = Revoked::load(dir.path(), 0).unwrap();
        let (here, other) = ("api-k3x9q2".parse().unwrap(), "web-k3x9q2".parse().unwrap());
        add(
            &revoked,
            of(RevocationKind::Port, "api-k3x9q2/3000", 10, None),
            10,
        )
        .unwrap();
        let alice = principal(Some(5));
        assert!(revoked.covers(&alice, &here, Port::App(3000), 20));
        assert!(!revoked.covers(&alice, &here, Port::Ide, 20));
        assert!(!revoked.covers(&alice, &other, Port::App(3000), 20));
        add(
            &revoked,
            of(RevocationKind::Gitspace, "web-k3x9q2", 10, None),
            10,
        )
        .unwrap();
        assert!(revoked.covers(&alice, &other, Port::Ide, 20));
        assert_eq!(
            revoked.check(&alice, 20),
            Ok(()),
            "elsewhere the token is good"
        );
    }

    #[test]
    fn it_is_kept_over_a_restart_and_forgotten_at_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let revoked = Revoked::load(dir.path(), 0).unwrap();
        add(
            &revoked,
            of(RevocationKind::Sub, "alice", 10, Some(100)),
            10,
        )
        .unwrap();
        add(&revoked, of(RevocationKind::Jti, "other", 10, None), 10).unwrap();
        let again = Revoked::load(dir.path(), 99).unwrap();
        assert_eq!(
            again.check(&principal(Some(5)), 99),
            Err(TokenError::Revoked)
        );
        assert_eq!(again.check(&principal(Some(5)), 100), Ok(()));
        assert_eq!(Revoked::load(dir.path(), 100).unwrap().all().len(), 1);
        // A crash in the middle of a line.
        let path = dir.path().join("revocations");
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"kind\":\"s")
            .unwrap();
        assert_eq!(Revoked::load(dir.path(), 100).unwrap().all().len(), 1);
        std::fs::write(&path, "cde-gateway revocations 2\n").unwrap();
        let newer = Revoked::load(dir.path(), 0);
        assert!(matches!(newer, Err(Error::Version { found: 2, .. })));
    }

    #[test]
    fn a_second_one_for_the_same_thing_never_revokes_less() {
        let dir = tempfile::tempdir().unwrap();
        let revoked = Revoked::load(dir.path(), 0).unwrap();
        add(&revoked, of(RevocationKind::Sub, "alice", 50, None), 50).unwrap();
        let kept = add(&revoked, of(RevocationKind::Sub, "alice", 10, Some(60)), 50).unwrap();
        assert_eq!((kept.issued_before, kept.until), (Some(50), None));
        assert_eq!(revoked.all().len(), 1);
        assert_eq!(Revoked::load(dir.path(), 70).unwrap().all(), [kept]);
    }

    #[test]
    fn the_file_does_not_grow_with_every_repetition() {
        let dir = tempfile::tempdir().unwrap();
        let revoked = Revoked::load(dir.path(), 0).unwrap();
        for time in 1..3000 {
            add(&revoked, of(RevocationKind::Sub, "alice", time, None), time).unwrap();
        }
        let text = std::fs::read_to_string(dir.path().join("revocations")).unwrap();
        assert!(text.lines().count() < 1100);
        assert!(text.lines().last().unwrap().contains("2999"));
    }

    #[test]
    fn there_are_not_more_than_fit() {
        let dir = tempfile::tempdir().unwrap();
        let revoked = Revoked::load(dir.path(), 0).unwrap();
        for number in 0..MAX {
            revoked
                .0
                .keep(&of(RevocationKind::Jti, &number.to_string(), 10, Some(100)));
        }
        let more = of(RevocationKind::Jti, "more", 10, None);
        assert!(matches!(
            add(&revoked, more.clone(), 20),
            Err(RevokeError::Full)
        ));
        add(&revoked, of(RevocationKind::Jti, "7", 20, None), 20).unwrap();
        add(&revoked, more, 100).unwrap();
        assert_eq!(revoked.all().len(), 2);
    }
}
