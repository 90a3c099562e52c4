//! `keys`: the gateway's own keys, rotated. Gateways that run take the new ones over by a reload.

use std::path::PathBuf;

use super::{Code, Failure, output, run::load};
use crate::{
    config::default_file,
    gateway::auth::{keys_file, rotate_keys},
    telemetry::Chain,
};

/// Arguments of `keys`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Seal and sign with new keys from the next reload on; what the current ones made counts until the next rotation
    Rotate(Rotate),
}

#[derive(Debug, clap::Args)]
struct Rotate {
    /// The configuration that names the keys [default: config.toml here if there is one, else the defaults]
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(arguments: Args) -> Result<(), Failure> {
    let Command::Rotate(rotate) = arguments.command;
    let config = load(rotate.config.or_else(default_file).as_ref())?;
    let path = keys_file(&config.gateway, &config.state_dir);
    let known = rotate_keys(&path).map_err(|error| {
        Failure::new(Code::Failed, Chain(&error).to_string())
            .with("change: name the configuration of the gateway whose keys are meant (--config)")
    })?;
    output::say(&format!(
        "{}: rotated; reload every gateway that uses it (SIGHUP, or POST /v1/reload)",
        path.display()
    ));
    if !known {
        output::say(
            "the file had no next keys: reload the gateways at the same time, or some refuse what others made meanwhile",
        );
    }
    Ok(())
}
