//! What a repository's devcontainer.json says that matters here: ports to forward and a command to run after each start.
//!
//! The file is JSON with comments (containers.dev, "Dev Container metadata reference"). Images and features are for drivers
//! with containers.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

const PLACES: [&str; 2] = [".devcontainer/devcontainer.json", ".devcontainer.json"];
const SIZE_MAX: u64 = 1024 * 1024;
const PORTS_MAX: usize = 32;
const COMMANDS_MAX: usize = 32;

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Devcontainer {
    /// `forwardPorts`: numbers, as far as they are ports of this machine.
    pub(super) ports: Vec<u16>,
    /// `postStartCommand` as argument vectors, which run beside each other.
    pub(super) post_start: Vec<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    forward_ports: Vec<serde_json::Value>,
    post_start_command: Option<Command>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Command {
    Shell(String),
    Arguments(Vec<String>),
    /// Several at once, by name.
    Several(BTreeMap<String, Self>),
}

impl Command {
    fn arguments(self) -> Vec<Vec<String>> {
        match self {
            Self::Shell(line) => vec![vec!["/bin/sh".into(), "-c".into(), line]],
            Self::Arguments(arguments) => vec![arguments],
            Self::Several(commands) => commands
                .into_values()
                .flat_map(Self::arguments)
                .take(COMMANDS_MAX)
                .collect(),
        }
    }
}

/// Reads the file of a repository, if it has one. The error is for the logs: a broken file keeps nobody from working.
pub(super) fn read(repository: &Path) -> Result<Devcontainer, String> {
    for place in PLACES {
        let path = repository.join(place);
        match std::fs::metadata(&path) {
            Ok(meta) if meta.len() > SIZE_MAX => {
                return Err(format!("{place} is larger than {SIZE_MAX} bytes"));
            }
            // Anything else may never end.
            Ok(meta) if meta.is_file() => {
                let text = std::fs::read_to_string(&path)
                    .map_err(|error| format!("cannot read {place}: {error}"))?;
                return parse(&text).map_err(|error| format!("cannot parse {place}: {error}"));
            }
            _ => {}
        }
    }
    Ok(Devcontainer::default())
}

fn parse(text: &str) -> Result<Devcontainer, String> {
    let raw: Raw = jsonc_parser::parse_to_serde_value(text, &jsonc_parser::ParseOptions::default())
        .map_err(|error| error.to_string())?;
    let ports = raw
        .forward_ports
        .iter()
        .filter_map(serde_json::Value::as_u64);
    Ok(Devcontainer {
        ports: ports
            .filter_map(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0)
            .take(PORTS_MAX)
            .collect(),
        post_start: raw
            .post_start_command
            .map(Command::arguments)
            .unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_trailing_commas_are_fine() {
        let text = r#"{ // a comment
            "image": "x", "forwardPorts": [3000, "db:5432", 0, 70000], "postStartCommand": "npm start", }"#;
        let read = parse(text).unwrap();
        assert_eq!(read.ports, [3000]);
        assert_eq!(read.post_start, [["/bin/sh", "-c", "npm start"]]);
    }

    #[test]
    fn a_command_may_be_arguments_or_several() {
        let commands = |text| parse(text).unwrap().post_start;
        let arguments = r#"{"postStartCommand": ["a", "b"]}"#;
        assert_eq!(commands(arguments), [["a", "b"]]);
        let several = r#"{"postStartCommand": {"one": "a", "two": ["b"]}}"#;
        assert_eq!(commands(several), [vec!["/bin/sh", "-c", "a"], vec!["b"]]);
        assert!(commands(r#"{"forwardPorts": []}"#).is_empty());
    }

    #[test]
    fn a_broken_file_says_where() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()), Ok(Devcontainer::default()));
        std::fs::write(folder.path().join(".devcontainer.json"), "{ nonsense").unwrap();
        assert!(
            read(folder.path())
                .unwrap_err()
                .starts_with("cannot parse .devcontainer.json")
        );
    }
}
