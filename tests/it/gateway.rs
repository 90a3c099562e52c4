//! The whole gateway in this process: real listeners, real upstreams, peers that misbehave.
//!
//! Not here: single steps through their own interfaces (`auth`), more than one role, browsers.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod hosts;
mod proxy;
mod start;
mod tokens;
mod upstreams;
