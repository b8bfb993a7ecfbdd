// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Failures on order, for tests: the n-th allocation from now fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::arena::host::NoMemory;

/// Counts allocations down to the one that fails. Clones count together. The default never
/// fails; counting costs one load per 4 KiB or more that the host is asked for.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    allocation: Arc<AtomicU64>,
    background: Arc<AtomicU64>,
}

impl Faults {
    /// Makes the `nth` allocation from now fail, and all that follow until called again; 0 ends
    /// the failures.
    pub fn fail_from(&self, nth: u64) {
        self.allocation.store(nth, Relaxed);
    }

    /// Makes the `nth` round of the background from now panic, once; 0 takes that back.
    pub fn fail_background(&self, nth: u64) {
        self.background.store(nth, Relaxed);
    }

    /// Called once a round.
    pub(crate) fn check_background(&self) {
        let left = self.background.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        assert!(left != Ok(1), "a failure on order");
    }

    pub(crate) fn check(&self) -> Result<(), NoMemory> {
        if self.allocation.load(Relaxed) == 0 {
            return Ok(());
        }
        // Stays at 1 once it is there.
        let left = self.allocation.fetch_update(Relaxed, Relaxed, |left| (left > 1).then(|| left - 1));
        left.map(|_| ()).map_err(|_| NoMemory)
    }
}
