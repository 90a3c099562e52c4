//! `config.toml` and the examples under `tests/config`: every file of `valid` loads, every file of `invalid` is refused
//! with the words that its first lines expect.
//!
//! Not here: how the overrides of the environment are merged (unit tests of `config`), the exit code (`cli`).

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::path::{Path, PathBuf};

use cde_gateway::config::{self, Config};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn examples(folder: &str) -> Vec<PathBuf> {
    let folder = root().join("tests/config").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
        .collect();
    files.sort();
    files
}

#[test]
fn every_valid_example_loads() {
    let files = examples("valid");
    assert!(files.len() >= 4, "only {} examples", files.len());
    for file in files {
        if let Err(error) = Config::load(&file) {
            panic!("{} is refused: {error}", file.display());
        }
    }
}

#[test]
fn every_invalid_file_states_its_error() {
    let files = examples("invalid");
    assert!(files.len() >= 40, "only {} examples", files.len());
    for file in files {
        let name = file.display();
        let text = std::fs::read_to_string(&file).unwrap();
        let expected: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# expect: "))
            .collect();
        assert!(!expected.is_empty(), "{name} states no message");
        let message = match Config::load(&file) {
            Ok(_) => panic!("{name} is accepted"),
            Err(error) => error.to_string(),
        };
        for part in expected {
            assert!(
                message.contains(part),
                "{name}\n expected {part}\n got {message}"
            );
        }
        assert!(
            message.contains(file.to_str().unwrap()),
            "{name}: names no file: {message}"
        );
        assert!(
            message.contains("change: "),
            "{name}: says no change: {message}"
        );
    }
}

#[test]
fn the_config_file_of_the_repository_starts_as_it_is() {
    let file = root().join("config.toml");
    let loaded = Config::load(&file).unwrap();
    let expected = Config {
        state_dir: root().join("state"),
        ..Config::default()
    };
    assert_eq!(format!("{loaded:#?}"), format!("{expected:#?}"));
}

/// The reference with its examples switched on.
fn uncommented() -> toml::Table {
    let text = std::fs::read_to_string(root().join("config.toml")).unwrap();
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(example) if !example.starts_with(' ') => example,
        _ => line,
    });
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    text.parse().unwrap()
}

#[test]
fn the_examples_in_the_config_file_of_the_repository_are_accepted() {
    uncommented().try_into::<Config>().unwrap();
}

#[test]
fn the_config_file_of_the_repository_names_every_key() {
    let whole = toml::Value::Table(uncommented());
    let mut seen = 0;
    let mut shows = |path: &[&str], keys: Vec<String>| {
        let mut tables = vec![&whole];
        for step in path {
            tables = tables
                .into_iter()
                .filter_map(|table| table.get(step))
                .flat_map(|value| match value {
                    toml::Value::Array(entries) => entries.iter().collect(),
                    other => vec![other],
                })
                .collect();
        }
        assert!(!keys.is_empty(), "{path:?} has no keys");
        for key in keys {
            seen += 1;
            assert!(
                tables.iter().any(|table| table.get(&key).is_some()),
                "config.toml does not show {}.{key}",
                path.join(".")
            );
        }
    };
    macro_rules! shows {
        ($($path:expr => $table:ident),* $(,)?) => {
            $(shows(&$path, config::accepted_keys::<config::$table>());)*
        };
    }
    shows! {
        [] => Config,
        ["gateway"] => Gateway,
        ["gateway", "listen"] => Listen,
        ["gateway", "certificate"] => Certificate,
        ["gateway", "issuer"] => Issuer,
        ["gateway", "issuer", "key"] => IssuerKey,
        ["gateway", "auth"] => Auth,
        ["gateway", "keys"] => Keys,
        ["gateway", "headers"] => Headers,
        ["gateway", "upstreams"] => Upstreams,
        ["gateway", "timeouts"] => Timeouts,
        ["gateway", "limits"] => Limits,
        ["gateway", "admin"] => Admin,
        ["gateway", "chp"] => Chp,
        ["gateway", "control_plane"] => ControlPlaneLink,
        ["gateway", "access_log"] => AccessLog,
        ["control_plane"] => ControlPlane,
        ["delegate"] => Delegate,
        ["runner"] => Runner,
        ["route"] => RouteEntry,
        ["route", "ports", "3000"] => PortEntry,
    }
    assert!(seen > 80, "only {seen} keys were looked for");
}

#[test]
fn the_process_driver_is_refused_beside_an_open_listener() {
    let file = root().join("tests/config/invalid/process-driver-off-loopback.toml");
    let message = Config::load(&file).unwrap_err().to_string();
    assert!(message.contains("isolates nothing"), "{message}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("/no/such/config.toml")).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("/no/such/config.toml: cannot be read"),
        "{error}"
    );
}
