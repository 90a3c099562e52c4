//! Tickets: exchanged once for a session.
//!
//! The first redemption wins. This gateway remembers its own on disk until they are over; with a control plane, that one
//! decides for all gateways. Away, or alone: once per gateway. All of this is off the data path.
//!
//! While one process hands over to the next, both redeem: the file decides (`turns`).

use std::{
    collections::{HashMap, HashSet},
    fs::OpenOptions,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use http::StatusCode;

use super::{
    claims::LEEWAY,
    error::{Error, TokenError},
    principal::Principal,
    private_file,
};
use crate::{
    api::{Secret, feed::Redeem, revocation::Revocation},
    gateway::turns::{Stamp, Turn},
};

const HEAD: &str = "cde-gateway used tickets 1";
/// Tickets that may be remembered at once; beyond, tickets are refused until old ones are over (minutes).
const USED_MAX: usize = 100_000;
const LINK_TIMEOUT: Duration = Duration::from_secs(3);

/// A ticket on a navigation, verified but not redeemed yet.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// Who it is for, with the one gitspace and port.
    pub principal: Arc<Principal>,
    /// The same URL without the ticket: a path and query on the same host, to redirect to.
    pub location: String,
    /// Who another carrier (a session from before) says it is, for the case that the ticket turns out to be used: a
    /// reloaded page. With whether it came in a cookie.
    pub otherwise: Option<(Arc<Principal>, bool)>,
    pub(super) subject: String,
    pub(super) jti: String,
    pub(super) expires: i64,
    /// Whether the control plane itself issued it.
    pub(super) from_feed: bool,
}

impl Ticket {
    /// What is redeemed: the identifier, as it is for the control plane's own; for others one that cannot meet them.
    fn redeem(&self) -> Redeem {
        let jti = match self.from_feed {
            true => self.jti.clone(),
            false => hex(&self.record()),
        };
        Redeem {
            jti,
            exp: self.expires,
        }
    }

    fn record(&self) -> [u8; 32] {
        let hash = digest(
            &SHA256,
            format!("{}\0{}", self.principal.issuer, self.jti).as_bytes(),
        );
        let mut record = [0; 32];
        record.copy_from_slice(hash.as_ref());
        record
    }
}

/// The control plane that decides which redemption was first, and passes on to all what one of its gateways revokes.
#[derive(Debug, Clone)]
pub struct Link {
    client: reqwest::Client,
    url: String,
    token: Secret,
}

enum Answer {
    First,
    Used,
    Away(String),
}

impl Link {
    /// To the control plane at `url`, with the gateway's token.
    pub fn new(client: reqwest::Client, url: &str, token: Secret) -> Self {
        Self {
            client,
            url: url.trim_end_matches('/').to_owned(),
            token,
        }
    }

    async fn ask(&self, ticket: &Redeem) -> Answer {
        let request = self
            .client
            .post(format!("{}/v1/feed/redeem", self.url))
            .bearer_auth(self.token.reveal())
            .timeout(LINK_TIMEOUT)
            .json(ticket);
        match request.send().await.map(|answer| answer.status()) {
            Ok(StatusCode::OK) => Answer::First,
            Ok(StatusCode::CONFLICT) => Answer::Used,
            Ok(other) => Answer::Away(format!("answered {other}")),
            Err(error) => Answer::Away(error.without_url().to_string()),
        }
    }

    /// Passes a revocation on, or tells why that failed.
    pub(crate) async fn revoke(&self, revocation: &Revocation) -> Result<(), String> {
        let request = self
            .client
            .post(format!("{}/v1/feed/revoke", self.url))
            .bearer_auth(self.token.reveal())
            .timeout(LINK_TIMEOUT)
            .json(revocation);
        match request.send().await.map(|answer| answer.status()) {
            Ok(status) if status.is_success() => Ok(()),
            Ok(status) => Err(format!("the control plane answered {status}")),
            Err(error) => {
                let error = error.without_url();
                Err(format!("the control plane cannot be reached: {error}"))
            }
        }
    }
}

/// Which tickets were used at this gateway.
#[derive(Debug)]
pub(super) struct Redeemer {
    used: Arc<Mutex<Used>>,
}

impl Redeemer {
    /// Reads what was used before a restart.
    pub(super) fn load(state_dir: &Path, now: i64) -> Result<Self, Error> {
        Ok(Self {
            used: Arc::new(Mutex::new(Used::load(state_dir.join("used-tickets"), now)?)),
        })
    }

    /// Redeems a ticket; the first one wins.
    pub(super) async fn redeem(
        &self,
        ticket: &Ticket,
        link: Option<&Link>,
        now: i64,
    ) -> Result<(), TokenError> {
        self.record(ticket.record(), ticket.expires, now).await?;
        let Some(link) = link else {
            return Ok(());
        };
        match link.ask(&ticket.redeem()).await {
            Answer::First => Ok(()),
            Answer::Used => Err(TokenError::TicketUsed),
            Answer::Away(problem) => {
                tracing::warn!(
                    problem,
                    "the control plane could not redeem a ticket; it counts once at this gateway"
                );
                Ok(())
            }
        }
    }

    /// In memory at once, so that a second one loses; on disk before it counts.
    async fn record(&self, record: [u8; 32], expires: i64, now: i64) -> Result<(), TokenError> {
        lock(&self.used).first(record, expires.saturating_add(LEEWAY), now)?;
        let used = Arc::clone(&self.used);
        let written = tokio::task::spawn_blocking(move || lock(&used).write(now)).await;
        match written
            .map_err(io::Error::other)
            .and_then(|written| written)
        {
            Ok(()) if lock(&self.used).lost.remove(&record) => Err(TokenError::TicketUsed),
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::error!(%error, "cannot record that a ticket was used; tickets are refused");
                Err(TokenError::Unrecorded)
            }
        }
    }
}

/// A thread that panicked while it held the lock left whole entries behind.
fn lock(used: &Mutex<Used>) -> MutexGuard<'_, Used> {
    used.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Used {
    path: PathBuf,
    /// Until when each counts as used.
    until: HashMap<[u8; 32], i64>,
    /// Not on disk yet.
    pending: Vec<([u8; 32], i64)>,
    /// Pending ones that another process had written before. Whoever waits for one of them takes it out.
    lost: HashSet<[u8; 32]>,
    /// The file as it was left here.
    stamp: Option<Stamp>,
    /// Lines in the file, the ones that are over included.
    lines: usize,
}

impl Used {
    fn load(path: PathBuf, now: i64) -> Result<Self, Error> {
        let content = private_file::read(&path)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&content);
        let mut lines = text.lines();
        let head = lines.next().unwrap_or(HEAD);
        if head != HEAD {
            let found = head
                .rsplit(' ')
                .next()
                .and_then(|number| number.parse().ok())
                .unwrap_or(0);
            return Err(Error::Version {
                path,
                found,
                known: 1,
            });
        }
        // A last line that a crash cut off was never acknowledged.
        let until = lines
            .filter_map(parse_line)
            .filter(|(_, until)| *until > now)
            .collect();
        let mut used = Self {
            path,
            until,
            pending: Vec::new(),
            lost: HashSet::new(),
            stamp: None,
            lines: 0,
        };
        let turn = Turn::take(&used.path);
        turn.and_then(|_turn| {
            // What another process wrote since this one has read.
            used.catch_up(now)?;
            used.rewrite()
        })
        .map_err(|source| Error::Write {
            path: used.path.clone(),
            source,
        })?;
        Ok(used)
    }

    fn first(&mut self, record: [u8; 32], until: i64, now: i64) -> Result<(), TokenError> {
        if self.until.len() >= USED_MAX {
            self.until.retain(|_, until| *until > now);
        }
        if self.until.contains_key(&record) {
            return Err(TokenError::TicketUsed);
        }
        if self.until.len() >= USED_MAX {
            return Err(TokenError::Unrecorded);
        }
        self.until.insert(record, until);
        self.pending.push((record, until));
        Ok(())
    }

    /// Writes what is pending, others' too: one sync for all that came meanwhile.
    fn write(&mut self, now: i64) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let _turn = Turn::take(&self.path)?;
        if Stamp::is_behind(self.stamp, &self.path) {
            self.catch_up(now)?;
        }
        if self.lines > 1024 && self.lines > 2 * self.until.len() {
            self.until.retain(|_, until| *until > now);
            return self.rewrite();
        }
        let appended = self.append();
        if appended.is_ok() {
            self.lines += self.pending.len();
            self.pending.clear();
        } else {
            // It may end in half a line now, so the next write makes it anew.
            self.lines = usize::MAX;
            self.stamp = Stamp::of(&self.path);
        }
        appended
    }

    /// Takes in what another process wrote: of what both had, it was first.
    fn catch_up(&mut self, now: i64) -> io::Result<()> {
        let text = match std::fs::read(&self.path) {
            Ok(content) => String::from_utf8_lossy(&content).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let (mut theirs, mut lines) = (HashSet::new(), 0);
        for (record, until) in text.lines().skip(1).filter_map(parse_line) {
            lines += 1;
            theirs.insert(record);
            if until > now {
                self.until.insert(record, until);
            }
        }
        let is_whole = text.is_empty() || text.ends_with('\n');
        // Where somebody was cut off, the next write makes it anew.
        self.lines = if is_whole { lines } else { usize::MAX };
        let (lost, pending) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|(record, _)| theirs.contains(record));
        self.pending = pending;
        let lost: Vec<([u8; 32], i64)> = lost;
        self.lost.extend(lost.into_iter().map(|(record, _)| record));
        Ok(())
    }

    fn append(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let text: String = self.pending.iter().map(line).collect();
        let mut file = OpenOptions::new().append(true).open(&self.path)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        self.stamp = Stamp::of(&self.path);
        Ok(())
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let mut text = format!("{HEAD}\n");
        text.extend(
            self.until
                .iter()
                .map(|(record, until)| line(&(*record, *until))),
        );
        private_file::replace(&self.path, text.as_bytes())?;
        self.stamp = Stamp::of(&self.path);
        self.lines = self.until.len();
        self.pending.clear();
        Ok(())
    }
}

fn line((record, until): &([u8; 32], i64)) -> String {
    format!("{until} {}\n", hex(record))
}

fn parse_line(line: &str) -> Option<([u8; 32], i64)> {
    let (until, record) = line.split_once(' ')?;
    if record.len() != 64 || !record.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&record[2 * index..2 * index + 2], 16).ok()?;
    }
    Some((bytes, until.parse().ok()?))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
