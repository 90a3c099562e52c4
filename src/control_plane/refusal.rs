//! Why a request to the control plane was not done: one enum, and the only place that turns one into an answer.
//!
//! The client gets a sentence, a stable reason and what to do; what went wrong inside stays in the log.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::api::problem::{MEDIA_TYPE, Problem};

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// No bearer token.
    #[error("a bearer token is needed")]
    NoToken,
    /// Not the token of this part of the API.
    #[error("the bearer token was not accepted")]
    InvalidToken,
    /// Malformed or not acceptable.
    #[error("the request is not acceptable")]
    BadRequest(String),
    /// Larger than allowed.
    #[error("the body is too large")]
    BodyTooLarge,
    /// Not JSON by its Content-Type.
    #[error("the body must be application/json")]
    NotJson,
    /// Unknown, deleted, or somebody else's.
    #[error("no such gitspace")]
    NoSuchGitspace,
    /// The delegate must register again.
    #[error("no such delegate")]
    NoSuchDelegate,
    /// Unknown or forgotten.
    #[error("no such task")]
    NoSuchTask,
    /// Unknown path.
    #[error("no such page")]
    NoSuchPage,
    /// The path exists and not with this method.
    #[error("the method is not allowed here")]
    MethodNotAllowed,
    /// The gitspace does not forward this port.
    #[error("the gitspace does not forward this port")]
    PortClosed(u16),
    /// The action does not fit the state.
    #[error("the gitspace's state does not allow it")]
    WrongState(String),
    /// The key was used for another request.
    #[error("the Idempotency-Key was used for another request")]
    KeyReused,
    /// The task was handed out again, or taken back.
    #[error("the lease was lost")]
    LostLease,
    /// Redeemed before.
    #[error("the ticket was used before; ask for a new one")]
    TicketUsed,
    /// The ticket's time is over.
    #[error("the ticket has expired; ask for a new one")]
    ExpiredToken,
    /// As many as are kept.
    #[error("there are too many revocations")]
    TooManyRevocations(i64),
    /// As many gateways watch starts as may at once.
    #[error("too many starts are being watched; try again in a moment")]
    TooManyWatchers,
    /// The store failed.
    #[error("the control plane's store failed")]
    Store(#[from] sqlx::Error),
    /// What was stored cannot be read.
    #[error("a stored value cannot be read")]
    Stored(#[from] serde_json::Error),
    /// A ticket could not be signed.
    #[error("the ticket could not be signed")]
    Signing(#[from] jsonwebtoken::errors::Error),
    /// No randomness.
    #[error("the system gave no random bytes")]
    Random(#[from] getrandom::Error),
    /// A task of the program ended early.
    #[error("a commit was cut short")]
    CutShort(#[from] tokio::task::JoinError),
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoToken | Self::InvalidToken => StatusCode::UNAUTHORIZED,
            Self::BadRequest(_) | Self::ExpiredToken => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NoSuchGitspace
            | Self::NoSuchDelegate
            | Self::NoSuchTask
            | Self::NoSuchPage
            | Self::PortClosed(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::WrongState(_) | Self::KeyReused | Self::LostLease | Self::TicketUsed => {
                StatusCode::CONFLICT
            }
            Self::TooManyRevocations(_) => StatusCode::INSUFFICIENT_STORAGE,
            Self::TooManyWatchers | Self::Store(sqlx::Error::PoolTimedOut) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Store(_)
            | Self::Stored(_)
            | Self::Signing(_)
            | Self::Random(_)
            | Self::CutShort(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::NoToken => "no-token",
            Self::InvalidToken => "invalid-token",
            Self::BadRequest(_) => "bad-request",
            Self::BodyTooLarge => "body-too-large",
            Self::NotJson => "not-json",
            Self::NoSuchGitspace => "no-such-gitspace",
            Self::NoSuchDelegate => "no-such-delegate",
            Self::NoSuchTask => "no-such-task",
            Self::NoSuchPage => "no-such-page",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::PortClosed(_) => "port-closed",
            Self::WrongState(_) => "wrong-state",
            Self::KeyReused => "idempotency-key-reused",
            Self::LostLease => "lost-lease",
            Self::TicketUsed => "ticket-used",
            Self::ExpiredToken => "expired-token",
            Self::TooManyRevocations(_) => "too-many-revocations",
            Self::TooManyWatchers | Self::Store(sqlx::Error::PoolTimedOut) => "overloaded",
            Self::Store(_)
            | Self::Stored(_)
            | Self::Signing(_)
            | Self::Random(_)
            | Self::CutShort(_) => "internal",
        }
    }

    /// What was found and what to do, where the title alone does not say it.
    fn detail(&self) -> Option<String> {
        match self {
            Self::NoToken => Some("send Authorization: Bearer <token>".into()),
            Self::BadRequest(detail) | Self::WrongState(detail) => Some(detail.clone()),
            Self::NoSuchDelegate => Some("register it with POST /v1/delegates".into()),
            Self::PortClosed(port) => Some(format!(
                "port {port} is not forwarded; name it under `ports` when the gitspace is created"
            )),
            Self::KeyReused => Some("send another key, or the same request as before".into()),
            Self::TooManyRevocations(max) => Some(format!(
                "{max} are kept, which is all that gateways keep; give `until` from now on"
            )),
            Self::LostLease => Some("the task was handed out again or cancelled; forget it".into()),
            _ => None,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        if status.is_server_error() {
            tracing::error!(error = %Chain(&self), "a request failed");
        }
        let problem = Problem {
            status: status.as_u16(),
            title: self.to_string(),
            reason: self.reason().into(),
            detail: self.detail(),
            request_id: None,
        };
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Prints an error with its sources.
pub(super) struct Chain<'a>(pub(super) &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
