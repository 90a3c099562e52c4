//! Integration tests: the real thing on port 0, real sockets, one module per topic.

mod agent;
mod auth;
mod cli;
mod config;
mod control_plane;
mod delegate;
mod demo;
mod gateway;
mod layering;
mod runner;
#[allow(
    dead_code,
    unused_imports,
    reason = "the topics that use the rest follow"
)]
mod support;
mod terminal;
mod upgrade;
