// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The time of a run: when it is over, what has happened, and what was wrong.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// A run that has begun.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    length: Duration,
    state: Mutex<State>,
    over: Condvar,
}

#[derive(Debug)]
struct State {
    over: bool,
    faults: Vec<String>,
    journal: File,
}

impl Clock {
    /// Begins a run; what happens is written into `journal.txt` in `dir`.
    pub(super) fn start(length: Duration, dir: &Path) -> Result<Self> {
        let path = dir.join("journal.txt");
        let journal = File::create(&path).with_context(|| format!("Cannot create {}", path.display()))?;
        let state = Mutex::new(State { over: false, faults: Vec::new(), journal });
        Ok(Self { started: Instant::now(), length, state, over: Condvar::new() })
    }

    /// Waits until so long after the start; whether the run goes on.
    pub(super) fn wait_until(&self, at: Duration) -> bool {
        let mut state = self.lock();
        loop {
            let left = at.min(self.length).saturating_sub(self.started.elapsed());
            if state.over || self.started.elapsed() >= self.length {
                return false;
            }
            if left.is_zero() {
                return true;
            }
            state = self.over.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for the end: the time is up, or something was wrong.
    pub(super) fn wait_for_end(&self) {
        self.wait_until(self.length);
        self.lock().over = true;
        self.over.notify_all();
    }

    /// How long it has run.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether it is over, so that whatever ends has been told to.
    pub(super) fn is_over(&self) -> bool {
        self.lock().over
    }

    /// Takes note of what has happened.
    pub(super) fn note(&self, what: &str) {
        // The journal is for people to read; a run is not worse without a line of it.
        let _ = writeln!(self.lock().journal, "{:8.3} s  {what}", self.started.elapsed().as_secs_f64());
    }

    /// Takes note of what is wrong, which ends the run.
    pub(super) fn fault(&self, what: String) {
        self.note(&format!("FAULT: {what}"));
        let mut state = self.lock();
        state.faults.push(what);
        state.over = true;
        self.over.notify_all();
    }

    /// Takes note of an error as of a fault.
    pub(super) fn check<T>(&self, what: &str, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.fault(format!("{what}: {error:#}"))).ok()
    }

    /// All that was wrong.
    pub(super) fn faults(&self) -> Vec<String> {
        self.lock().faults.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
