//! Integration tests: the real thing on port 0, real sockets, one module per topic.

mod agent;
mod auth;
mod config;
mod control_plane;
mod layering;
mod terminal;
