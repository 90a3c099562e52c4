//! Why the roles of a process do not run.

use std::{io, net::SocketAddr};

use super::{handover::HandOverError, state::StateError};
use crate::gateway;

/// Why the roles of a process do not run.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The state directory or a token.
    #[error(transparent)]
    State(#[from] StateError),
    /// An address is taken or not ours.
    #[error(
        "cannot listen on {address} (`{key}`): {source}\n{}",
        hint(source, key)
    )]
    Bind {
        /// Which address.
        address: SocketAddr,
        /// Which key names it.
        key: &'static str,
        /// Why; part of the message.
        source: io::Error,
    },
    /// The gateway cannot start.
    #[error(transparent)]
    Gateway(#[from] gateway::Error),
    /// Another process could not be taken over from.
    #[error(transparent)]
    HandOver(#[from] HandOverError),
    /// Something of the operating system.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A role failed while it ran.
    #[error("the {role} failed")]
    Role {
        /// Which.
        role: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A role ended though nobody stopped it.
    #[error("the {role} ended by itself")]
    Ended {
        /// Which.
        role: &'static str,
    },
}

impl AppError {
    /// Whether another address would help.
    pub fn is_about_an_address(&self) -> bool {
        matches!(
            self,
            Self::Bind { .. }
                | Self::Gateway(gateway::Error::Bind(_) | gateway::Error::Admin { .. })
        )
    }
}

fn hint(error: &io::Error, key: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("stop the program that has it, or change `{key}` to a free port")
        }
        io::ErrorKind::PermissionDenied => {
            format!("change `{key}` to a port from 1024 on, or grant CAP_NET_BIND_SERVICE")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("change `{key}` to an address of this machine")
        }
        _ => format!("change `{key}`"),
    }
}
