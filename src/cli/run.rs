//! `run`: the roles of the configuration, until a signal.

use std::path::PathBuf;

use super::{Failure, signals};
use crate::{
    app::{
        self, AppError,
        handover::takeover::{self, TakeOver},
    },
    config::{Config, default_file},
};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration [default: config.toml here if there is one, else the defaults]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// In the place of the process that starts it, which has its end of standard input
    #[arg(long, hide = true)]
    takes_over: bool,
}

pub(super) async fn run(arguments: Args) -> Result<(), Failure> {
    let path = arguments.config.or_else(default_file);
    let taken = match arguments.takes_over {
        true => Some(takeover::receive().map_err(AppError::from)?),
        false => None,
    };
    let link = taken.as_ref().map(|taken| taken.link.clone());
    let outcome = serve(path, taken).await;
    if let (Err(failure), Some(link)) = (&outcome, link) {
        link.failed(failure.what());
    }
    outcome
}

async fn serve(path: Option<PathBuf>, taken: Option<TakeOver>) -> Result<(), Failure> {
    let config = load(path.as_ref())?;
    signals::until_stopped(|stop| async move {
        app::run(config, path, stop, taken)
            .await
            .map_err(Failure::from)
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
