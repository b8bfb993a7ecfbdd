// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Work done under a shard's lock, counted where tests ask for it.
//!
//! Everybody whose pages are in a shard waits for whoever has its lock, so what one holder does
//! there must be bounded. A time says little about that on a machine that does other things too; a
//! count does.

/// Counts the records that are handled in one shard: removed, moved, or spared when a page to evict
/// is looked for. Without the feature `check` it is empty, and so are its functions.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// Since the shard was locked.
    #[cfg(feature = "check")]
    hold: u64,
    /// Most between one locking and the next.
    #[cfg(feature = "check")]
    longest_hold: u64,
}

impl Work {
    /// The shard was locked.
    pub(crate) fn begin_hold(&mut self) {
        #[cfg(feature = "check")]
        {
            self.hold = 0;
        }
    }

    /// A record is handled.
    pub(crate) fn count(&mut self) {
        #[cfg(feature = "check")]
        {
            self.hold += 1;
            self.longest_hold = self.longest_hold.max(self.hold);
        }
    }

    /// Most records that were handled between one locking of the shard and the next.
    #[cfg(feature = "check")]
    pub(crate) fn longest_hold(&self) -> u64 {
        self.longest_hold
    }
}
