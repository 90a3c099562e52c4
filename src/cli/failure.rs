//! Why a command failed: an exit code, what is wrong, what to do.

use std::{io::Write, process::ExitCode};

use crate::{
    app::{AppError, client::ClientError, demo::DemoError, state::StateError},
    config::ConfigError,
    gateway,
    telemetry::{Chain, TelemetryError},
};

/// Exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// It failed.
    Failed = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// No such thing.
    NotFound = 3,
    /// A token is needed, or was not accepted.
    LoginNeeded = 4,
    /// The token does not allow it.
    NotAllowed = 5,
    /// The state does not allow it, or somebody else was first.
    Conflict = 6,
    /// Too many, too much.
    Limit = 7,
    /// Nobody answers.
    Unreachable = 8,
    /// It was waited for, for too long.
    Timeout = 9,
    /// A second signal ended it at once.
    Interrupted = 130,
}

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    code: Code,
    what: String,
    todo: Option<String>,
}

impl Failure {
    pub(super) fn new(code: Code, what: impl Into<String>) -> Self {
        Self {
            code,
            what: what.into(),
            todo: None,
        }
    }

    pub(super) fn with(mut self, todo: impl Into<String>) -> Self {
        self.todo = Some(todo.into());
        self
    }

    /// Something of the operating system.
    #[expect(clippy::needless_pass_by_value, reason = "given to map_err")]
    pub fn system(error: std::io::Error) -> Self {
        Self::new(Code::Failed, error.to_string())
    }

    /// Prints it: what is wrong, then what to do; its exit code.
    pub fn report(&self) -> ExitCode {
        let mut stderr = std::io::stderr().lock();
        // A closed standard error changes no exit code.
        let _ = writeln!(stderr, "error: {}", self.what);
        if let Some(todo) = &self.todo {
            let _ = writeln!(stderr, "{todo}");
        }
        ExitCode::from(self.code as u8)
    }

    pub(super) fn what(&self) -> &str {
        &self.what
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Code::Usage, error.to_string())
    }
}

impl From<TelemetryError> for Failure {
    fn from(error: TelemetryError) -> Self {
        Self::new(Code::Usage, error.to_string())
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        Self::new(Code::Failed, Chain(&error).to_string())
    }
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        let code = match &error {
            AppError::Gateway(gateway::Error::Cut { .. }) => Code::Timeout,
            _ => Code::Failed,
        };
        Self::new(code, Chain(&error).to_string())
    }
}

impl From<DemoError> for Failure {
    fn from(error: DemoError) -> Self {
        let code = match &error {
            DemoError::NoRepository(_) => Code::Usage,
            _ => Code::Failed,
        };
        Self::new(code, Chain(&error).to_string())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let (code, todo) = match &error {
            ClientError::Unreachable { .. } => (
                Code::Unreachable,
                "start it with `cde-gateway run`, or say where it is with --url",
            ),
            ClientError::Refused(problem) => match problem.status {
                401 => (Code::LoginNeeded, "give the right token with --token-file"),
                403 => (Code::NotAllowed, "use the token of somebody who may"),
                404 => (
                    Code::NotFound,
                    "see `cde-gateway gitspace list` for what there is",
                ),
                409 => (
                    Code::Conflict,
                    "see `cde-gateway gitspace show` for its state",
                ),
                429 => (Code::Limit, "try again later"),
                400 | 413 | 422 => (Code::Usage, "correct the value"),
                _ => (Code::Failed, "see the control plane's log"),
            },
            ClientError::Unexpected { .. } => {
                (Code::Failed, "see whether --url names the right one")
            }
            ClientError::Ended { .. } => (
                Code::Failed,
                "`cde-gateway gitspace show` tells its steps; start it again when the cause is gone",
            ),
            ClientError::Timeout { .. } => (
                Code::Timeout,
                "it goes on; look at it with `cde-gateway gitspace show`, or wait longer with --timeout",
            ),
        };
        Self::new(code, Chain(&error).to_string()).with(todo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_that_cut_connections_says_so() {
        let cut = gateway::Error::Cut { connections: 3 };
        let failure = Failure::from(AppError::from(cut));
        assert_eq!(failure.code, Code::Timeout);
        assert!(failure.what.starts_with("3 connections had not ended"));
    }
}
