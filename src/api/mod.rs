//! The words that cross a boundary: identifiers, routes, tasks, states, and the wire types in which the roles speak.
//!
//! Everybody may import this module and it imports nobody: no I/O, no clock, no HTTP. Strings are parsed into these
//! types where they enter; inside, nothing is checked twice.

pub mod access;
pub mod activity;
pub mod agent;
pub mod feed;
pub mod gitspace;
pub mod id;
pub mod path;
pub mod pin;
pub mod problem;
pub mod revocation;
pub mod route;
pub mod runner;
pub mod secret;
pub mod share;
pub mod stream;
pub mod task;
pub mod upgrade;
pub mod wake;

pub use id::{GitspaceId, GitspaceName, InstanceId};
pub use secret::Secret;
