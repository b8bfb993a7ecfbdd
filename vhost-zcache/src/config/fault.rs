// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is wrong with a configuration, and where.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Faults that are told. There is no use in more at a time.
const MOST: usize = 100;

/// Characters of a fault that are told, which may repeat what the file says.
const LONGEST: usize = 300;

/// Where something was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Origin {
    /// On the command line.
    CommandLine,
    /// In the file, at a line and column, both from 1 on. A column is a character.
    File(usize, usize),
    /// In what was asked for while the daemon runs.
    Alteration,
}

impl Origin {
    /// A byte of a text.
    #[must_use]
    pub fn of(text: &str, byte: usize) -> Self {
        // Where something is missing is just behind the text.
        let before = text.get(..byte.min(text.len())).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self::File(before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

/// A value, and where it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given<T> {
    /// The value.
    pub value: T,
    /// Where.
    pub at: Origin,
}

impl<T> Given<T> {
    /// One of the command line.
    pub const fn on_command_line(value: T) -> Self {
        Self { value, at: Origin::CommandLine }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fault {
    /// Where.
    pub at: Origin,
    /// What, in one line.
    pub text: String,
}

impl Fault {
    /// A fault.
    #[must_use]
    pub fn new(at: Origin, text: impl fmt::Display) -> Self {
        let text = text.to_string();
        let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        Self { at, text: line.take(LONGEST).collect() }
    }
}

/// All that is wrong, or why nobody knows.
#[derive(Debug)]
pub enum Faults {
    /// The file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// Faults, of the file if there is one, in their order.
    Found(Option<PathBuf>, Vec<Fault>),
}

impl Faults {
    /// Faults, in the order of their places.
    #[must_use]
    pub fn new(file: Option<&Path>, mut faults: Vec<Fault>) -> Self {
        faults.sort();
        faults.dedup();
        Self::Found(file.map(PathBuf::from), faults)
    }

    /// A line for each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Unreadable(path, error) => vec![format!("Cannot read {}: {error}", path.display())],
            Self::Found(file, faults) => {
                let line = |fault: &Fault| match (fault.at, file) {
                    (Origin::File(line, column), Some(file)) => {
                        format!("{}:{line}:{column}: {}", file.display(), fault.text)
                    }
                    _ => fault.text.clone(),
                };
                let mut lines: Vec<String> = faults.iter().take(MOST).map(line).collect();
                if faults.len() > MOST {
                    lines.push(format!("and {} more faults", faults.len() - MOST));
                }
                lines
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_lines_and_characters() {
        let text = "a = 1\n# é\nß = 2\n";
        let place = |part: &str| Origin::of(text, text.find(part).unwrap());
        assert_eq!(place("a"), Origin::File(1, 1));
        assert_eq!(place("1"), Origin::File(1, 5));
        assert_eq!(place("ß"), Origin::File(3, 1));
        assert_eq!(place("2"), Origin::File(3, 5), "a column is a character, not a byte");
        assert_eq!(Origin::of(text, text.len()), Origin::File(4, 1));
        assert_eq!(Origin::of(text, usize::MAX), Origin::File(4, 1));
    }

    #[test]
    fn faults_have_an_order_and_are_told_once() {
        let fault = |line, text| Fault::new(Origin::File(line, 1), text);
        let faults = vec![fault(3, "c"), fault(1, "a\nb"), Fault::new(Origin::CommandLine, "x"), fault(3, "c")];
        let faults = Faults::new(Some(Path::new("f")), faults);
        assert_eq!(faults.lines(), ["x", "f:1:1: a b", "f:3:1: c"]);
    }

    #[test]
    fn there_is_an_end_to_faults() {
        let faults = (0..1000).map(|line| Fault::new(Origin::File(line, 1), "wrong")).collect();
        let lines = Faults::new(Some(Path::new("f")), faults).lines();
        assert_eq!(lines.len(), MOST + 1);
        assert_eq!(lines[MOST], "and 900 more faults");
    }
}
