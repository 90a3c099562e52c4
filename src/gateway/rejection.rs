//! Why a request ended early: one enum for the whole path, and the only place that turns one into an answer.
//!
//! A rejection knows its status, its stable reason and whose fault it is; `catalogue` has its texts, `answer` its forms. What it says
//! to the client are plain sentences; causes, addresses and token details stay in the log.

mod answer;
mod catalogue;
mod grpc;
mod policy;
#[cfg(test)]
mod tests;
mod upstream;

use std::time::Duration;

use http::StatusCode;

use super::{auth::TokenError, connection::Refusal};
use crate::api::access::Port;

pub(crate) use answer::{Form, answer, answer_as, answer_with, tell};
pub use policy::Policy;
pub use upstream::{Break, Late, TlsFault};

/// Why the gateway ended a request early.
#[derive(Debug, thiserror::Error)]
#[error("{}", catalogue::of(self).title)]
pub enum Rejection {
    /// The request itself is malformed or ambiguous.
    #[error("{title}: {0}", title = catalogue::of(self).title)]
    BadRequest(&'static str),
    /// The host is not served on this connection.
    Misdirected,
    /// Its own `Via` came back.
    Loop,
    /// No carrier held a token.
    NoToken,
    /// The token was not accepted; the text says why and stays in the log.
    InvalidToken(String),
    /// The token's time is over.
    ExpiredToken,
    /// The token was revoked.
    RevokedToken,
    /// The ticket was exchanged before.
    TicketUsed,
    /// The principal may use another port of the gitspace, and not this one.
    NotAllowed,
    /// A cookie request from another origin.
    OriginRefused,
    /// Unknown gitspace, or one this principal must not learn about.
    NoSuchGitspace,
    /// The gitspace does not forward this port.
    PortClosed,
    /// Unknown path below `/_gitspace/`.
    NoSuchPage,
    /// A method that this resource does not have.
    MethodNotAllowed,
    /// `Expect` asks for something that we do not know (RFC 9110 §10.1.1).
    ExpectationFailed,
    /// Too many requests.
    RateLimited {
        /// Which limit.
        policy: Policy,
        /// How many are allowed.
        limit: u32,
        /// In so long.
        window: Duration,
        /// When to come again.
        retry_after: Duration,
    },
    /// Too many requests or streams at once.
    TooManyStreams {
        /// Which limit.
        policy: Policy,
        /// How many are allowed.
        limit: usize,
    },
    /// The request's body is larger than allowed.
    BodyTooLarge,
    /// The request's head is larger than allowed.
    HeadTooLarge,
    /// The request's head did not come in time.
    HeadTimeout,
    /// A transfer coding that is not `chunked`, or an extended CONNECT for something else than a WebSocket.
    NotImplemented,
    /// A version of HTTP that this listener does not speak.
    VersionNotSupported,
    /// The gitspace could not be connected to.
    Unreachable(#[source] std::io::Error),
    /// The gitspace is there, and nothing listens on this port of it.
    #[error("{}", catalogue::nothing_listens(*.0))]
    NothingListens(Port, #[source] std::io::Error),
    /// TLS and the gitspace do not fit: what it showed was not accepted, or one speaks it and the other does not.
    Tls {
        /// How.
        fault: TlsFault,
        /// What failed; for the log only.
        #[source]
        source: std::io::Error,
    },
    /// The gitspace has all the connections it may have.
    Crowded,
    /// The gitspace broke off or answered with something that is not HTTP.
    Broke(Break, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The gitspace did not answer in time.
    Timeout(Late),
    /// The route led elsewhere while the request was under way.
    TargetChanged,
    /// Its access ended while the request was under way; the text says who ended it and stays in the log.
    AccessEnded(Box<str>),
    /// The gitspace is stopped.
    Stopped,
    /// The gitspace is starting.
    Starting,
    /// This gateway is stopping.
    ShuttingDown,
    /// All connections or requests at once are taken.
    Overloaded,
    /// The feed's lease ran out and `fail_mode` is `closed`.
    ControlPlaneStale,
    /// The client's upload stalled or broke.
    BodyTimeout,
    /// The client went away before the answer.
    ClientGone,
}

/// What a client is told of a refused token is less than the log is.
impl From<TokenError> for Rejection {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Expired { .. } => Self::ExpiredToken,
            TokenError::TicketUsed => Self::TicketUsed,
            TokenError::Revoked => Self::RevokedToken,
            error => Self::InvalidToken(error.to_string()),
        }
    }
}

/// What the guard in front of the parser refused.
impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Bad(why) => Self::BadRequest(why),
            Refusal::TooLarge => Self::HeadTooLarge,
            Refusal::Coding => Self::NotImplemented,
            Refusal::Version => Self::VersionNotSupported,
            Refusal::Late => Self::HeadTimeout,
        }
    }
}

impl Rejection {
    /// What is known beside it: which port it was.
    pub(crate) fn at(self, port: Port) -> Self {
        match self {
            Self::Unreachable(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                Self::NothingListens(port, error)
            }
            other => other,
        }
    }
}

/// Whose fault an end was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The client's.
    Client,
    /// The gitspace's.
    Gitspace,
    /// Ours.
    Gateway,
}

impl Rejection {
    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::NoToken
            | Self::InvalidToken(_)
            | Self::ExpiredToken
            | Self::RevokedToken
            | Self::TicketUsed => StatusCode::UNAUTHORIZED,
            Self::NotAllowed | Self::OriginRefused | Self::AccessEnded(_) => StatusCode::FORBIDDEN,
            Self::NoSuchGitspace | Self::PortClosed | Self::NoSuchPage => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::ExpectationFailed => StatusCode::EXPECTATION_FAILED,
            Self::RateLimited { .. } | Self::TooManyStreams { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unreachable(_)
            | Self::NothingListens(..)
            | Self::Broke(..)
            | Self::Tls { .. } => StatusCode::BAD_GATEWAY,
            Self::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::TargetChanged
            | Self::Stopped
            | Self::Starting
            | Self::Overloaded
            | Self::Crowded
            | Self::ShuttingDown
            | Self::ControlPlaneStale => StatusCode::SERVICE_UNAVAILABLE,
            Self::BodyTimeout | Self::HeadTimeout | Self::ClientGone => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Self::VersionNotSupported => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }

    /// Stable label, the same in the access log, the metrics and the answer.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad-request",
            Self::Misdirected => "misdirected",
            Self::Loop => "loop",
            Self::NoToken => "no-token",
            Self::InvalidToken(_) => "invalid-token",
            Self::ExpiredToken => "expired-token",
            Self::RevokedToken => "revoked-token",
            Self::TicketUsed => "ticket-used",
            Self::NotAllowed => "not-allowed",
            Self::OriginRefused => "origin-refused",
            Self::AccessEnded(_) => "access-ended",
            Self::NoSuchGitspace => "no-such-gitspace",
            Self::PortClosed => "port-closed",
            Self::NoSuchPage => "no-such-page",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::ExpectationFailed => "expectation-failed",
            Self::RateLimited { .. } => "rate-limited",
            Self::TooManyStreams { .. } => "too-many-streams",
            Self::Unreachable(_) => "gitspace-unreachable",
            Self::NothingListens(..) => "nothing-listens",
            Self::Tls { .. } => "gitspace-tls",
            Self::Crowded => "overloaded",
            Self::Broke(..) => "gitspace-broke",
            Self::Timeout(_) => "gitspace-timeout",
            Self::TargetChanged => "target-changed",
            Self::Stopped => "gitspace-stopped",
            Self::Starting => "gitspace-starting",
            Self::Overloaded => "overloaded",
            Self::ShuttingDown => "shutting-down",
            Self::ControlPlaneStale => "control-plane-stale",
            Self::BodyTimeout => "body-timeout",
            Self::HeadTimeout => "head-timeout",
            Self::BodyTooLarge => "body-too-large",
            Self::HeadTooLarge => "head-too-large",
            Self::NotImplemented => "not-implemented",
            Self::VersionNotSupported => "version-not-supported",
            Self::ClientGone => "client-gone",
        }
    }

    /// Whose fault it was.
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::Unreachable(_)
            | Self::NothingListens(..)
            | Self::Broke(..)
            | Self::Tls { .. }
            | Self::Crowded
            | Self::Timeout(_)
            | Self::Stopped
            | Self::Starting => Fault::Gitspace,
            Self::TargetChanged
            | Self::Overloaded
            | Self::ShuttingDown
            | Self::ControlPlaneStale => Fault::Gateway,
            Self::BadRequest(_)
            | Self::Misdirected
            | Self::Loop
            | Self::NoToken
            | Self::InvalidToken(_)
            | Self::ExpiredToken
            | Self::RevokedToken
            | Self::TicketUsed
            | Self::NotAllowed
            | Self::OriginRefused
            | Self::AccessEnded(_)
            | Self::NoSuchGitspace
            | Self::PortClosed
            | Self::NoSuchPage
            | Self::MethodNotAllowed
            | Self::ExpectationFailed
            | Self::RateLimited { .. }
            | Self::TooManyStreams { .. }
            | Self::BodyTimeout
            | Self::HeadTimeout
            | Self::BodyTooLarge
            | Self::HeadTooLarge
            | Self::NotImplemented
            | Self::VersionNotSupported
            | Self::ClientGone => Fault::Client,
        }
    }

    /// What `Proxy-Status` calls it (RFC 9209 §2.3), the nearest registered type.
    pub(crate) fn proxy_error(&self) -> &'static str {
        match self {
            Self::Unreachable(error) | Self::NothingListens(_, error) => {
                upstream::unreachable(error)
            }
            Self::Tls { fault, .. } => fault.proxy_error(),
            Self::Crowded => "connection_limit_reached",
            Self::Broke(how, _) => how.proxy_error(),
            Self::Timeout(late) => late.proxy_error(),
            Self::Loop => "proxy_loop_detected",
            Self::TargetChanged | Self::Stopped | Self::Starting | Self::ControlPlaneStale => {
                "destination_unavailable"
            }
            Self::ShuttingDown => "proxy_internal_response",
            Self::Overloaded | Self::RateLimited { .. } | Self::TooManyStreams { .. } => {
                "connection_limit_reached"
            }
            Self::BadRequest(_)
            | Self::Misdirected
            | Self::ExpectationFailed
            | Self::BodyTimeout
            | Self::HeadTimeout
            | Self::BodyTooLarge
            | Self::HeadTooLarge
            | Self::NotImplemented
            | Self::VersionNotSupported
            | Self::ClientGone => "http_request_error",
            Self::NoToken
            | Self::InvalidToken(_)
            | Self::ExpiredToken
            | Self::RevokedToken
            | Self::TicketUsed
            | Self::NotAllowed
            | Self::OriginRefused
            | Self::AccessEnded(_)
            | Self::NoSuchGitspace
            | Self::PortClosed
            | Self::NoSuchPage
            | Self::MethodNotAllowed => "http_request_denied",
        }
    }
}
