//! Hand-over: one process takes the place of another, and no connection notices.
//!
//! 1. `cde-gateway upgrade` asks the running process, at its socket in the state folder ([`control`]), to start the new program.
//! 2. The old process starts it with its own arguments ([`successor`]) and passes, when it asks, over a socket that only the two have, the
//!    lock of the state folder and all sockets that listen ([`pass`]).
//! 3. The new one takes them, starts its gateway, and says when that is ready ([`takeover`]). Until then the old one has given up nothing:
//!    a new one that fails, or is not ready in time, is ended, and all is as before.
//! 4. The old one accepts nothing more, stops its other roles, and says so; the new one starts its own.
//! 5. The old one lives until nothing is left of its streams or their time is over. It is asked for them at its socket.
//!
//! What both write meanwhile (used tickets, revocations, shares, routes of the API): see `gateway::turns`.
//!
//! Not here: what a gateway does when it hands over (`gateway::drain`).

mod change;
pub(super) mod control;
mod pass;
pub(super) mod successor;
pub mod systemd;
pub mod takeover;

pub(super) use change::elsewhere;
pub use control::{Asked, Told, ask};

/// The argument with which a program is started that takes over.
pub const ARGUMENT: &str = "--takes-over";

/// Why a hand-over failed.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// Something of the operating system.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The other one said something else than it should.
    #[error("{0}")]
    Other(String),
}

fn system(action: &'static str) -> impl FnOnce(std::io::Error) -> HandOverError {
    move |source| HandOverError::System { action, source }
}
