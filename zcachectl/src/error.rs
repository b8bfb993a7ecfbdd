// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why something was not done, and the exit status that says so.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Refused, or found to have faults.
pub const REFUSED: u8 = 1;

/// A mistake on the command line, or a file that cannot be read. (The parser of the command line
/// ends with it as well.)
pub const USAGE: u8 = 2;

/// Nobody to do it.
pub const NO_DAEMON: u8 = 3;

/// Why something was not done.
#[derive(Debug, Error)]
pub enum Error {
    /// Nobody answers at the socket.
    #[error(
        "Cannot ask at {path}: {why}\nIs zcache-admin running, may you open its socket, and is --socket (or \
         ZCACHE_ADMIN_SOCKET) the right one?"
    )]
    NoAdmin {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        why: io::Error,
    },
    /// What answers is not what should.
    #[error("What answers at {path} is no zcache-admin of this release: {why}")]
    Nonsense {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The daemon is not there, or too slow.
    #[error("{0}")]
    NoDaemon(String),
    /// The daemon goes on as it did.
    #[error("{0}")]
    Refused(String),
    /// What was given on the command line cannot be meant.
    #[error("{0}")]
    Usage(String),
    /// Faults of a file, or that it cannot be read.
    #[error("{lines}")]
    Faults {
        /// In lines.
        lines: String,
        /// It could not be read.
        unreadable: bool,
    },
    /// What was to be printed cannot be.
    #[error("Cannot print: {0}")]
    Print(io::Error),
}

impl Error {
    /// The exit status.
    #[must_use]
    pub const fn status(&self) -> u8 {
        match self {
            Self::NoAdmin { .. } | Self::Nonsense { .. } | Self::NoDaemon(_) => NO_DAEMON,
            Self::Refused(_) | Self::Print(_) | Self::Faults { unreadable: false, .. } => REFUSED,
            Self::Usage(_) | Self::Faults { unreadable: true, .. } => USAGE,
        }
    }
}
