//! Arguments → what to run.
//!
//! Standard output is data, standard error is words. Exit codes: see [`Code`].

mod check;
mod demo;
mod failure;
mod gitspace;
mod keys;
mod output;
mod run;
mod session;
mod signals;
mod token;
mod upgrade;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{agent, telemetry::LogFormat};

pub use failure::{Code, Failure};

/// The gateway for self-hosted cloud development environments
#[derive(Debug, Parser)]
#[command(version, disable_help_subcommand = true, after_help = AFTER_HELP)]
pub struct Arguments {
    /// How the log is written to standard error; CDE_LOG says what, such as CDE_LOG=debug
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 not found, 4 login needed, 5 not allowed, \
6 wrong state or conflict, 7 limit, 8 unreachable, 9 timeout";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the roles that the configuration names
    Run(run::Args),
    /// Check a configuration and the files that it names; start nothing
    Check(check::Args),
    /// Run everything on temporary state with one gitspace in it
    Demo(demo::Args),
    /// Make and use gitspaces
    Gitspace(gitspace::Args),
    /// Let another program take the place of the running one, without an end of any connection
    Upgrade(upgrade::Args),
    /// See who is connected to a gateway, and end connections
    Session(session::Args),
    /// Make and read access tokens
    Token(token::Args),
    /// Rotate the keys that seal sessions and links and sign assertions
    Keys(keys::Args),
    /// Serve inside an instance; a runner starts it
    #[command(hide = true)]
    Agent(agent::Args),
}

/// Reads the command line. Help and mistakes are printed; then the exit code comes back.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Arguments, ExitCode> {
    Arguments::try_parse_from(arguments).map_err(|error| {
        // Nothing can be done if the terminal is gone.
        let _ = error.print();
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
    })
}

impl Arguments {
    /// What is logged unless `CDE_LOG` says otherwise: where people read along, only what is wrong.
    pub fn default_log(&self) -> &'static str {
        match self.command {
            Command::Run(_) | Command::Agent(_) => "info",
            Command::Check(_)
            | Command::Demo(_)
            | Command::Gitspace(_)
            | Command::Session(_)
            | Command::Upgrade(_)
            | Command::Token(_)
            | Command::Keys(_) => "warn",
        }
    }

    /// Does what was asked for.
    pub async fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Run(arguments) => run::run(arguments).await,
            Command::Check(arguments) => check::run(&arguments),
            Command::Demo(arguments) => demo::run(arguments).await,
            Command::Gitspace(arguments) => gitspace::run(arguments).await,
            Command::Session(arguments) => session::run(arguments).await,
            Command::Upgrade(arguments) => upgrade::run(arguments).await,
            Command::Agent(arguments) => agent::run(arguments).await.map_err(Failure::system),
            Command::Token(arguments) => token::run(arguments),
            Command::Keys(arguments) => keys::run(arguments),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_of_the_arguments_holds() {
        Arguments::command().debug_assert();
    }
}
