// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One line per step, so that a build of minutes does not look like a hang.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::time::Instant;

/// Reports on the building of one artefact.
#[derive(Debug)]
pub(crate) struct Progress {
    name: String,
    started: Instant,
}

impl Progress {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), started: Instant::now() }
    }

    /// Announces the step that begins now.
    ///
    /// Written straight to stderr: the test harness holds back what `eprintln!` prints
    /// until the test has ended, which is when nobody needs it any more.
    pub(crate) fn step(&self, what: impl Display) {
        let elapsed = self.started.elapsed().as_secs_f32();
        // A closed stderr is no reason to give up a build.
        let _ = writeln!(io::stderr(), "[{elapsed:7.1} s] {}: {what}", self.name);
    }

    pub(crate) fn seconds(&self) -> f32 {
        self.started.elapsed().as_secs_f32()
    }
}
