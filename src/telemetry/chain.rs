//! An error with its causes in one line.

use std::{error::Error, fmt};

/// Prints an error and its sources, each once: `cannot open the store: disk full`.
pub struct Chain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut next = self.0.source();
        while let Some(source) = next {
            let text = source.to_string();
            // Some libraries repeat their source in their own message.
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
            next = source.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Step {
        text: &'static str,
        #[source]
        source: Option<Box<Self>>,
    }

    fn step(text: &'static str, source: Option<Step>) -> Step {
        let source = source.map(Box::new);
        Step { text, source }
    }

    #[test]
    fn every_cause_is_said_once() {
        let disk = step("disk full", None);
        let repeats = step("write failed: disk full", Some(disk));
        let top = step("cannot keep the task", Some(repeats));
        assert_eq!(
            Chain(&top).to_string(),
            "cannot keep the task: write failed: disk full"
        );
    }
}
