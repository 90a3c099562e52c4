//! The text of the configuration before it is typed: the file's values, the environment's on top of them, and where each came from.
//!
//! Not here: what the values mean (the table structs), whether they fit together (`check`).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use toml::{
    Spanned, Value,
    de::{DeArray, DeTable, DeValue},
};

use super::error::{ConfigError, Origin, Problem};

/// Environment variables that start so override a key: `CDE_GATEWAY__GATEWAY__ADMIN__ADDRESS=127.0.0.1:9000`.
pub const OVERRIDE_PREFIX: &str = "CDE_GATEWAY__";

/// Values and their places.
#[derive(Debug)]
pub(super) struct Source {
    /// None: there is no file.
    path: Option<PathBuf>,
    /// Dotted key → line.
    lines: BTreeMap<String, usize>,
    /// Dotted key → variable.
    variables: BTreeMap<String, String>,
    /// File and environment, merged.
    pub(super) values: toml::Table,
}

impl Source {
    /// Parses `text` as TOML and puts `overrides` (variable, value) on top.
    pub(super) fn new(
        path: Option<&Path>,
        text: &str,
        overrides: &[(String, String)],
    ) -> Result<Self, ConfigError> {
        let syntax = |error: &toml::de::Error| syntax_problem(path, text, error);
        let spans = DeTable::parse(text).map_err(|error| syntax(&error))?;
        let mut lines = BTreeMap::new();
        Walk {
            text,
            lines: &mut lines,
        }
        .table("", spans.get_ref());
        let mut source = Self {
            path: path.map(Path::to_owned),
            lines,
            variables: BTreeMap::new(),
            values: text.parse().map_err(|error| syntax(&error))?,
        };
        for (variable, value) in overrides {
            source.put(variable, value)?;
        }
        Ok(source)
    }

    /// Where `key` is said; if it is nowhere, where the table is that it would be in.
    pub(super) fn origin(&self, key: &str) -> Origin {
        let mut key = key;
        loop {
            if let Some(variable) = self.variables.get(key) {
                return Origin::Variable {
                    variable: variable.clone(),
                };
            }
            if let Some(line) = self.lines.get(key) {
                return self.file(Some(*line));
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = &key[..end],
                None => return self.file(None),
            }
        }
    }

    fn file(&self, line: Option<usize>) -> Origin {
        match &self.path {
            Some(path) => Origin::File {
                file: path.clone(),
                line,
            },
            None => Origin::Defaults {},
        }
    }

    /// The merged value of a dotted key.
    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        let mut steps = key.split(['.', '[']).map(|step| step.trim_end_matches(']'));
        let mut value = self.values.get(steps.next()?)?;
        for step in steps {
            value = match value {
                Value::Table(table) => table.get(step)?,
                Value::Array(array) => array.get(step.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        Some(value)
    }

    /// One override: `CDE_GATEWAY__A__B` is `a.b`; a number steps into an array.
    fn put(&mut self, variable: &str, text: &str) -> Result<(), ConfigError> {
        let steps: Vec<String> = variable[OVERRIDE_PREFIX.len()..]
            .split("__")
            .map(str::to_ascii_lowercase)
            .collect();
        let refuse = |key: &str, problem: String, change: &str| {
            Err(ConfigError::Invalid(vec![Problem {
                origin: Origin::Variable {
                    variable: variable.to_owned(),
                },
                key: key.to_owned(),
                problem,
                change: change.to_owned(),
            }]))
        };
        if steps.iter().any(String::is_empty) {
            return refuse(
                "",
                "names no key".into(),
                "write the tables and the key with two underscores between them, such as CDE_GATEWAY__GATEWAY__WORKERS",
            );
        }
        let mut place = Place::Table(&mut self.values);
        let mut key = String::new();
        let last = steps.len() - 1;
        for (index, step) in steps.iter().enumerate() {
            let slot = match place {
                Place::Table(table) => {
                    if !key.is_empty() {
                        key.push('.');
                    }
                    key.push_str(step);
                    table
                        .entry(step.clone())
                        .or_insert_with(|| Value::Table(toml::Table::new()))
                }
                Place::Array(array) => {
                    let length = array.len();
                    let Some(number) = step.parse::<usize>().ok().filter(|n| *n <= length) else {
                        return refuse(
                            &key,
                            format!("has {length} entries; {step:?} is none of them"),
                            "write a number from 0 to one beyond the last entry",
                        );
                    };
                    key.push_str(&format!("[{number}]"));
                    if number == length {
                        array.push(Value::Table(toml::Table::new()));
                    }
                    &mut array[number]
                }
            };
            if index == last {
                *slot = parse_value(text);
                break;
            }
            place = match slot {
                Value::Table(table) => Place::Table(table),
                Value::Array(array) => Place::Array(array),
                other => {
                    return refuse(
                        &key,
                        format!("is {other}, which has no keys below it"),
                        "remove the part of the variable's name behind this key",
                    );
                }
            };
        }
        self.variables.insert(key, variable.to_owned());
        Ok(())
    }
}

enum Place<'a> {
    Table(&'a mut toml::Table),
    Array(&'a mut Vec<Value>),
}

/// A number, boolean, list or quoted string as TOML writes it; anything else is the string itself.
fn parse_value(text: &str) -> Value {
    match text.parse::<Value>() {
        Ok(Value::Datetime(_)) | Err(_) => Value::String(text.to_owned()),
        Ok(value) => value,
    }
}

/// Overrides in the environment of this process.
pub(super) fn environment() -> Result<Vec<(String, String)>, ConfigError> {
    let mut overrides = Vec::new();
    for (variable, value) in std::env::vars_os() {
        let Some(variable) = variable
            .to_str()
            .filter(|name| name.starts_with(OVERRIDE_PREFIX))
        else {
            continue;
        };
        let Some(value) = value.to_str() else {
            return Err(ConfigError::Invalid(vec![Problem {
                origin: Origin::Variable {
                    variable: variable.to_owned(),
                },
                key: String::new(),
                problem: "its value is not UTF-8".into(),
                change: "write the value in UTF-8".into(),
            }]));
        };
        overrides.push((variable.to_owned(), value.to_owned()));
    }
    overrides.sort();
    Ok(overrides)
}

fn syntax_problem(path: Option<&Path>, text: &str, error: &toml::de::Error) -> ConfigError {
    let span = error.span();
    let line = span.as_ref().map(|span| line_of(text, span.start));
    let shown = line
        .and_then(|line| text.lines().nth(line - 1))
        .map(|line| format!(": {}", line.trim()))
        .unwrap_or_default();
    ConfigError::Invalid(vec![Problem {
        origin: match path {
            Some(path) => Origin::File {
                file: path.to_owned(),
                line,
            },
            None => Origin::Defaults {},
        },
        key: String::new(),
        problem: format!("is not TOML: {}{shown}", error.message().trim()),
        change: "correct this line; strings are in double quotes, tables in [brackets], every key stands once".into(),
    }])
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
}

/// Notes the line of every key.
struct Walk<'a> {
    text: &'a str,
    lines: &'a mut BTreeMap<String, usize>,
}

impl Walk<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = match prefix {
                "" => name.get_ref().to_string(),
                prefix => format!("{prefix}.{}", name.get_ref()),
            };
            self.lines
                .insert(key.clone(), line_of(self.text, name.span().start));
            self.value(&key, value);
        }
    }

    fn array(&mut self, prefix: &str, array: &DeArray<'_>) {
        for (index, value) in array.iter().enumerate() {
            let key = format!("{prefix}[{index}]");
            self.lines
                .insert(key.clone(), line_of(self.text, value.span().start));
            self.value(&key, value);
        }
    }

    fn value(&mut self, key: &str, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => self.table(key, table),
            DeValue::Array(array) => self.array(key, array),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn a_key_knows_its_line() {
        let text = "roles = []\n[gateway]\nworkers = 1\n[[gateway.listen]]\naddress = \"x\"\n[[gateway.listen]]\n";
        let source = Source::new(Some(Path::new("c.toml")), text, &[]).unwrap();
        assert_eq!(source.origin("gateway.workers").to_string(), "c.toml:3");
        assert_eq!(
            source.origin("gateway.listen[0].address").to_string(),
            "c.toml:5"
        );
        assert_eq!(
            source.origin("gateway.listen[1].address").to_string(),
            "c.toml:6"
        );
        assert_eq!(source.origin("runner.driver").to_string(), "c.toml");
    }

    #[test]
    fn a_variable_overrides_and_is_named_as_the_origin() {
        let overrides = [
            variable("CDE_GATEWAY__GATEWAY__ADMIN__ADDRESS", "127.0.0.1:9000"),
            variable("CDE_GATEWAY__GATEWAY__WORKERS", "3"),
            variable("CDE_GATEWAY__GATEWAY__LISTEN__0__ADDRESS", "[::1]:1"),
            variable("CDE_GATEWAY__ROLES", "[\"gateway\"]"),
        ];
        let text = "[[gateway.listen]]\naddress = \"127.0.0.1:1\"\n";
        let source = Source::new(Some(Path::new("c.toml")), text, &overrides).unwrap();
        let string = |key| source.value(key).unwrap().as_str().unwrap().to_owned();
        assert_eq!(string("gateway.admin.address"), "127.0.0.1:9000");
        assert_eq!(string("gateway.listen[0].address"), "[::1]:1");
        assert_eq!(string("roles[0]"), "gateway");
        assert_eq!(source.value("gateway.workers"), Some(&Value::Integer(3)));
        assert_eq!(
            source.origin("gateway.workers").to_string(),
            "environment variable CDE_GATEWAY__GATEWAY__WORKERS"
        );
    }

    #[test]
    fn a_variable_that_leads_nowhere_is_refused() {
        for (name, text) in [
            ("CDE_GATEWAY__", ""),
            ("CDE_GATEWAY__A____B", ""),
            ("CDE_GATEWAY__ROLES__5", "roles = []"),
            ("CDE_GATEWAY__STATE_DIR__X", "state_dir = \"s\""),
        ] {
            let error = Source::new(None, text, &[variable(name, "1")]).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
