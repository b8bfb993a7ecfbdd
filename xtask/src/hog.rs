// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! swaphog in a guest: more anonymous memory than the guest has, with every page checked.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use zcache_tests::{Running, Vm};

/// Longest that a hog may take for filling its memory and for checking all of it at the end,
/// together: TCG on a busy machine.
const LIMIT: Duration = Duration::from_secs(150);

/// A hog at work.
#[derive(Debug)]
pub(crate) struct Hog<'a> {
    running: Running<'a>,
    limit: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Pages whose contents were checked.
    pub(crate) verified: u64,
    /// Of these, pages that were not as they had been written.
    pub(crate) wrong: u64,
    /// Of the verified ones, those that were checked until the time was up.
    pub(crate) in_time: u64,
    /// Seconds until all of the memory was written.
    pub(crate) filling: f64,
}

impl<'a> Hog<'a> {
    /// Lets two processes write so many MiB, check and change pages in random order until so many
    /// seconds have passed, and check all of them once more.
    pub(crate) fn start(vm: &'a Vm, mib: u64, seconds: u32) -> Result<Self> {
        // The status says whether a page was wrong, and so does the last line.
        let script = format!("swaphog --mib {mib} --seconds {seconds} --procs 2 || [ $? = 1 ]");
        let limit = Duration::from_secs(seconds.into()) + LIMIT * vm.options().patience();
        Ok(Self { running: vm.guest().spawn(&script)?, limit })
    }

    /// Waits until it is done.
    pub(crate) fn wait(self) -> Result<Checked> {
        let output = self.running.success(self.limit)?;
        Ok(Checked {
            verified: figure(&output, "verified")?,
            wrong: figure(&output, "wrong")?,
            in_time: figure(&output, "in_time")?,
            filling: figure(&output, "filling")?,
        })
    }
}

fn figure<T: FromStr>(output: &str, name: &str) -> Result<T> {
    output
        .split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
        .with_context(|| format!("swaphog says nothing of '{name}': {output}"))
}
