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
        let _ = writeln!(io::stderr(), "{}", visible(&format!("zcachesetup: {place}{text}")));
    }
}

/// What can't be seen is spelt out: it may be what is wrong, and must neither move the cursor nor
/// make two lines of one.
fn visible(text: &str) -> String {
    let mut seen = String::new();
    for c in text.chars() {
        match c {
            '\'' | '"' | '\\' => seen.push(c),
            _ => seen.extend(c.escape_debug()),
        }
    }
    seen
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_visible_line() {
        for (text, seen) in [
            ("a 'b' \"c\" \\x20 \u{e4}", "a 'b' \"c\" \\x20 \u{e4}"),
            ("a\nb\r\t\0", "a\\nb\\r\\t\\0"),
            ("\u{1b}[31m", "\\u{1b}[31m"),
            ("\u{feff}a\u{200b}", "\\u{feff}a\\u{200b}"),
        ] {
            assert_eq!(visible(text), seen);
        }
    }
}
