//! The step "authenticate" through its own interface: tokens, carriers, sessions, tickets, assertions.
//!
//! Not here: the answers that clients get (they need the whole gateway), and fetching key sets.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod attacks;
mod carriers;
mod sessions;
mod support;
mod tickets;
mod tokens;
mod vectors;
