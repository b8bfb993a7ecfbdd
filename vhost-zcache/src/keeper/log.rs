// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the log says of one socket.

use std::fmt;

use crate::frontend::log_limit::{Occasion, SocketLog};

/// The log of one socket.
#[derive(Debug)]
pub struct Log {
    name: String,
    limits: SocketLog,
}

impl Log {
    /// The log of a socket of that name.
    #[must_use]
    pub fn new(name: String) -> Self {
        Self { name, limits: SocketLog::default() }
    }

    /// Path or descriptor of the socket.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Logs a line, unless there were too many of late.
    pub fn say(&self, occasion: Occasion, text: fmt::Arguments<'_>) {
        self.limits.say(&self.name, occasion, text);
    }
}
