//! The control plane over real HTTP, with a fake delegate and a fake gateway.
//!
//! Covers: lifecycle, restart, leases, host-bound tasks, tokens, validation, feed and its history, revocations, tickets, the API's
//! description.
//! Cannot cover: what a real runner does with a task.

#![allow(
    clippy::unwrap_used,
    reason = "a peer that fails here fails its test; clippy sees test functions only"
)]

mod feed;
mod gitspaces;
mod history;
mod restart;
mod revocations;
pub(crate) mod support;
mod tasks;
mod wake;
