//! `check`: is the configuration right? Starts nothing, writes nothing.

use std::path::PathBuf;

use serde_json::json;

use super::{Code, Failure, output, run::load};
use crate::{
    config::{Config, ConfigError, Role, default_file},
    gateway,
    telemetry::Chain,
};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration [default: config.toml here if there is one, else the defaults]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print {"ok": …, "problems": […]}
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Args) -> Result<(), Failure> {
    let path = arguments.config.clone().or_else(default_file);
    let name = path
        .as_ref()
        .map_or("the defaults".to_owned(), |path| path.display().to_string());
    if arguments.json {
        return as_json(path.as_ref());
    }
    certificates(&load(path.as_ref())?)?;
    output::say(&format!("{name}: all right"));
    Ok(())
}

fn as_json(path: Option<&PathBuf>) -> Result<(), Failure> {
    let loaded = match path {
        Some(path) => Config::load(path),
        None => Config::without_file(),
    };
    let (problems, outcome) = match loaded {
        Ok(config) => match certificates(&config) {
            Ok(()) => (Vec::new(), Ok(())),
            Err(failure) => (
                vec![json!({"key": "gateway.certificate", "problem": failure.what()})],
                Err(failure),
            ),
        },
        Err(error) => (as_values(&error), Err(Failure::from(error))),
    };
    output::json(&json!({"ok": problems.is_empty(), "problems": problems}))?;
    outcome
}

fn as_values(error: &ConfigError) -> Vec<serde_json::Value> {
    let problems = error.problems();
    problems.iter().map(|problem| json!(problem)).collect()
}

/// Whether certificates and keys are what they should be and fit together.
fn certificates(config: &Config) -> Result<(), Failure> {
    if !config.runs(Role::Gateway) {
        return Ok(());
    }
    gateway::tls::check(&config.gateway).map_err(|error| {
        Failure::new(Code::Usage, Chain(&error).to_string())
            .with("change: correct [[gateway.certificate]], or the files that it names")
    })
}
