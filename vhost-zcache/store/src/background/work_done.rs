// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the background has done, in figures.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::stats::BackgroundStats;

/// Counted by the background, read by anybody.
#[derive(Default)]
pub(crate) struct WorkDone {
    compacted_segments: AtomicU64,
    cold_tried: AtomicU64,
    cold_smaller: AtomicU64,
}

impl WorkDone {
    /// A segment was emptied and given back.
    pub(super) fn count_segment(&self) {
        self.compacted_segments.fetch_add(1, Relaxed);
    }

    /// A cold page was tried with the denser codec.
    pub(super) fn count_cold(&self, is_smaller: bool) {
        self.cold_tried.fetch_add(1, Relaxed);
        self.cold_smaller.fetch_add(u64::from(is_smaller), Relaxed);
    }

    pub(crate) fn stats(&self) -> BackgroundStats {
        BackgroundStats {
            compacted_segments: self.compacted_segments.load(Relaxed),
            cold_tried: self.cold_tried.load(Relaxed),
            cold_smaller: self.cold_smaller.load(Relaxed),
        }
    }
}
