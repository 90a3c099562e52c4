//! cde-gateway: the gateway for self-hosted cloud development environments, and the roles around it.
//!
//! | module | what it is |
//! |---|---|
//! | [`api`] | the words that cross a boundary: ids, routes, tasks, wire types; no I/O |
//! | [`config`] | `config.toml`: one struct per table, defaults, checks |
//! | [`telemetry`] | operating log, metrics registry, printing of error chains |
//! | [`gateway`] | the data path: accept → tls → parse → authenticate → route → authorize → limit → forward → relay → account |
//! | [`control_plane`] | lifecycle, store, tasks, route feed |
//! | [`delegate`] | dials out to the control plane and hands its tasks to a runner |
//! | [`runner`] | makes, suspends and destroys instances through a driver |
//! | [`agent`] | inside the instance: repository and IDE |
//! | [`app`] | builds the chosen roles, joins them, drains them; the only module that knows all of them |
//! | [`cli`] | arguments → what to run |
//!
//! Which module may import which is a table in `docs/architecture.md`, kept by `tests/it/layering.rs`.

pub mod agent;
pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod control_plane;
pub mod delegate;
pub mod gateway;
pub mod runner;
pub mod telemetry;
