//! Shares that were made at this gateway, beside those that come with routes: kept over a restart.
//!
//! A share is looked for only where nothing else lets somebody in, and asked for again with each request: one that was taken back,
//! revoked or is over counts no more at once. It is looked for by whom it is for: that takes as long whether a gitspace has a hundred
//! shares for others, none, or does not exist. What makes a use of a counted one, and is on disk before it counts, is that its link
//! is accepted.
//!
//! Not here: what a link looks like (`auth::visitor`), who may make a share (the admin API).

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use dashmap::DashMap;
use serde::{Deserialize, Serialize};

use super::{
    auth::{Authenticator, Invitation, Principal, replace_file, seconds},
    authorize::Candidate,
    route::Entry,
    turns::{Stamp, Turn},
};
use crate::api::{
    GitspaceId,
    access::Port,
    share::{Audience, Share},
};

const VERSION: u64 = 1;
/// So many are kept.
const MAX: usize = 10_000;
/// So many of one gitspace.
const OF_ONE_MAX: usize = 100;

/// A share that was made here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Made {
    /// Whose port.
    pub(crate) gitspace: GitspaceId,
    /// What is shared.
    pub(crate) share: Share,
    /// How often its link may be accepted. None: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) uses: Option<u32>,
    /// How often it was.
    #[serde(default)]
    pub(crate) used: u32,
    /// When it was made, seconds since 1970.
    pub(crate) made: i64,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<String>,
}

impl Made {
    fn is_used_up(&self) -> bool {
        self.uses.is_some_and(|uses| self.used >= uses)
    }
}

/// Why a share was not made, or not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShareError {
    /// There are too many.
    #[error(
        "there are {MAX} shares, {OF_ONE_MAX} of one gitspace at the most; take some back, or let them end"
    )]
    Full,
    /// Its link was accepted as often as it may be.
    #[error("the share's link was used as often as it may be")]
    UsedUp,
    /// It is gone, or over.
    #[error("the share is gone")]
    Gone,
    /// The file of a newer program, or a damaged one.
    #[error(
        "{path}: {problem}; run the newer program, or move the file away to start without its shares"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// It would not outlive a restart.
    #[error("it cannot be written to disk: {0}")]
    NotKept(#[from] io::Error),
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Shares(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    to: DashMap<To, Arc<[Made]>>,
    /// How often one was taken back.
    changes: AtomicU64,
    file: Mutex<Kept>,
}

/// The file.
#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// It as it was left here.
    stamp: Option<Stamp>,
}

/// Whose shares, for whom.
type To = (GitspaceId, Audience);

/// What is on disk.
#[derive(Serialize, Deserialize)]
struct File {
    version: u64,
    shares: Vec<Made>,
}

impl Shares {
    /// Reads what was made before a restart.
    pub(crate) fn load(state_dir: &Path, now: SystemTime) -> Result<Self, ShareError> {
        Self::load_at(state_dir, seconds(now))
    }

    fn load_at(state_dir: &Path, now: i64) -> Result<Self, ShareError> {
        let path = state_dir.join("shares.json");
        let stamp = Stamp::of(&path);
        let to = DashMap::new();
        let shares = read(&path)?;
        for made in shares.into_iter().filter(|made| made.share.counts(now)) {
            push(&to, made);
        }
        let file = Mutex::new(Kept { path, stamp });
        Ok(Self(Arc::new(Inner {
            to,
            changes: AtomicU64::new(0),
            file,
        })))
    }

    /// Takes in what another process wrote, if it did. Blocks.
    pub(crate) fn catch_up(&self) -> Result<(), ShareError> {
        let mut file = self.0.file();
        if Stamp::is_behind(file.stamp, &file.path) {
            self.0.turn(&mut file)?;
        }
        Ok(())
    }

    /// Makes one. It counts, and is on disk, when this returns. Blocks.
    pub(crate) fn add(&self, made: Made, now: i64) -> Result<(), ShareError> {
        let mut file = self.0.file();
        let _turn = self.0.turn(&mut file)?;
        self.0.forget(now);
        let all = self.all();
        let of_one = all.iter().filter(|one| one.gitspace == made.gitspace);
        if of_one.count() >= OF_ONE_MAX || all.len() >= MAX {
            return Err(ShareError::Full);
        }
        push(&self.0.to, made);
        self.0.save(&mut file)
    }

    /// Takes one back. Tells whether it was there. Blocks.
    pub(crate) fn remove(&self, id: &str) -> Result<bool, ShareError> {
        let mut file = self.0.file();
        let _turn = self.0.turn(&mut file)?;
        let Some(made) = self.all().into_iter().find(|made| *made.share.id == *id) else {
            return Ok(false);
        };
        self.0.change(&(made.gitspace, made.share.to), |of| {
            of.retain(|other| *other.share.id != *id);
        });
        self.0.changes.fetch_add(1, Ordering::AcqRel);
        self.0.save(&mut file).map(|()| true)
    }

    /// Counts that a link was accepted, where uses are counted. Blocks.
    pub(crate) fn use_once(&self, invitation: &Invitation) -> Result<(), ShareError> {
        let mut file = self.0.file();
        let _turn = self.0.turn(&mut file)?;
        let (mut found, mut counted) = (Err(ShareError::Gone), false);
        self.0.change(&invited(invitation), |of| {
            let Some(made) = of.iter_mut().find(|made| made.share.id == invitation.share) else {
                return;
            };
            if made.is_used_up() {
                found = Err(ShareError::UsedUp);
                return;
            }
            counted = made.uses.is_some();
            made.used = made.used.saturating_add(1);
            found = Ok(());
        });
        found?;
        if counted {
            self.0.save(&mut file)
        } else {
            Ok(())
        }
    }

    /// How often one was taken back since the start.
    pub(crate) fn changes(&self) -> u64 {
        self.0.changes.load(Ordering::Acquire)
    }

    /// All that were made here.
    pub(crate) fn all(&self) -> Vec<Made> {
        let to = self.0.to.iter();
        to.flat_map(|of| of.value().to_vec()).collect()
    }

    /// The share of a link: made here, or of the route.
    fn find(&self, invitation: &Invitation, entry: &Entry) -> Option<Found> {
        let is = |share: &Share| share.id == invitation.share && share.port == invitation.port;
        let made = self.0.to.get(&invited(invitation));
        let made = made.as_deref().into_iter().flat_map(|of| of.iter());
        let made = made.filter(|made| is(&made.share)).map(|made| Found {
            until: made.share.until,
            is_used_up: made.is_used_up(),
            made_here: true,
        });
        let of_route = entry.shares.to(&Audience::Link).iter();
        let of_route = of_route.filter(|share| is(share)).map(|share| Found {
            until: share.until,
            is_used_up: false,
            made_here: false,
        });
        made.chain(of_route).next()
    }
}

fn invited(invitation: &Invitation) -> To {
    (invitation.gitspace.clone(), Audience::Link)
}

impl Inner {
    /// A thread that panicked while it held the lock left whole lists behind.
    fn file(&self) -> MutexGuard<'_, Kept> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to write, with what another process wrote before.
    fn turn(&self, file: &mut Kept) -> Result<Turn, ShareError> {
        let turn = Turn::take(&file.path)?;
        if Stamp::is_behind(file.stamp, &file.path) {
            let stamp = Stamp::of(&file.path);
            let theirs = DashMap::new();
            for made in read(&file.path)? {
                push(&theirs, made);
            }
            self.to.retain(|to, _| theirs.contains_key(to));
            for (to, of) in theirs {
                self.to.insert(to, of);
            }
            file.stamp = stamp;
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
        Ok(turn)
    }

    fn change(&self, to: &To, change: impl FnOnce(&mut Vec<Made>)) {
        let Some(mut of) = self.to.get_mut(to) else {
            return;
        };
        let mut list = of.to_vec();
        change(&mut list);
        *of = list.into();
        drop(of);
        self.to.remove_if(to, |_, of| of.is_empty());
    }

    fn forget(&self, now: i64) {
        self.to.retain(|_, of| {
            if of.iter().any(|made| !made.share.counts(now)) {
                let left = of.iter().filter(|made| made.share.counts(now));
                *of = left.cloned().collect();
            }
            !of.is_empty()
        });
    }

    fn save(&self, file: &mut Kept) -> Result<(), ShareError> {
        let shares = self.to.iter().flat_map(|of| of.value().to_vec()).collect();
        let content = File {
            version: VERSION,
            shares,
        };
        let text = serde_json::to_vec(&content).map_err(io::Error::other)?;
        replace_file(&file.path, &text)?;
        file.stamp = Stamp::of(&file.path);
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<Made>, ShareError> {
    match std::fs::read(path) {
        Ok(text) => parse(&text).map_err(|problem| ShareError::Damaged {
            path: path.to_owned(),
            problem,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn parse(text: &[u8]) -> Result<Vec<Made>, String> {
    let file: File = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    match file.version {
        VERSION => Ok(file.shares),
        version => Err(format!(
            "it has the format version {version}, this program knows {VERSION}"
        )),
    }
}

fn push(to: &DashMap<To, Arc<[Made]>>, made: Made) {
    let key = (made.gitspace.clone(), made.share.to.clone());
    let mut of = to.entry(key).or_insert_with(|| [].into());
    *of = of.iter().cloned().chain([made]).collect();
}

/// The share of a link.
struct Found {
    until: Option<i64>,
    is_used_up: bool,
    made_here: bool,
}

/// What a link that may be accepted leads to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Open {
    /// When the share ends.
    pub(crate) until: Option<i64>,
    /// Whether its uses are counted here.
    pub(crate) made_here: bool,
}

/// What shares grant at a moment.
pub(crate) struct Grants<'a> {
    shares: &'a Shares,
    auth: &'a Authenticator,
    /// Seconds since 1970.
    now: i64,
}

impl<'a> Grants<'a> {
    pub(crate) fn new(shares: &'a Shares, auth: &'a Authenticator, now: SystemTime) -> Self {
        let now = seconds(now);
        Self { shares, auth, now }
    }

    /// The share by which a principal may use a port.
    pub(crate) fn grant(
        &self,
        principal: &Principal,
        candidate: Candidate<'_>,
        port: Port,
    ) -> Option<Arc<str>> {
        self.find(principal, candidate, |share| share.port == port)
    }

    /// Whether a principal may use any port of a gitspace by a share.
    pub(crate) fn any(&self, principal: &Principal, candidate: Candidate<'_>) -> bool {
        let usable = |share: &Share| {
            let ports = principal.ports.as_ref();
            candidate.entry.endpoint(share.port).is_some()
                && ports.is_none_or(|ports| ports.contains(&share.port))
        };
        self.find(principal, candidate, usable).is_some()
    }

    fn find(
        &self,
        principal: &Principal,
        candidate: Candidate<'_>,
        is_meant: impl Fn(&Share) -> bool,
    ) -> Option<Arc<str>> {
        let grants = |share: &&Share| {
            is_meant(share)
                && principal.share.as_ref().is_none_or(|id| *id == share.id)
                && self.counts(share)
        };
        let made = &self.shares.0.to;
        audiences(principal).find_map(|to| {
            if let Some(share) = candidate.entry.shares.to(&to).iter().find(grants) {
                return Some(Arc::clone(&share.id));
            }
            let made = made.get(&(candidate.gitspace.clone(), to))?;
            let share = made.iter().map(|made| &made.share).find(grants)?;
            Some(Arc::clone(&share.id))
        })
    }

    /// Whether a link may be accepted.
    pub(crate) fn open(&self, invitation: &Invitation, entry: &Entry) -> Result<Open, ShareError> {
        let found = self
            .shares
            .find(invitation, entry)
            .ok_or(ShareError::Gone)?;
        let is_over = found.until.is_some_and(|until| until <= self.now);
        if is_over || self.auth.share_revoked(&invitation.share, self.now) {
            return Err(ShareError::Gone);
        }
        if found.is_used_up {
            return Err(ShareError::UsedUp);
        }
        Ok(Open {
            until: found.until,
            made_here: found.made_here,
        })
    }

    fn counts(&self, share: &Share) -> bool {
        share.counts(self.now) && !self.auth.share_revoked(&share.id, self.now)
    }
}

/// For whom shares are that let a principal in. A visitor has that of its link only.
fn audiences(principal: &Principal) -> impl Iterator<Item = Audience> {
    let visitor = principal.share.is_some();
    let link = visitor.then_some(Audience::Link);
    let named = (!visitor).then(|| Audience::User(Arc::clone(&principal.name)));
    let groups = principal.groups.iter().cloned().map(Audience::Group);
    let org = principal.org.clone().map(Audience::Organization);
    link.into_iter().chain(named).chain(groups).chain(org)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(gitspace: &str, id: &str, uses: Option<u32>, until: Option<i64>) -> Made {
        Made {
            gitspace: gitspace.parse().unwrap(),
            share: Share {
                id: id.into(),
                port: Port::App(3000),
                to: Audience::Link,
                until,
            },
            uses,
            used: 0,
            made: 0,
            by: None,
        }
    }

    fn invitation(id: &str) -> Invitation {
        Invitation {
            share: id.into(),
            gitspace: "api-k3x9q2".parse().unwrap(),
            port: Port::App(3000),
        }
    }

    #[test]
    fn what_was_made_and_used_is_kept_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let shares = Shares::load_at(dir.path(), 0).unwrap();
        shares
            .add(made("api-k3x9q2", "one", Some(2), None), 0)
            .unwrap();
        shares
            .add(made("api-k3x9q2", "over", None, Some(10)), 0)
            .unwrap();
        shares.use_once(&invitation("one")).unwrap();

        let again = Shares::load_at(dir.path(), 10).unwrap();
        assert_eq!(again.all().len(), 1);
        again.use_once(&invitation("one")).unwrap();
        let used_up = again.use_once(&invitation("one"));
        assert!(matches!(used_up, Err(ShareError::UsedUp)));
        assert!(again.remove("one").unwrap() && !again.remove("one").unwrap());
        assert!(matches!(
            again.use_once(&invitation("one")),
            Err(ShareError::Gone)
        ));
        assert!(Shares::load_at(dir.path(), 10).unwrap().all().is_empty());
    }

    #[test]
    fn uses_at_once_are_never_more_than_there_may_be() {
        let dir = tempfile::tempdir().unwrap();
        let shares = Shares::load_at(dir.path(), 0).unwrap();
        shares
            .add(made("api-k3x9q2", "one", Some(5), None), 0)
            .unwrap();
        let good = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..20)
                .map(|_| scope.spawn(|| shares.use_once(&invitation("one")).is_ok()))
                .collect();
            let ended = threads.into_iter().map(|thread| thread.join().unwrap());
            ended.filter(|good| *good).count()
        });
        assert_eq!(good, 5);
    }

    #[test]
    fn they_are_bounded_and_those_that_are_over_make_room() {
        let dir = tempfile::tempdir().unwrap();
        let shares = Shares::load_at(dir.path(), 0).unwrap();
        for number in 0..OF_ONE_MAX {
            push(
                &shares.0.to,
                made("api-k3x9q2", &number.to_string(), None, Some(10)),
            );
        }
        let more = shares.add(made("api-k3x9q2", "more", None, None), 9);
        assert!(matches!(more, Err(ShareError::Full)));
        shares
            .add(made("api-k3x9q2", "more", None, None), 10)
            .unwrap();
        assert_eq!(shares.all().len(), 1);
    }

    #[test]
    fn the_file_of_a_newer_program_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("shares.json"),
            r#"{"version":2,"shares":[]}"#,
        )
        .unwrap();
        let error = Shares::load_at(dir.path(), 0).unwrap_err().to_string();
        assert!(
            error.contains("shares.json") && error.contains("version 2"),
            "{error}"
        );
    }
}
