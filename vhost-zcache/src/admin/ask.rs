// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vhost-zcache upgrade` and `vhost-zcache reload`: ask a running daemon for something, and say
//! what has come of it. [`crate::keeper::control`] is the other end.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use thiserror::Error;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// To take the newer program.
    Upgrade,
    /// To read the configuration again.
    Reload {
        /// Connections of guests that it does not have any more are ended.
        disconnect: bool,
    },
}

const WORDS: [(Wish, &str); 3] = [
    (Wish::Upgrade, "upgrade\n"),
    (Wish::Reload { disconnect: false }, "reload\n"),
    (Wish::Reload { disconnect: true }, "reload --disconnect\n"),
];

/// Bytes of what is asked for at most.
pub const LONGEST_WISH: usize = 32;

impl Wish {
    /// What somebody wants who says so.
    #[must_use]
    pub fn of(said: &[u8]) -> Option<Self> {
        WORDS.iter().find(|(_, word)| word.as_bytes() == said).map(|(wish, _)| *wish)
    }

    fn word(self) -> &'static str {
        WORDS.iter().find(|(wish, _)| *wish == self).map_or("", |(_, word)| word)
    }
}

/// How an answer begins: what has come of it follows, or why nothing has.
pub const DONE: &str = "done";
/// The other.
pub const REFUSED: &str = "refused";

/// Most bytes of an answer that are looked at.
const MOST: u64 = 256 << 10;

/// Why it was not done.
#[derive(Debug, Error)]
pub enum AskError {
    /// There is no daemon at the socket, or not for this user.
    #[error("Cannot ask the daemon at {0}: {1}")]
    NoDaemon(String, io::Error),
    /// The daemon has ended, or is none.
    #[error("The daemon at {0} has not said what has come of it")]
    NoAnswer(String),
    /// It goes on as it did.
    #[error("{0}")]
    Refused(String),
}

/// Asks the daemon at a control socket for something; what has come of it.
///
/// # Errors
///
/// [`AskError`]; a refusal may have several lines.
pub fn ask(socket: &Path, wish: Wish) -> Result<String, AskError> {
    let name = || socket.display().to_string();
    let ask = || -> io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(wish.word().as_bytes())?;
        // The daemon knows how long it takes, and that it comes to an end.
        let mut answer = Vec::new();
        stream.take(MOST).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
    };
    let answer = ask().map_err(|error| AskError::NoDaemon(name(), error))?;
    match answer.split_once(' ') {
        Some((DONE, what)) => Ok(what.to_owned()),
        Some((REFUSED, why)) => Err(AskError::Refused(why.to_owned())),
        _ => Err(AskError::NoAnswer(name())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_understood() {
        for (wish, word) in WORDS {
            assert_eq!(Wish::of(word.as_bytes()), Some(wish));
            assert_eq!(wish.word(), word);
            assert!(word.len() <= LONGEST_WISH, "{word:?} is too long to be heard");
        }
        assert_eq!(Wish::of(b"reload"), None);
    }
}
