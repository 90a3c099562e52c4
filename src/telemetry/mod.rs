//! What the program tells its operator: the operating log on standard error, and how an error is written.
//!
//! Not here: the access log (`gateway::account` writes it, on its own target) and the metrics of each role.

mod chain;

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt};

pub use chain::Chain;

/// Which levels are logged, as `tracing` filters are written: `warn`, `info,cde_gateway::gateway=debug`.
pub const FILTER_VARIABLE: &str = "CDE_LOG";

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error(
        "{FILTER_VARIABLE} is {value:?}: {source}\nwrite a level (error, warn, info, debug, trace), or target=level pairs joined by commas"
    )]
    Filter {
        /// What it was.
        value: String,
        /// Why; part of the message.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A log was set up before.
    #[error("the log was set up twice")]
    Twice,
}

/// Sets up the operating log: standard error, RFC 3339 in UTC, filtered by `CDE_LOG`, else by `default`.
pub fn init(format: LogFormat, default: &str) -> Result<(), TelemetryError> {
    let value = std::env::var(FILTER_VARIABLE).unwrap_or_default();
    let filter = filter(&value, default)?;
    let log = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let outcome = match format {
        LogFormat::Json => log.json().flatten_event(true).try_init(),
        LogFormat::Text => {
            let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            log.with_ansi(!plain && std::io::stderr().is_terminal())
                .try_init()
        }
    };
    outcome.map_err(|_| TelemetryError::Twice)
}

fn filter(value: &str, default: &str) -> Result<EnvFilter, TelemetryError> {
    let wanted = if value.is_empty() { default } else { value };
    EnvFilter::try_new(wanted).map_err(|source| TelemetryError::Filter {
        value: value.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named_with_what_to_write() {
        assert!(filter("", "info").is_ok() && filter("warn,cde_gateway=debug", "info").is_ok());
        let message = filter("cde_gateway=loud", "info").unwrap_err().to_string();
        assert!(
            message.contains("CDE_LOG") && message.contains("debug"),
            "{message}"
        );
    }
}
