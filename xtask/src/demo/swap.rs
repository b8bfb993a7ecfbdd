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

/// Fills more anonymous memory than the guest has, and checks and changes pages in random
/// order for a while and all of them at the end.
pub(crate) fn verified(vm: &Vm, memory_mib: u64) -> Result<Swapped> {
    let stored_before = vm.guest().driver_stats()?.count("stores")?;
    // The status says whether a page was wrong, and so does the last line.
    let script = format!("swaphog --mib {} --seconds 4 --procs 2 || [ $? = 1 ]", memory_mib * 5 / 4);
    let output = vm.guest().sh_within(&script, Duration::from_secs(120) * vm.options().patience())?;
    let figure = |name: &str| {
        output
            .split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
            .with_context(|| format!("swaphog says nothing of '{name}': {output}"))
    };
    Ok(Swapped {
        stored: vm.guest().driver_stats()?.count("stores")? - stored_before,
        verified: figure("verified")?,
        wrong: figure("wrong")?,
    })
}
