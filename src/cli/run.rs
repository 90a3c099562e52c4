//! `run`: the roles of the configuration, until a signal.

use std::path::PathBuf;

use super::{Failure, signals};
use crate::{
    app,
    config::{Config, default_file},
};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration [default: config.toml here if there is one, else the defaults]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) async fn run(arguments: Args) -> Result<(), Failure> {
    let path = arguments.config.or_else(default_file);
    let config = load(path.as_ref())?;
    signals::until_stopped(|stop| async move {
        app::run(config, path, stop).await.map_err(Failure::from)
    })
    .await
}

/// The configuration with the files that it names, certificates included.
pub(super) fn load(path: Option<&PathBuf>) -> Result<Config, Failure> {
    Ok(match path {
        Some(path) => Config::load(path)?,
        None => Config::without_file()?,
    })
}
