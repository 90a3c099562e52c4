//! What a repository's devcontainer.json says that matters here: ports to forward and a command to run after each start.
//!
//! The file is JSON with comments (containers.dev, "Dev Container metadata reference"). Images and features are for drivers
//! with containers.

use std::path::Path;

use serde::Deserialize;

const PLACES: [&str; 2] = [".devcontainer/devcontainer.json", ".devcontainer.json"];
const SIZE_MAX: u64 = 1024 * 1024;

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Devcontainer {
    /// `forwardPorts`: numbers, as far as they are ports of this machine.
    pub(super) ports: Vec<u16>,
    /// `postStartCommand` as an argument vector.
    pub(super) post_start: Option<Vec<String>>,
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
}

/// Reads the file of a repository, if it has one. The error is for the logs: a broken file keeps nobody from working.
pub(super) fn read(repository: &Path) -> Result<Devcontainer, String> {
    for place in PLACES {
        let path = repository.join(place);
        match std::fs::metadata(&path) {
            Ok(meta) if meta.len() > SIZE_MAX => {
                return Err(format!("{place} is larger than {SIZE_MAX} bytes"));
            }
            Ok(_) => {
                let text = std::fs::read_to_string(&path)
                    .map_err(|error| format!("cannot read {place}: {error}"))?;
                return parse(&text).map_err(|error| format!("cannot parse {place}: {error}"));
            }
            Err(_) => {}
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
            .take(32)
            .collect(),
        post_start: raw.post_start_command.map(|command| match command {
            Command::Shell(line) => vec!["/bin/sh".into(), "-c".into(), line],
            Command::Arguments(arguments) => arguments,
        }),
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
        assert_eq!(read.post_start.unwrap(), ["/bin/sh", "-c", "npm start"]);
        assert_eq!(
            parse(r#"{"postStartCommand": ["a", "b"]}"#)
                .unwrap()
                .post_start
                .unwrap(),
            ["a", "b"]
        );
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
