//! Data to standard output, words to standard error.

use std::io::{self, Write};

use serde::Serialize;

use super::{Code, Failure};

/// Data: one or more whole lines.
pub(super) fn data(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
    written.map_err(|error| {
        Failure::new(
            Code::Failed,
            format!("cannot write to standard output: {error}"),
        )
    })
}

/// Data as one line of JSON.
pub(super) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value)
        .map_err(|error| Failure::new(Code::Failed, format!("cannot write JSON: {error}")))?;
    data(&text)
}

/// Words. A closed standard error stops nothing.
pub(super) fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Columns, as wide as their widest cell; the last one is not padded.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(|&cell| cell.to_owned()).collect();
    let lines = || std::iter::once(&header).chain(rows);
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            lines()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![
            vec!["api-k3x9q2".to_owned(), "running".to_owned()],
            vec!["a".to_owned(), "stopped".to_owned()],
        ];
        assert_eq!(
            table(&["ID", "STATE"], &rows),
            "ID          STATE\napi-k3x9q2  running\na           stopped"
        );
    }
}
