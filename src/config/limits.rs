//! `[gateway.limits]`: how much one network, principal, gitspace or share may take.

use std::num::{NonZeroU32, NonZeroU64};

use serde::Deserialize;

use super::bytes::ByteLimit;

/// `[gateway.limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Requests and streams at once.
    pub requests: usize,
    /// Connections at once from one network (IPv4 /32, IPv6 /64).
    pub connections_per_network: usize,
    /// New connections per second from one network.
    pub new_connections_per_network: NonZeroU32,
    /// Refused tokens per minute from one network.
    pub failed_logins_per_network: NonZeroU32,

    /// Requests per second of one principal; a new stream is one too.
    pub requests_per_principal: NonZeroU32,
    /// How many of them may come at once. Unset: twice the rate.
    pub burst_per_principal: Option<NonZeroU32>,
    /// New streams (upgrades) per second of one principal, twice as many at once.
    pub new_streams_per_principal: NonZeroU32,
    /// Requests and streams at once of one principal.
    pub streams_per_principal: usize,
    /// Bytes per second of one principal, each way.
    pub bytes_per_principal: ByteLimit,

    /// Requests per second of all without a token from one network.
    pub requests_per_anonymous: NonZeroU32,
    /// How many of them may come at once. Unset: twice the rate.
    pub burst_per_anonymous: Option<NonZeroU32>,
    /// Their new streams per second.
    pub new_streams_per_anonymous: NonZeroU32,
    /// Their requests and streams at once.
    pub streams_per_anonymous: usize,
    /// Their bytes per second, each way.
    pub bytes_per_anonymous: ByteLimit,

    /// Requests per second to one gitspace.
    pub requests_per_gitspace: NonZeroU32,
    /// How many of them may come at once. Unset: twice the rate.
    pub burst_per_gitspace: Option<NonZeroU32>,
    /// New streams per second to one gitspace.
    pub new_streams_per_gitspace: NonZeroU32,
    /// Requests and streams at once to one gitspace.
    pub streams_per_gitspace: usize,
    /// Bytes per second to and from one gitspace.
    pub bytes_per_gitspace: ByteLimit,

    /// Requests per second by one share.
    pub requests_per_share: NonZeroU32,
    /// How many of them may come at once. Unset: twice the rate.
    pub burst_per_share: Option<NonZeroU32>,
    /// New streams per second by one share.
    pub new_streams_per_share: NonZeroU32,
    /// Requests and streams at once by one share.
    pub streams_per_share: usize,
    /// Bytes per second by one share, each way.
    pub bytes_per_share: ByteLimit,

    /// Bytes of a request body.
    pub body_bytes: ByteLimit,
    /// How many of each kind are told apart; beyond, the rest share one bucket.
    pub keys: usize,
    /// Bytes of a request head.
    pub head_bytes: usize,
    /// Fields of a request head; in HTTP/1.1 never more than 100.
    pub head_fields: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const fn rate(n: u32) -> NonZeroU32 {
            match NonZeroU32::new(n) {
                Some(n) => n,
                None => NonZeroU32::MIN,
            }
        }
        Self {
            connections: 20_000,
            requests: 40_000,
            connections_per_network: 1_000,
            new_connections_per_network: rate(200),
            failed_logins_per_network: rate(60),

            requests_per_principal: rate(1_000),
            burst_per_principal: None,
            new_streams_per_principal: rate(100),
            streams_per_principal: 1_000,
            bytes_per_principal: ByteLimit::Off,

            requests_per_anonymous: rate(5_000),
            burst_per_anonymous: None,
            new_streams_per_anonymous: rate(500),
            streams_per_anonymous: 5_000,
            bytes_per_anonymous: ByteLimit::Off,

            requests_per_gitspace: rate(10_000),
            burst_per_gitspace: None,
            new_streams_per_gitspace: rate(500),
            streams_per_gitspace: 5_000,
            bytes_per_gitspace: ByteLimit::Off,

            requests_per_share: rate(5_000),
            burst_per_share: None,
            new_streams_per_share: rate(500),
            streams_per_share: 5_000,
            bytes_per_share: ByteLimit::Off,

            body_bytes: ByteLimit::Off,
            keys: 100_000,
            head_bytes: 64 * 1024,
            head_fields: 200,
        }
    }
}

/// Who is counted together, after authorization. Its name ends the names of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One principal.
    Principal,
    /// All without a token from one network.
    Anonymous,
    /// One gitspace, whoever asks.
    Gitspace,
    /// One share, whoever has it.
    Share,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Principal,
        Self::Anonymous,
        Self::Gitspace,
        Self::Share,
    ];

    /// What the keys' names end with.
    pub fn name(self) -> &'static str {
        match self {
            Self::Principal => "principal",
            Self::Anonymous => "anonymous",
            Self::Gitspace => "gitspace",
            Self::Share => "share",
        }
    }
}

/// What one of a scope may take.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    /// Requests per second.
    pub requests: NonZeroU32,
    /// How many of them at once.
    pub burst: NonZeroU32,
    /// New streams per second.
    pub new_streams: NonZeroU32,
    /// Requests and streams at once.
    pub streams: usize,
    /// Bytes per second, each way.
    pub bytes: Option<NonZeroU64>,
}

impl Limits {
    /// What one of a scope may take.
    pub fn of(&self, scope: Scope) -> Allowed {
        let (requests, burst, new_streams, streams, bytes) = match scope {
            Scope::Principal => (
                self.requests_per_principal,
                self.burst_per_principal,
                self.new_streams_per_principal,
                self.streams_per_principal,
                self.bytes_per_principal,
            ),
            Scope::Anonymous => (
                self.requests_per_anonymous,
                self.burst_per_anonymous,
                self.new_streams_per_anonymous,
                self.streams_per_anonymous,
                self.bytes_per_anonymous,
            ),
            Scope::Gitspace => (
                self.requests_per_gitspace,
                self.burst_per_gitspace,
                self.new_streams_per_gitspace,
                self.streams_per_gitspace,
                self.bytes_per_gitspace,
            ),
            Scope::Share => (
                self.requests_per_share,
                self.burst_per_share,
                self.new_streams_per_share,
                self.streams_per_share,
                self.bytes_per_share,
            ),
        };
        Allowed {
            requests,
            burst: burst.unwrap_or_else(|| twice(requests)),
            new_streams,
            streams,
            bytes: bytes.bytes(),
        }
    }
}

/// How many may come at once where nothing else is said.
pub fn twice(rate: NonZeroU32) -> NonZeroU32 {
    rate.saturating_add(rate.get())
}
