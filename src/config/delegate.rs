//! `[delegate]`

use std::{num::NonZeroU32, path::PathBuf};

use serde::Deserialize;

/// `[delegate]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Delegate {
    /// Its name; the same name after a restart is the same delegate.
    pub name: String,
    /// The control plane. Unset: the embedded one.
    pub url: Option<String>,
    /// Its token. Unset: `delegate.token` in `state_dir`.
    pub token_file: Option<PathBuf>,
    /// The runner. Unset: the embedded one.
    pub runner: Option<String>,
    /// The runner's token. Unset: `runner.token` in `state_dir`.
    pub runner_token_file: Option<PathBuf>,
    /// What it may be chosen by.
    pub tags: Vec<String>,
    /// How many tasks it takes at once.
    pub capacity: NonZeroU32,
}

impl Default for Delegate {
    fn default() -> Self {
        Self {
            name: "delegate".into(),
            url: None,
            token_file: None,
            runner: None,
            runner_token_file: None,
            tags: Vec::new(),
            capacity: NonZeroU32::MIN.saturating_add(7),
        }
    }
}
