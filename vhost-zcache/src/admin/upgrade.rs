// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `vhost-zcache upgrade`: asks a running daemon to take the newer program, and says what has come
//! of it. [`crate::keeper::control`] is the other end.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use thiserror::Error;

/// What is asked for.
pub const UPGRADE: &[u8] = b"upgrade\n";

/// How an answer begins: the release that serves follows, or why it is the one before.
pub const DONE: &str = "done";
/// The other.
pub const REFUSED: &str = "refused";

/// Most bytes of an answer that are looked at.
const MOST: u64 = 4096;

/// Why the daemon is not of the newer program.
#[derive(Debug, Error)]
pub enum UpgradeError {
    /// There is no daemon at the socket, or not for this user.
    #[error("Cannot ask the daemon at {0}: {1}")]
    NoDaemon(String, io::Error),
    /// The daemon has ended, or is none.
    #[error("The daemon at {0} has not said what has come of it")]
    NoAnswer(String),
    /// It goes on with the program that it has.
    #[error("No upgrade: {0}")]
    Refused(String),
}

/// Has the daemon at a control socket take the newer program; the release that serves.
///
/// # Errors
///
/// [`UpgradeError`], one line for the user.
pub fn run(socket: &Path) -> Result<String, UpgradeError> {
    let name = || socket.display().to_string();
    let ask = || -> io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(UPGRADE)?;
        // The daemon knows how long it takes, and that it comes to an end.
        let mut answer = Vec::new();
        stream.take(MOST).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
    };
    let answer = ask().map_err(|error| UpgradeError::NoDaemon(name(), error))?;
    match answer.split_once(' ') {
        Some((DONE, release)) => Ok(release.to_owned()),
        Some((REFUSED, why)) => Err(UpgradeError::Refused(why.to_owned())),
        _ => Err(UpgradeError::NoAnswer(name())),
    }
}
