//! Key sets that issuers publish at a URL: when one is fetched, and how long it counts.
//!
//! A set is fetched on a schedule and, rate-limited, when a token names a key that it does not have. An issuer that is down
//! changes nothing until its last set is too old; that set is on disk too, so a restart does not lose it. A fetch that gives
//! no usable key is a failed one. The URL is the configured one: nothing in a token steers it.
//!
//! Not here: when each fetch is begun (`follow`), the request itself (`fetch`), the file (`kept`), and what the keys are used for (`keys`).

mod fetch;
mod follow;
mod kept;

use std::{
    collections::HashSet,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};

use super::{
    error::Error,
    keys::{Key, key_set},
};
use crate::config;

use fetch::Source;
pub(super) use follow::{Metrics, follow};
use kept::Kept;

/// An issuer that does not answer is asked again after so long, then after twice that, and so on.
const RETRY_FIRST: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Tokens with unknown keys may cause so many fetches at once, and one more in each period.
const ASKED_BURST: u32 = 3;
const ASKED_PERIOD: Duration = Duration::from_secs(20);
/// Names of keys that the issuer was asked for in vain; beyond, they are forgotten and cost fetches of the allowance again.
const ABSENT_MAX: usize = 256;
/// So many names one fetch is remembered to have been for.
const WANTED_MAX: usize = 32;
/// How long a request waits for a fetch. The fetch itself may take longer.
const WAIT: Duration = Duration::from_secs(3);

/// One published key set.
#[derive(Debug)]
pub(super) struct Published {
    issuer: Box<str>,
    url: Box<str>,
    refresh: Duration,
    stale: Duration,
    source: Source,
    kept: Kept,
    /// Wakes who fetches.
    wake: Arc<Notify>,
    /// Changes when a fetch has ended.
    ended: watch::Sender<u64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    set: Option<Set>,
    /// None: at once.
    next: Option<Instant>,
    fetching: bool,
    /// How many fetches in a row failed.
    failures: u32,
    /// A token wants a key: fetch before the time.
    asked: bool,
    /// When the allowance for such fetches will be whole again.
    allowance: Option<Instant>,
    /// Keys that were wanted while a fetch was under way or is to come.
    wanted: HashSet<Box<str>>,
    /// Keys that the issuer does not have.
    absent: HashSet<Box<str>>,
}

#[derive(Debug)]
struct Set {
    json: Vec<u8>,
    keys: Arc<[Key]>,
    /// Seconds since 1970: it is compared over a restart.
    fetched: i64,
}

impl Published {
    /// The set at the issuer's URL, with what was kept of it. None: the issuer publishes none.
    pub(super) fn of(
        config: &config::Issuer,
        state_dir: &Path,
        wake: &Arc<Notify>,
        now: i64,
    ) -> Result<Option<Self>, Error> {
        let Some(url) = &config.jwks_url else {
            return Ok(None);
        };
        let kept = Kept::new(state_dir, url);
        let published = Self {
            issuer: config.issuer.as_str().into(),
            url: url.as_str().into(),
            refresh: config.jwks_refresh,
            stale: config.jwks_stale,
            source: Source::new(url, config.jwks_ca_file.as_deref())?,
            kept,
            wake: Arc::clone(wake),
            ended: watch::Sender::new(0),
            state: Mutex::new(State {
                set: None,
                next: None,
                fetching: false,
                failures: 0,
                asked: false,
                allowance: None,
                wanted: HashSet::new(),
                absent: HashSet::new(),
            }),
        };
        if let Some((fetched, json)) = published.kept.read()? {
            published.restore(fetched, json, now);
        }
        Ok(Some(published))
    }

    /// Takes a set from the disk, if it is not too old.
    fn restore(&self, fetched: i64, json: Vec<u8>, now: i64) {
        match self.read(json, fetched.min(now)) {
            Ok(set) => self.lock().set = Some(set),
            Err(error) => {
                tracing::warn!(%error, "a kept key set cannot be used; it is fetched again")
            }
        }
    }

    /// Whether it is what the configuration says now.
    pub(super) fn fits(&self, config: &config::Issuer) -> bool {
        config.issuer == *self.issuer
            && config.jwks_url.as_deref() == Some(&*self.url)
            && config.jwks_refresh == self.refresh
            && config.jwks_stale == self.stale
            && self.source.fits(config.jwks_ca_file.as_deref())
    }

    /// Its keys; none if there is no set, or only one that is too old.
    pub(super) fn keys(&self, now: i64) -> Arc<[Key]> {
        let state = self.lock();
        let fresh = state.set.as_ref().filter(|set| !self.is_stale(set, now));
        fresh.map_or_else(Arc::default, |set| Arc::clone(&set.keys))
    }

    fn is_stale(&self, set: &Set, now: i64) -> bool {
        now.saturating_sub(set.fetched) >= self.stale_seconds()
    }

    fn stale_seconds(&self) -> i64 {
        i64::try_from(self.stale.as_secs()).unwrap_or(i64::MAX)
    }

    /// When its set was fetched, in seconds since 1970. None: there is none.
    fn fetched(&self) -> Option<i64> {
        self.lock().set.as_ref().map(|set| set.fetched)
    }

    /// Whether its set has just become too old: it is told once.
    fn has_ended(&self, now: i64) -> bool {
        let mut state = self.lock();
        let ended = state
            .set
            .as_ref()
            .is_some_and(|set| self.is_stale(set, now));
        if ended {
            state.set = None;
            tracing::error!(issuer = %self.issuer, "an issuer's keys are too old to be used: its tokens are refused until it is up again");
        }
        ended
    }

    /// Puts its set on disk. Blocks.
    fn keep(&self) -> io::Result<()> {
        let set = self
            .lock()
            .set
            .as_ref()
            .map(|set| (set.fetched, set.json.clone()));
        set.map_or(Ok(()), |(fetched, json)| self.kept.write(fetched, &json))
    }

    fn read(&self, json: Vec<u8>, now: i64) -> Result<Set, Error> {
        let keys = key_set(&self.url, &json)?.into();
        Ok(Set {
            json,
            keys,
            fetched: now,
        })
    }

    /// Tells those who wait that a fetch has ended.
    fn tell(&self) {
        self.ended.send_modify(|number| *number += 1);
    }

    /// Waits for a fetch, because a token names a key that is not there. Tells whether one has ended, so that it is worth
    /// looking again: not if the issuer said before that it has no such key, or was asked too often.
    pub(super) async fn ask_for(&self, kid: &str, now: Instant) -> bool {
        let mut ended = self.ended.subscribe();
        if !self.wants(kid, now) {
            return false;
        }
        self.wake.notify_one();
        matches!(
            tokio::time::timeout(WAIT, ended.changed()).await,
            Ok(Ok(()))
        )
    }

    fn wants(&self, kid: &str, now: Instant) -> bool {
        let mut state = self.lock();
        if state.absent.contains(kid) {
            return false;
        }
        if !state.fetching && !state.asked {
            if !state.allow(now) {
                return false;
            }
            state.asked = true;
        }
        if state.wanted.len() < WANTED_MAX {
            state.wanted.insert(kid.into());
        }
        true
    }

    /// Begins a fetch if one is due.
    fn begin(&self, now: Instant) -> bool {
        let mut state = self.lock();
        let due = state.asked || state.next.is_none_or(|next| next <= now);
        if state.fetching || !due {
            return false;
        }
        state.fetching = true;
        state.asked = false;
        true
    }

    /// When there is something to do: the next fetch, or the end of a set.
    fn next(&self, now: Instant, wall: i64) -> Option<Instant> {
        let state = self.lock();
        let fetch = (!state.fetching).then(|| state.next.unwrap_or(now));
        let end = state.set.as_ref().and_then(|set| {
            let left = set
                .fetched
                .saturating_add(self.stale_seconds())
                .saturating_sub(wall);
            // One second more: what is not over at its last second is over at the next.
            let left = u64::try_from(left).ok().filter(|left| *left > 0)?;
            now.checked_add(Duration::from_secs(left + 1))
        });
        fetch.into_iter().chain(end).min()
    }

    /// Ends a fetch. Tells whether the keys are others than before.
    fn end(&self, set: Result<Set, Error>, now: Instant, wall: i64) -> bool {
        let mut state = self.lock();
        state.fetching = false;
        let wanted = std::mem::take(&mut state.wanted);
        match set {
            Ok(set) => {
                let others = |known: &Set| known.json != set.json || self.is_stale(known, wall);
                let changed = state.set.as_ref().is_none_or(others);
                let scheduled = state.next.is_none_or(|next| next <= now);
                if scheduled || changed || state.absent.len() + wanted.len() > ABSENT_MAX {
                    state.absent.clear();
                }
                let has = |kid: &str| set.keys.iter().any(|key| key.is_named(kid));
                state
                    .absent
                    .extend(wanted.into_iter().filter(|kid| !has(kid)));
                state.failures = 0;
                state.next = now.checked_add(self.refresh);
                state.set = Some(set);
                changed
            }
            Err(error) => {
                let pause = RETRY_FIRST.saturating_mul(1 << state.failures.min(8));
                let pause = pause.min(RETRY_MAX).min(self.refresh);
                state.failures = state.failures.saturating_add(1);
                state.next = now.checked_add(pause);
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    age = state
                        .set
                        .as_ref()
                        .map(|set| wall.saturating_sub(set.fetched)),
                    "cannot fetch an issuer's keys; the last ones count until they are too old"
                );
                false
            }
        }
    }

    /// What it holds is taken apart and put back as a whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes one of the fetches that tokens may cause.
    fn allow(&mut self, now: Instant) -> bool {
        let whole = self.allowance.map_or(now, |whole| whole.max(now));
        if whole.duration_since(now) > ASKED_PERIOD * (ASKED_BURST - 1) {
            return false;
        }
        self.allowance = whole.checked_add(ASKED_PERIOD);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1","alg":"EdDSA","use":"sig",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    fn published(dir: &Path, now: i64) -> Published {
        let config = "issuer = \"https://a.test\"\njwks_url = \"http://127.0.0.1:1/\"";
        let config = toml::from_str(config).unwrap();
        let wake = Arc::default();
        Published::of(&config, dir, &wake, now).unwrap().unwrap()
    }

    fn set(published: &Published, json: &str, now: i64) -> Result<Set, Error> {
        published.read(json.into(), now)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_fetch_is_due_at_once_then_with_every_refresh_and_never_twice() {
        let dir = tempfile::tempdir().unwrap();
        let published = published(dir.path(), 0);
        let start = Instant::now();
        assert!(published.begin(start));
        assert!(!published.begin(start), "one at a time");
        assert_eq!(published.next(start, 0), None);
        assert!(published.end(set(&published, SET, 0), start, 0));
        assert!(!published.begin(start + seconds(599)));
        assert_eq!(published.next(start, 0), Some(start + seconds(600)));
        assert!(published.begin(start + seconds(600)));
        let later = start + seconds(600);
        assert!(
            !published.end(set(&published, SET, 600), later, 600),
            "the same keys"
        );
        assert!(published.begin(later + seconds(600)));
        let other = SET.replace("\"1\"", "\"2\"");
        assert!(published.end(set(&published, &other, 1200), later, 1200));
    }

    #[test]
    fn an_issuer_that_is_down_is_asked_less_and_less_often() {
        let dir = tempfile::tempdir().unwrap();
        let published = published(dir.path(), 0);
        let mut now = Instant::now();
        for pause in [5, 10, 20, 40, 60, 60] {
            assert!(published.begin(now));
            assert!(!published.end(set(&published, "{}", 0), now, 0));
            assert!(!published.begin(now + seconds(pause - 1)), "{pause}");
            now += seconds(pause);
        }
        assert!(published.begin(now));
        assert!(published.end(set(&published, SET, 0), now, 0));
        assert_eq!(published.next(now, 0), Some(now + seconds(600)));
    }

    #[test]
    fn tokens_may_cause_a_few_fetches_and_then_one_in_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let published = published(dir.path(), 0);
        let start = Instant::now();
        assert!(published.begin(start));
        assert!(published.end(set(&published, SET, 0), start, 0));
        let fetched_for = |kid: &str, now: Instant| {
            let wanted = published.wants(kid, now);
            if wanted {
                assert!(published.begin(now));
                published.end(set(&published, SET, 0), now, 0);
            }
            wanted
        };
        for kid in ["a", "b", "c"] {
            assert!(fetched_for(kid, start), "{kid}");
            assert!(!fetched_for(kid, start), "{kid} is known not to be there");
        }
        assert!(!fetched_for("d", start));
        assert!(!fetched_for("d", start + ASKED_PERIOD - seconds(1)));
        assert!(fetched_for("d", start + ASKED_PERIOD));
        assert!(!fetched_for("e", start + ASKED_PERIOD));
        // A scheduled fetch forgets what was not there: it may be now.
        let later = start + ASKED_PERIOD + seconds(600);
        assert!(published.begin(later));
        published.end(set(&published, SET, 0), later, 0);
        assert!(fetched_for("a", later));
    }

    #[test]
    fn who_asks_while_a_fetch_is_under_way_waits_for_that_one() {
        let dir = tempfile::tempdir().unwrap();
        let published = published(dir.path(), 0);
        let now = Instant::now();
        assert!(published.begin(now));
        for number in 0..1000 {
            assert!(published.wants(&format!("k{number}"), now));
        }
        assert!(published.lock().wanted.len() <= WANTED_MAX);
        published.end(set(&published, SET, 0), now, 0);
        assert!(published.lock().absent.len() <= WANTED_MAX);
        assert!(!published.begin(now), "nobody asked for another one");
    }

    #[test]
    fn names_that_were_asked_for_in_vain_take_no_memory_without_bound() {
        let dir = tempfile::tempdir().unwrap();
        let published = published(dir.path(), 0);
        let mut now = Instant::now();
        assert!(published.begin(now));
        published.end(set(&published, SET, 0), now, 0);
        for round in 0..1000 {
            now += Duration::from_millis(1);
            published.lock().allowance = None;
            assert!(published.wants(&format!("k{round}"), now));
            assert!(published.begin(now));
            published.end(set(&published, SET, 0), now, 0);
        }
        assert!(published.lock().absent.len() <= ABSENT_MAX);
    }

    #[test]
    fn a_set_counts_until_it_is_too_old_and_is_then_gone_once() {
        const DAY: i64 = 24 * 3600;
        let dir = tempfile::tempdir().unwrap();
        let published = published(dir.path(), 0);
        let now = Instant::now();
        assert!(published.begin(now));
        published.end(set(&published, SET, 100), now, 100);
        assert_eq!(published.keys(100 + DAY - 1).len(), 1);
        assert!(!published.has_ended(100 + DAY - 1));
        assert_eq!(published.keys(100 + DAY).len(), 0);
        assert!(published.has_ended(100 + DAY));
        assert!(!published.has_ended(100 + DAY));
    }

    #[test]
    fn what_is_on_disk_counts_after_a_restart_for_as_long_as_it_would_have() {
        let dir = tempfile::tempdir().unwrap();
        let before = published(dir.path(), 0);
        before.end(set(&before, SET, 100), Instant::now(), 100);
        before.keep().unwrap();
        assert_eq!(published(dir.path(), 200).fetched(), Some(100));
        // A clock that was wrong makes nothing last longer.
        assert_eq!(published(dir.path(), 50).fetched(), Some(50));
        let file = dir.path().join("issuers").read_dir().unwrap().next();
        let path = file.unwrap().unwrap().path();
        std::fs::write(&path, "{").unwrap();
        assert_eq!(published(dir.path(), 200).fetched(), None);
        std::fs::write(&path, r#"{"version":2,"url":"","fetched":1,"jwks":""}"#).unwrap();
        let config = "issuer = \"https://a.test\"\njwks_url = \"http://127.0.0.1:1/\"";
        let config = toml::from_str(config).unwrap();
        let newer = Published::of(&config, dir.path(), &Arc::default(), 0);
        assert!(matches!(newer, Err(Error::Version { found: 2, .. })));
    }
}
