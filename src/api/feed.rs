//! The route feed: how a gateway learns routes, keys and revocations from a control plane.
//!
//! `GET /v1/feed?epoch=&run=&after=REVISION&wait=30` is a long poll. `epoch` is random per database and renewed by a restore: another
//! epoch means a whole snapshot, and generations compare within one epoch only.

use serde::{Deserialize, Serialize};

use super::{activity::Typed, id::GitspaceId, revocation::Revocation, route::Route};

/// The answer to `GET /v1/feed`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Feed {
    /// Which database the revisions belong to.
    pub epoch: String,
    /// Which run of the control plane answers; give it back next time, so that a database that was restored is noticed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Up to where this answer tells; give it as `after` next time.
    pub revision: u64,
    /// The control plane's clock, seconds since 1970.
    pub time: i64,
    /// How long the routes may be used without another answer, in seconds.
    pub lease: u64,
    /// Whether `routes` is all there is, or what changed.
    #[serde(rename = "type")]
    pub kind: FeedKind,
    /// New and changed routes.
    pub routes: Vec<Route>,
    /// Gitspaces whose routes are gone. Empty in a snapshot.
    pub removed: Vec<Removed>,
    /// What was revoked: all that still counts in a snapshot, what is new in a delta.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<Revocation>,
    /// The control plane's public keys (RFC 7517), its issuer name and audience.
    pub keys: FeedKeys,
}

/// A route that is gone, with the generation that removed it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Removed {
    /// Whose route.
    pub gitspace: GitspaceId,
    /// Since when.
    pub generation: u64,
}

/// What a [`Feed`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeedKind {
    /// Everything.
    Snapshot,
    /// What changed after the revision asked for.
    Delta,
}

/// Keys of the control plane, as an issuer that needs no configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeedKeys {
    /// `iss` of its tokens.
    pub issuer: String,
    /// `aud` of its tokens.
    pub audience: String,
    /// The key set (RFC 7517 §5).
    pub jwks: serde_json::Value,
}

/// `POST /v1/feed/redeem`: the first redemption of a ticket wins (200), later ones get 409.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Redeem {
    /// The ticket's identifier.
    pub jti: String,
    /// Until when it would hold, so that the record can be forgotten after; seconds since 1970.
    pub exp: i64,
}

/// `POST /v1/feed/report`, every 10 s: how the gateway is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// Its name: host name and start, stable while it runs.
    pub gateway: String,
    /// Its version.
    pub version: String,
    /// Streams and requests under way.
    pub streams: u64,
    /// The revision applied last.
    pub revision: u64,
    /// Gitspaces where a person did something since the last report, and when that was last, seconds since 1970.
    pub activity: Vec<(GitspaceId, u64)>,
}

/// The answer to [`Report`]: what the gateway does not see by itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Reported {
    /// Gitspaces where somebody typed into a terminal, as far as the control plane learned of it lately. The same may be told again.
    #[serde(default)]
    pub typed: Vec<Typed>,
}
