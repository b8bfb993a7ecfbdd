// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Swapping with verified contents.

use std::time::Duration;

use anyhow::{Context, Result};
use zcache_tests::Vm;

/// What came of it.
#[derive(Debug)]
pub(crate) struct Swapped {
    /// Pages the device accepted.
    pub(crate) stored: u64,
    /// Pages whose contents were checked.
    pub(crate) verified: u64,
    /// Of these, pages that were not as they had been written.
    pub(crate) wrong: u64,
}

/// Fills more anonymous memory than the guest has and checks every page, twice.
pub(crate) fn verified(vm: &Vm, memory_mib: u64) -> Result<Swapped> {
    let _ = (vm, memory_mib, Duration::ZERO);
    None.context("swaphog is not there yet")
}
