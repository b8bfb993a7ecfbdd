// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What ends a command, and what is said of it.

use std::fmt::Display;
use std::io::{self, Write as _};

/// Why a command came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// It was called in a wrong way.
    #[error("{0}; see zcachesetup --help")]
    Usage(String),
    /// It could not be done.
    #[error("{0}")]
    Failed(String),
    /// The same, and everything has been said.
    #[error("")]
    Said,
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the second kind.
pub(crate) fn failed(text: impl Into<String>) -> Error {
    Error::Failed(text.into())
}

/// What the system says of an error, without the number.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error ").next().unwrap_or_default().to_owned()
}

/// Speaks to standard error, of a line of the table if it is at work on one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Voice {
    place: Option<String>,
}

impl Voice {
    /// Of a line: `FILE:NUMBER`.
    pub(crate) fn of(place: &str) -> Self {
        Self { place: Some(place.to_owned()) }
    }

    pub(crate) fn say(&self, text: impl Display) {
        let place = self.place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
        // Whoever has closed standard error does not want to know.
        let _ = writeln!(io::stderr(), "zcachesetup: {place}{text}");
    }
}

/// Prints what was asked for.
pub(crate) fn print(text: &str) -> Result<()> {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        // `zcachesetup status | head -n 1`
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(failed(format!("cannot print: {}", reason(&error))))
        }
        _ => Ok(()),
    }
}
