// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Asks a running daemon for something, and says what has come of it: the end of the control socket
//! at which operators are. [`crate::keeper::control`] is the other end, [`super::wish`] what can be
//! asked for.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use thiserror::Error;

use super::wish::Wish;

/// How an answer begins: what has come of it follows, or why nothing has.
pub const DONE: &str = "done";
/// The other.
pub const REFUSED: &str = "refused";

/// Most bytes of an answer that are looked at.
pub const LONGEST_ANSWER: u64 = 256 << 10;

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
pub fn ask(socket: &Path, wish: &Wish) -> Result<String, AskError> {
    let name = || socket.display().to_string();
    let ask = || -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(wish.line().as_bytes())?;
        // The daemon knows how long it takes, and that it comes to an end.
        let mut answer = Vec::new();
        stream.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| AskError::NoDaemon(name(), error))?;
    understood(&answer).unwrap_or_else(|| Err(AskError::NoAnswer(name())))
}

/// What an answer says, if it is one.
#[must_use]
pub fn understood(answer: &[u8]) -> Option<Result<String, AskError>> {
    let answer = String::from_utf8_lossy(answer);
    match answer.trim_end().split_once(' ')? {
        (DONE, what) => Some(Ok(what.to_owned())),
        (REFUSED, why) => Some(Err(AskError::Refused(why.to_owned()))),
        _ => None,
    }
}
