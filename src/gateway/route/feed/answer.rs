//! One answer of the feed, from its bytes to something that may be taken: looked at whole, against what the gateway has.
//!
//! Not here: whether a single route may be used. One that may not is skipped where it is applied, so that one VM cannot stop the
//! routes of all others.

use std::{
    borrow::Cow,
    collections::HashSet,
    io::{self, Read},
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::read::GzDecoder;
use http::{HeaderMap, HeaderValue, header};

use super::kept::Kept;
use crate::{
    api::feed::{Feed, FeedKind},
    gateway::auth,
};

/// An answer larger than this is no feed.
pub(super) const ANSWER_MAX: usize = 256 * 1024 * 1024;
const NAME_MAX: usize = 64;

/// Why an answer was not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FeedError {
    #[error("cannot reach the control plane")]
    Call(#[from] reqwest::Error),
    #[error("the control plane answered {status}")]
    Status {
        status: reqwest::StatusCode,
        /// For how many seconds it wants to be left alone.
        retry_after: u64,
    },
    #[error("the answer is larger than {ANSWER_MAX} bytes")]
    TooLarge,
    #[error("the answer is not what was sent: its Content-Digest is another")]
    Changed,
    #[error("the answer is encoded as {0:?}, which was not asked for")]
    Coding(String),
    #[error("the answer is not the gzip that it says to be")]
    Gzip(#[source] io::Error),
    #[error("the answer is no feed")]
    Parse(#[from] serde_json::Error),
    #[error("the answer is no feed: {0}")]
    Bad(String),
    #[error("the answer is a change to a state that this gateway does not have")]
    Gap,
    #[error("the answer is of revision {found}, and this gateway has {had}")]
    Older { found: u64, had: u64 },
    #[error("the keys cannot be used")]
    Keys(#[from] auth::Error),
    #[error("what it revokes cannot be kept")]
    Revoke(#[from] auth::RevokeError),
}

/// Reads an answer, and checks all of it that can be checked before anything is changed.
pub(super) fn read(
    body: &[u8],
    headers: &HeaderMap,
    had: Option<&Kept>,
) -> Result<Feed, FeedError> {
    let claimed = headers.get("content-digest");
    if claimed.is_some_and(|claimed| !is_digest(body, claimed)) {
        return Err(FeedError::Changed);
    }
    let feed: Feed = serde_json::from_slice(&decoded(body, headers, ANSWER_MAX)?)?;
    well_formed(&feed).map_err(FeedError::Bad)?;
    let of_same = had.filter(|had| had.epoch == feed.epoch);
    match (feed.kind, of_same) {
        (FeedKind::Delta, None) => Err(FeedError::Gap),
        (_, Some(had)) if feed.revision < had.revision => Err(FeedError::Older {
            found: feed.revision,
            had: had.revision,
        }),
        _ => Ok(feed),
    }
}

/// Without its coding, no longer than an answer may be.
fn decoded<'a>(
    body: &'a [u8],
    headers: &HeaderMap,
    most: usize,
) -> Result<Cow<'a, [u8]>, FeedError> {
    match headers
        .get(header::CONTENT_ENCODING)
        .map(HeaderValue::as_bytes)
    {
        None | Some(b"identity") => Ok(body.into()),
        Some(b"gzip") => {
            let mut text = Vec::new();
            let mut decoder = GzDecoder::new(body).take(most as u64 + 1);
            decoder.read_to_end(&mut text).map_err(FeedError::Gzip)?;
            match text.len() <= most {
                true => Ok(text.into()),
                false => Err(FeedError::TooLarge),
            }
        }
        Some(other) => Err(FeedError::Coding(String::from_utf8_lossy(other).into())),
    }
}

/// RFC 9530 §2. Other algorithms than SHA-256 are not looked at.
fn is_digest(text: &[u8], claimed: &HeaderValue) -> bool {
    let claimed = claimed.to_str().unwrap_or_default();
    let of_ours = |one: &&str| one.trim_start().starts_with("sha-256=");
    let Some(claimed) = claimed.split(',').find(of_ours) else {
        return true;
    };
    let found = STANDARD.encode(digest(&SHA256, text));
    claimed.trim() == format!("sha-256=:{found}:")
}

fn well_formed(feed: &Feed) -> Result<(), String> {
    let names = [("epoch", Some(&feed.epoch)), ("run", feed.run.as_ref())];
    for (what, name) in names {
        let good = |name: &String| {
            (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic())
        };
        if !name.is_none_or(good) {
            return Err(format!(
                "`{what}` must be 1 to {NAME_MAX} visible ASCII characters"
            ));
        }
    }
    if feed.kind == FeedKind::Snapshot && !feed.removed.is_empty() {
        return Err("a snapshot removes nothing".into());
    }
    let mut named = HashSet::with_capacity(feed.routes.len() + feed.removed.len());
    let routes = feed.routes.iter().map(|route| &route.gitspace);
    let removed = feed.removed.iter().map(|gone| &gone.gitspace);
    match routes
        .chain(removed)
        .find(|gitspace| !named.insert(*gitspace))
    {
        Some(twice) => Err(format!("it names {twice} twice")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;
    use serde_json::{Value, json};

    use super::*;

    fn answer(kind: &str, epoch: &str, revision: u64) -> Value {
        json!({
            "epoch": epoch, "revision": revision, "time": 0, "lease": 60, "type": kind,
            "routes": [{ "gitspace": "api-k3x9q2", "generation": 3, "ide": { "port": 80 } }],
            "removed": [], "revoked": [],
            "keys": { "issuer": "i", "audience": "a", "jwks": { "keys": [] } },
        })
    }

    fn had() -> Kept {
        let first = serde_json::from_value(answer("snapshot", "e1", 5)).unwrap();
        let mut kept = None;
        Kept::take(&mut kept, first);
        kept.unwrap()
    }

    fn said(value: &Value, had: Option<&Kept>) -> String {
        match read(value.to_string().as_bytes(), &HeaderMap::new(), had) {
            Ok(feed) => format!("ok {}", feed.revision),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn an_answer_counts_against_what_is_had() {
        let had = had();
        assert_eq!(said(&answer("delta", "e1", 6), Some(&had)), "ok 6");
        assert_eq!(said(&answer("delta", "e1", 5), Some(&had)), "ok 5");
        assert_eq!(said(&answer("snapshot", "e2", 1), Some(&had)), "ok 1");
        for kind in ["delta", "snapshot"] {
            let old = said(&answer(kind, "e1", 4), Some(&had));
            assert!(old.contains("revision 4"), "{old}");
        }
        for (epoch, had) in [("e2", Some(&had)), ("e1", None)] {
            let gap = said(&answer("delta", epoch, 9), had);
            assert!(gap.contains("does not have"), "{gap}");
        }
    }

    #[test]
    fn what_cannot_be_is_told() {
        let twice = json!([{ "gitspace": "api-k3x9q2", "generation": 4 }]);
        let mut snapshot = answer("snapshot", "e1", 5);
        snapshot["removed"] = json!([{ "gitspace": "web-k3x9q2", "generation": 4 }]);
        assert!(said(&snapshot, None).contains("removes nothing"));
        let mut delta = answer("delta", "e1", 6);
        delta["removed"] = twice;
        assert!(said(&delta, Some(&had())).contains("api-k3x9q2 twice"));
        for epoch in ["", "a b", &"x".repeat(65)] {
            assert!(said(&answer("snapshot", epoch, 1), None).contains("`epoch`"));
        }
    }

    #[test]
    fn a_digest_that_is_there_must_be_right() {
        let text = answer("snapshot", "e1", 5).to_string();
        let right = format!(
            "sha-256=:{}:",
            STANDARD.encode(digest(&SHA256, text.as_bytes()))
        );
        for (claimed, good) in [
            (right.as_str(), true),
            (&format!("sha-512=:AAAA:, {right}"), true),
            ("sha-512=:AAAA:", true),
            ("sha-256=:AAAA:", false),
            ("sha-256=", false),
        ] {
            let headers = with("content-digest", claimed);
            let read = read(text.as_bytes(), &headers, None);
            assert_eq!(read.is_ok(), good, "{claimed}");
        }
    }

    fn with(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn a_compressed_answer_is_read_as_far_as_an_answer_may_go() {
        let text = answer("snapshot", "e1", 5).to_string();
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        let packed = encoder.finish().unwrap();
        let gzip = with("content-encoding", "gzip");
        assert_eq!(read(&packed, &gzip, None).unwrap().revision, 5);
        let cut = read(&packed[..packed.len() - 9], &gzip, None);
        assert!(matches!(cut, Err(FeedError::Gzip(_))), "{cut:?}");
        let plain = read(text.as_bytes(), &gzip, None);
        assert!(matches!(plain, Err(FeedError::Gzip(_))), "{plain:?}");
        let other = read(&packed, &with("content-encoding", "br"), None);
        assert!(other.unwrap_err().to_string().contains("\"br\""));
        assert_eq!(
            decoded(&packed, &gzip, text.len()).unwrap(),
            text.as_bytes()
        );
        let larger = decoded(&packed, &gzip, text.len() - 1);
        assert!(matches!(larger, Err(FeedError::TooLarge)));
    }
}
