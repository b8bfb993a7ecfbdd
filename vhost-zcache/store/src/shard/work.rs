// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Work done under a shard's lock, counted where tests ask for it.
//!
//! Everybody whose pages are in a shard waits for whoever has its lock, so what one holder does there must be
//! bounded. A time says little about that on a machine that does other things too; a count does.

/// Records that were handled in one shard: removed, moved, or spared when a page to evict was looked for.
///
/// Without the feature `check` nothing is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Most of them between one locking of the shard and the next.
    #[cfg(feature = "check")]
    pub longest_hold: u64,
    /// Those since the shard was locked.
    #[cfg(feature = "check")]
    hold: u64,
}

impl Work {
    /// The shard was locked.
    pub(crate) fn begin_hold(&mut self) {
        #[cfg(feature = "check")]
        {
            self.hold = 0;
        }
    }

    /// A record was handled.
    pub(crate) fn count(&mut self) {
        #[cfg(feature = "check")]
        {
            self.hold += 1;
            self.longest_hold = self.longest_hold.max(self.hold);
        }
    }

    /// Adds what was done in another shard.
    #[cfg(feature = "check")]
    pub(crate) fn merge(&mut self, other: Self) {
        self.longest_hold = self.longest_hold.max(other.longest_hold);
    }
}
