//! What is wrong with a configuration: which place, what was found, what is accepted, what to change.

use std::{fmt, io, path::PathBuf};

use serde::Serialize;

/// Why there is no configuration. Every message names the place and what to change.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "{}: cannot be read: {source}\n  change: name another file with --config, or make it readable",
        path.display()
    )]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why; it is part of the message, since it says all there is.
        source: io::Error,
    },
    /// It was read and does not hold.
    #[error("{}", Lines(.0))]
    Invalid(Vec<Problem>),
}

impl ConfigError {
    /// The single problems, for `check --json`.
    pub fn problems(&self) -> Vec<Problem> {
        match self {
            Self::Invalid(problems) => problems.clone(),
            Self::Read { path, source } => vec![Problem {
                origin: Origin::File {
                    file: path.clone(),
                    line: None,
                },
                key: String::new(),
                problem: format!("cannot be read: {source}"),
                change: "name another file with --config, or make it readable".into(),
            }],
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where the value comes from.
    #[serde(flatten)]
    pub origin: Origin,
    /// The dotted key, e.g. `gateway.listen[0].address`; empty if it is about the whole file.
    pub key: String,
    /// What was found and what is accepted.
    pub problem: String,
    /// What to do.
    pub change: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        write!(f, "{}\n  change: {}", self.problem, self.change)
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Origin {
    /// A file, and the line if the key is in it.
    File {
        /// Which file.
        file: PathBuf,
        /// Which line, from 1.
        #[serde(skip_serializing_if = "Option::is_none")]
        line: Option<usize>,
    },
    /// An environment variable.
    Variable {
        /// Which variable.
        variable: String,
    },
    /// The defaults: there was no file.
    Defaults {},
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File {
                file,
                line: Some(line),
            } => write!(f, "{}:{line}", file.display()),
            Self::File { file, line: None } => write!(f, "{}", file.display()),
            Self::Variable { variable } => write!(f, "environment variable {variable}"),
            Self::Defaults {} => f.write_str("defaults (no configuration file)"),
        }
    }
}

struct Lines<'a>(&'a [Problem]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}
