//! From text to a checked [`Config`]: merge, type, check, make paths absolute to the file's folder.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{
    Config, check,
    check::Finding,
    error::{ConfigError, Problem},
    source::{self, Source},
};

impl Config {
    /// Reads `path`, puts the environment's overrides on top, and checks everything, the files that it names included.
    ///
    /// Relative paths in it start at its folder.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let (config, source) = Self::from_file(path)?;
        located(&source, check::files(&config))?;
        Ok(config)
    }

    /// Like [`Config::load`], without a look at the files that it names: for commands that use none of them.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::from_file(path).map(|(config, _)| config)
    }

    /// The defaults with the environment's overrides, where there is no file.
    pub fn without_file() -> Result<Self, ConfigError> {
        let (config, source) = Self::from_text(None, "", &source::environment()?)?;
        located(&source, check::files(&config))?;
        Ok(config)
    }

    fn from_file(path: &Path) -> Result<(Self, Source), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::from_text(Some(path), &text, &source::environment()?)
    }

    /// The pure part: `overrides` are pairs of variable and value.
    pub(super) fn from_text(
        path: Option<&Path>,
        text: &str,
        overrides: &[(String, String)],
    ) -> Result<(Self, Source), ConfigError> {
        let source = Source::new(path, text, overrides)?;
        let mut config: Self = serde_path_to_error::deserialize(source.values.clone())
            .map_err(|error| ConfigError::Invalid(vec![mistyped(&source, &error)]))?;
        if let Some(folder) = path.and_then(Path::parent) {
            config.start_paths_at(folder);
        }
        located(&source, check::keys(&config))?;
        Ok((config, source))
    }

    fn start_paths_at(&mut self, folder: &Path) {
        let Self {
            state_dir,
            gateway,
            control_plane,
            delegate,
            runner,
            route,
            roles: _,
        } = self;
        let certificates = gateway
            .certificate
            .iter_mut()
            .flat_map(|certificate| [&mut certificate.chain, &mut certificate.key]);
        let client_authorities = gateway
            .listen
            .iter_mut()
            .filter_map(|listen| listen.client_ca.as_mut());
        let issuers = gateway.issuer.iter_mut().flat_map(|issuer| {
            let keys = issuer
                .key
                .iter_mut()
                .flat_map(|key| [&mut key.public_key_file, &mut key.secret_file]);
            keys.chain([&mut issuer.jwks_file, &mut issuer.jwks_ca_file])
                .flatten()
        });
        let authorities = route.iter_mut().flat_map(|route| {
            let ports = route.ports.values_mut().map(|port| &mut port.tls_ca);
            ports.chain([&mut route.tls_ca]).flatten()
        });
        let others = [
            &mut gateway.routes_file,
            &mut gateway.keys.file,
            &mut gateway.admin.token_file,
            &mut gateway.control_plane.token_file,
            &mut control_plane.database,
            &mut control_plane.user_token_file,
            &mut control_plane.gateway_token_file,
            &mut control_plane.delegate_token_file,
            &mut delegate.token_file,
            &mut delegate.runner_token_file,
            &mut runner.token_file,
            &mut runner.instances,
        ];
        let chp = gateway.chp.as_mut().and_then(|chp| chp.token_file.as_mut());
        let all = others
            .into_iter()
            .flatten()
            .chain(chp)
            .chain(certificates)
            .chain(issuers)
            .chain(authorities)
            .chain(client_authorities);
        for path in all.chain([state_dir]) {
            *path = folder.join(&*path);
        }
        let log = &mut gateway.access_log.path;
        if !log.is_empty() && log != "-" {
            *log = folder.join(&*log).to_string_lossy().into_owned();
        }
    }
}

/// Findings with their places, or nothing if there are none.
fn located(source: &Source, findings: Vec<Finding>) -> Result<(), ConfigError> {
    if findings.is_empty() {
        return Ok(());
    }
    let problems = findings.into_iter().map(|finding| Problem {
        origin: source.origin(&finding.key),
        key: finding.key,
        problem: finding.problem,
        change: finding.change,
    });
    Err(ConfigError::Invalid(problems.collect()))
}

/// Turns serde's message into one that says what to change.
fn mistyped(source: &Source, error: &serde_path_to_error::Error<toml::de::Error>) -> Problem {
    let key = match error.path().to_string() {
        path if path == "." => String::new(),
        path => path,
    };
    let message = error.inner().message().trim().to_owned();
    let (problem, change) = explain(&message, source.value(&key));
    Problem {
        origin: source.origin(&key),
        key,
        problem,
        change,
    }
}

/// What was found and accepted, and what to change.
fn explain(message: &str, found: Option<&toml::Value>) -> (String, String) {
    let (quoted, expected) = quoted(message);
    if message.starts_with("unknown field") || message.starts_with("unknown variant") {
        let unknown = quoted.unwrap_or_default();
        let what = if message.starts_with("unknown field") {
            "is no key of this table"
        } else {
            "is not accepted"
        };
        let change = match nearest(&unknown, &expected) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "remove it, or write one of them".into(),
        };
        let accepted = expected.join(", ");
        return (format!("`{unknown}` {what}; accepted: {accepted}"), change);
    }
    if let Some(missing) = message.strip_prefix("missing field ") {
        let missing = missing.trim_matches('`');
        return (
            format!("the key `{missing}` is missing"),
            format!("add `{missing} = …` to this table"),
        );
    }
    let found = match found {
        Some(toml::Value::String(text)) => format!("{text:?}"),
        Some(toml::Value::Table(_)) => "a table".into(),
        Some(toml::Value::Array(_)) => "a list".into(),
        Some(other) => other.to_string(),
        None => return (message.to_owned(), "correct the value".into()),
    };
    let change = hint(message);
    match message
        .split_once(", expected ")
        .filter(|_| message.starts_with("invalid "))
    {
        Some((_, accepted)) => {
            let accepted = match accepted {
                "usize" => "a whole number, 0 or more",
                "a nonzero u16" => "a whole number from 1 to 65535",
                "a nonzero u32" => "a whole number from 1 to 4294967295",
                "path string" => "a path in quotes",
                other => other,
            };
            (format!("is {found}; accepted: {accepted}"), change)
        }
        None if message.starts_with(&found) => (format!("is {message}"), change),
        None => (format!("is {found}: {message}"), change),
    }
}

/// What to write instead, by what the parser said.
fn hint(message: &str) -> String {
    let hints = [
        (
            "socket address",
            "write an IP address and a port, such as \"127.0.0.1:8443\" or \"[::1]:8443\"",
        ),
        (
            "IP address",
            "write a network, such as \"10.0.0.0/8\" or \"fd00::/8\"",
        ),
        (
            "duration",
            "write a whole number and a unit, such as \"250ms\", \"8s\", \"15m\" or \"1h\"",
        ),
        ("nonzero u16", "write a whole number from 1 to 65535"),
        ("nonzero", "write a whole number from 1 to 4294967295"),
        ("expected usize", "write a whole number, 0 or more"),
        ("expected a boolean", "write true or false"),
        ("expected a string", "write it in double quotes"),
        ("expected path string", "write a path in double quotes"),
        ("expected a sequence", "write a list, such as [\"…\"]"),
        ("expected struct", "write a table here"),
    ];
    hints
        .iter()
        .find(|(part, _)| message.contains(part))
        .map_or("correct the value".into(), |(_, change)| (*change).into())
}

/// The first word in backticks, and those after `expected`.
fn quoted(message: &str) -> (Option<String>, Vec<String>) {
    let (before, after) = message.split_once("expected").unwrap_or((message, ""));
    let words = |text: &str| -> Vec<String> {
        text.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    };
    (words(before).into_iter().next(), words(after))
}

/// The accepted word that was probably meant.
fn nearest<'a>(word: &str, accepted: &'a [String]) -> Option<&'a String> {
    accepted
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The file that is read when none is named: `config.toml` here, if it is there.
pub fn default_file() -> Option<PathBuf> {
    let path = PathBuf::from("config.toml");
    path.is_file().then_some(path)
}

/// The names of the keys that a table accepts, asked of the table itself; for the test of the reference file.
pub fn accepted_keys<'de, T: Deserialize<'de>>() -> Vec<String> {
    let mut table = toml::Table::new();
    table.insert("\u{0}".into(), toml::Value::Boolean(true));
    match T::deserialize(table) {
        Ok(_) => Vec::new(),
        Err(error) => quoted(error.message()).1,
    }
}
