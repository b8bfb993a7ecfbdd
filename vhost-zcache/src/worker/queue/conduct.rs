// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a guest behaves towards the threads that serve it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use log::Level;

use crate::frontend::log_limit::LogLimit;

/// One guest's conduct, over all its connections.
#[derive(Debug, Default)]
pub struct Conduct {
    log_limit: LogLimit,
    blocks: AtomicBool,
}

impl Conduct {
    /// Logs something that the guest or its VMM causes, unless there was much of it.
    pub fn log(&self, level: Level, text: fmt::Arguments<'_>) {
        self.log_limit.log(level, text);
    }

    /// An event of the guest's has held up a thread that others need, too.
    pub fn has_blocked(&self) {
        self.blocks.store(true, Ordering::Relaxed);
    }

    /// Whether one ever has. Such a guest is served apart from the others.
    #[must_use]
    pub fn blocks(&self) -> bool {
        self.blocks.load(Ordering::Relaxed)
    }
}
