// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is waited for of the worker's processes.

use std::os::fd::RawFd;

use super::{State, Worker};
use crate::keeper::running::{Running, Sign};

/// Which process something is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The worker.
    Worker,
    /// The one that is to take its place.
    Next,
    /// One that does nothing any more, and whose end is waited for.
    Gone,
}

/// A file that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// The file.
    pub fd: RawFd,
    /// Whose it is.
    pub who: Who,
    /// What it says.
    pub sign: Sign,
    /// Whether room on it is waited for as well.
    pub choked: bool,
}

impl Worker {
    /// All that is to be waited for.
    #[must_use]
    pub fn watched(&self) -> Vec<Watched> {
        let mut watched = Vec::new();
        let mut add = |who, running: &Running| {
            watched.extend(running.watched().map(|(fd, sign, choked)| Watched { fd, who, sign, choked }));
        };
        if let State::Up(running) = &self.state {
            add(Who::Worker, running);
        }
        if let Some(next) = &self.next {
            add(Who::Next, &next.running);
        }
        for (running, _) in &self.gone {
            add(Who::Gone, running);
        }
        watched.retain(|watched| watched.who != Who::Gone || watched.sign == Sign::Exit);
        watched
    }
}
