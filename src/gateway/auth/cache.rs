//! Verified tokens and sessions, so that no signature is checked twice.
//!
//! The key is a SHA-256, never the token. An entry belongs to the generation of the key set that verified it: another
//! generation finds nothing. Nothing is found past its end, bad tokens are not kept, and the number is bounded.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};

use super::{error::TokenError, principal::Principal};

/// Entries kept; about 300 bytes each.
const ENTRIES: usize = 20_000;

/// What stands for a token, or for a session cookie at its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Digest([u8; 32]);

impl Digest {
    pub(super) fn token(token: &[u8]) -> Self {
        Self::of(b"token", &[], token)
    }

    pub(super) fn session(cookie: &[u8], host: &str) -> Self {
        Self::of(b"session", host.as_bytes(), cookie)
    }

    /// No host holds a zero byte, so the pieces cannot run into each other.
    pub(super) fn of(kind: &[u8], place: &[u8], text: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        for piece in [kind, b"\0", place, b"\0", text] {
            context.update(piece);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        Self(digest)
    }
}

/// A verified token or session.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) principal: Arc<Principal>,
    /// Until when it holds.
    pub(super) until: i64,
    /// From when on a session's use makes it hold longer. Tokens never do.
    pub(super) renew_at: i64,
    pub(super) generation: u64,
}

impl Entry {
    /// Whether its time is not over.
    pub(super) fn check_time(&self, now: i64) -> Result<(), TokenError> {
        if now < self.until {
            Ok(())
        } else {
            Err(TokenError::Expired {
                since: now.saturating_sub(self.until),
            })
        }
    }
}

/// The verified tokens.
#[derive(Debug)]
pub(super) struct Cache(quick_cache::sync::Cache<Digest, Entry>);

impl Cache {
    pub(super) fn new() -> Self {
        Self(quick_cache::sync::Cache::new(ENTRIES))
    }

    /// The entry, also if its time is over: the caller says so without verifying again.
    pub(super) fn find(&self, digest: &Digest, generation: u64) -> Option<Entry> {
        self.0
            .get(digest)
            .filter(|entry| entry.generation == generation)
    }

    pub(super) fn insert(&self, digest: Digest, entry: Entry) {
        self.0.insert(digest, entry);
    }

    /// Gives the memory back; generations already make old entries unfindable.
    pub(super) fn clear(&self) {
        self.0.clear();
    }
}
