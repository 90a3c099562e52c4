//! The delegate: dials out to the control plane, takes its tasks and hands them to a runner.
//!
//! It keeps nothing: a task that it loses is handed out again when its lease has run out.

mod back_off;
mod call;
mod dispatch;
mod link;
mod said;
mod typed;

use std::num::NonZeroU32;

use crate::api::Secret;

pub use link::{Error, serve};

/// What a delegate needs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name; the same name after a restart is the same delegate.
    pub name: String,
    /// The control plane.
    pub url: String,
    /// Its token there.
    pub token: Secret,
    /// The runner.
    pub runner: String,
    /// Its token there.
    pub runner_token: Secret,
    /// What it may be chosen by.
    pub tags: Vec<String>,
    /// How many tasks it takes at once.
    pub capacity: NonZeroU32,
}
