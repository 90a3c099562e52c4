//! What can go wrong: [`Error`] for what the operator gave us (files, configuration), [`TokenError`] for what a client sent.
//!
//! Texts of a [`TokenError`] go to the log and to `token inspect`, never to the client.

use std::{io, path::PathBuf};

use super::token::TOKEN_MAX;

/// Why keys or settings could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {path}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An issuer without a key.
    #[error(
        "issuer {0:?} has no key: set `jwks_url` or `jwks_file`, or add a [[gateway.issuer.key]]"
    )]
    NoKey(String),
    /// A key entry that names no file, two, or the wrong kind.
    #[error("issuer {issuer:?}, key {id:?}: {algorithm} needs `{needed}` and nothing else")]
    KeyFile {
        /// Whose key.
        issuer: String,
        /// The key's `id`.
        id: String,
        /// Its algorithm.
        algorithm: &'static str,
        /// Which setting must stand there.
        needed: &'static str,
    },
    /// A PEM file that holds no such key.
    #[error(
        "{path} holds no {algorithm} public key that can be used: {problem}; `openssl pkey -in private.pem -pubout` writes one"
    )]
    PublicKey {
        /// Which file.
        path: PathBuf,
        /// What was looked for.
        algorithm: &'static str,
        /// What was found.
        problem: String,
    },
    /// A shared secret that can be guessed.
    #[error(
        "the secret in {path} has {found} bytes, HS256 needs at least {min}; `openssl rand -base64 48` makes one"
    )]
    ShortSecret {
        /// Which file.
        path: PathBuf,
        /// How many bytes there were.
        found: usize,
        /// How many must be.
        min: usize,
    },
    /// A text that is no key set.
    #[error("{from} is no JWK set (RFC 7517)")]
    KeySet {
        /// Where it came from.
        from: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A key set in which nothing can be used.
    #[error(
        "{0} holds no key that can be used: ES256 (P-256), EdDSA (Ed25519) and RS256 (2048 bits or more) can"
    )]
    NoUsableKey(String),
    /// A key set that could not be fetched.
    #[error("cannot fetch the key set {url}: {problem}")]
    Fetch {
        /// From where.
        url: String,
        /// Why.
        problem: String,
    },
    /// A file without a certificate.
    #[error("{0} holds no certificate (PEM) that could be an authority")]
    Authorities(PathBuf),
    /// Two keys with one `kid`.
    #[error("issuer {issuer:?} has two keys with the id {id:?}")]
    DoubledKey {
        /// Whose keys.
        issuer: String,
        /// Their `kid`.
        id: String,
    },
    /// One `iss` twice.
    #[error(
        "issuer {0:?} is configured twice (the control plane's own keys come by the feed and need no entry)"
    )]
    DoubledIssuer(String),
    /// Two issuers whose principals could be mistaken for each other.
    #[error(
        "issuers {one:?} and {other:?} have the same prefix {prefix:?}, so their users could not be told apart; set another [[gateway.issuer]] prefix"
    )]
    DoubledPrefix {
        /// One of them.
        one: String,
        /// The other.
        other: String,
        /// What they share.
        prefix: String,
    },
    /// A name that cannot be a token cookie.
    #[error("`gateway.auth.token_cookies`: {0:?} cannot be used; name a cookie of another program")]
    TokenCookie(String),
    /// Secrets that others can read.
    #[error("{path} can be read by others (mode {mode:03o}); run `chmod 600` on it")]
    Mode {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Written by a newer program.
    #[error(
        "{path} has the format version {found}, this program knows {known}; run the newer program, or move the file away"
    )]
    Version {
        /// Which file.
        path: PathBuf,
        /// What it says.
        found: u64,
        /// What we write.
        known: u64,
    },
    /// A file of ours that is damaged.
    #[error("{path} is damaged: {problem}; restore it, or move it away to have a new one made")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The system gave no random bytes, or no key could be made of them.
    #[error("cannot make a key: {0}")]
    MakeKey(String),
}

/// Why a token was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// More than we read.
    #[error("the token has {0} bytes, at most {TOKEN_MAX} are read")]
    TooLong(usize),
    /// Not three parts of base64url with JSON in them.
    #[error("this is no signed token (JWT): {0}")]
    Malformed(&'static str),
    /// The request's target could not be written again without the token.
    #[error("the request's target cannot be written without its token")]
    Target,
    /// A member twice.
    #[error("the member {0:?} is there twice")]
    Doubled(String),
    /// `crit`.
    #[error("the header has `crit`, and no extension is known here")]
    Critical,
    /// A token for another purpose.
    #[error("the header's `typ` is {0:?}; access tokens have none, \"JWT\" or \"at+jwt\"")]
    Purpose(String),
    /// Nobody we trust.
    #[error("issuer {0:?} is not configured; add it as [[gateway.issuer]]")]
    Issuer(String),
    /// A key we do not have.
    #[error(
        "issuer {issuer:?} has no key with the id (`kid`) {kid:?}; add it, or reload if it is new"
    )]
    UnknownKey {
        /// Whose key.
        issuer: String,
        /// Its identifier.
        kid: String,
    },
    /// No `kid` where one is needed.
    #[error("the token names no key (`kid`), and issuer {0:?} has several, all with an id")]
    NoKeyId(String),
    /// The header wants another algorithm than the key has.
    #[error("the token is signed with {found:?}, its key is for {expected}")]
    Algorithm {
        /// In the header.
        found: String,
        /// The key's.
        expected: &'static str,
    },
    /// The signature does not fit.
    #[error("the signature does not fit: another key, or the token was changed")]
    Signature,
    /// A claim that must be there.
    #[error("the claim `{0}` is missing")]
    Missing(&'static str),
    /// A claim of the wrong type.
    #[error("the claim `{claim}` must be {expected}")]
    Type {
        /// Which claim.
        claim: String,
        /// What it must be.
        expected: &'static str,
    },
    /// Meant for somebody else.
    #[error("the token is meant for {found}, not for {expected:?} (`aud`)")]
    Audience {
        /// In the token.
        found: String,
        /// Configured.
        expected: String,
    },
    /// A name that belongs to another issuer.
    #[error("the name {0:?} begins like those of another issuer (its `prefix`), or of visitors")]
    Subject(String),
    /// Over.
    #[error("the token expired {since} s ago (`exp`)")]
    Expired {
        /// Seconds since then.
        since: i64,
    },
    /// Not yet.
    #[error("the token holds only in {until} s (`nbf`); compare the clocks")]
    NotYet {
        /// Seconds until then.
        until: i64,
    },
    /// A ticket where none counts.
    #[error("a ticket counts only in the URL of a page that is opened (GET)")]
    TicketMisplaced,
    /// A ticket that is none.
    #[error("a ticket {0}")]
    Ticket(&'static str),
    /// A ticket that was exchanged before.
    #[error("the ticket was used before")]
    TicketUsed,
    /// It counts no more.
    #[error("the token, its login or its user was revoked")]
    Revoked,
    /// The record that it was used could not be kept, so it does not count.
    #[error("the use of the ticket could not be recorded")]
    Unrecorded,
    /// The way back from a login that this browser did not begin.
    #[error("the login {0}; open the page again")]
    Login(&'static str),
    /// A share's link that is not, or no longer, good.
    #[error("the link {0}")]
    Link(&'static str),
    /// A session cookie that is not, or no longer, good.
    #[error("the session {0}")]
    Session(&'static str),
}

impl TokenError {
    /// Whether the token or session is ours and held before: its signature was right.
    pub(crate) fn was_good(&self) -> bool {
        matches!(
            self,
            Self::Expired { .. } | Self::Revoked | Self::TicketUsed
        )
    }

    /// Whose new keys may make this token good, and which one it names ("": none).
    pub(super) fn wants_key(&self) -> Option<(&str, &str)> {
        match self {
            Self::UnknownKey { issuer, kid } => Some((issuer, kid)),
            Self::NoKeyId(issuer) => Some((issuer, "")),
            _ => None,
        }
    }
}

/// A text from the network, short enough for a log line.
pub(super) fn shortened(text: &str) -> String {
    const MAX: usize = 80;
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}
