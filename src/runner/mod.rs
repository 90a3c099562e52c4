//! The runner: makes, suspends and destroys instances, and reaches the agents in them.
//!
//! A delegate asks it over HTTP; what it does is in a [`driver`]. It remembers nothing that its driver cannot find again.

mod agents;
pub mod driver;
mod instances;
mod keep;
mod service;
mod typed;

pub use service::{Error, Settings, serve};
