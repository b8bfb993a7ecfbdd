// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Swapping with verified contents.

use anyhow::Result;
use zcache_tests::Vm;

use crate::hog::Hog;

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
    let checked = Hog::start(vm, memory_mib * 5 / 4, 4)?.wait()?;
    Ok(Swapped {
        stored: vm.guest().driver_stats()?.count("stores")? - stored_before,
        verified: checked.verified,
        wrong: checked.wrong,
    })
}
