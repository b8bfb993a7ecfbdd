// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What was done besides requests, in figures.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::stats::BackgroundStats;

/// Counted by who does it, read by anybody.
#[derive(Default)]
pub(crate) struct WorkDone {
    compacted_segments: AtomicU64,
    cold_tried: AtomicU64,
    cold_smaller: AtomicU64,
    relief_steps: AtomicU64,
    relief_bytes: AtomicU64,
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

    /// A host that was short of memory got so many bytes.
    pub(crate) fn count_relief(&self, bytes: u64) {
        self.relief_steps.fetch_add(1, Relaxed);
        self.relief_bytes.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn stats(&self) -> BackgroundStats {
        BackgroundStats {
            compacted_segments: self.compacted_segments.load(Relaxed),
            cold_tried: self.cold_tried.load(Relaxed),
            cold_smaller: self.cold_smaller.load(Relaxed),
            relief_steps: self.relief_steps.load(Relaxed),
            relief_bytes: self.relief_bytes.load(Relaxed),
        }
    }
}
