// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Giving memory back: the emptiest segment's records move into holes of the others, a few per
//! step, and the segment returns to the host.
//!
//! While a segment drains, its holes are in no bin. Each record moves on its own: the copy is
//! published, the index is pointed to it, the old one becomes a hole. A crash in between leaves
//! two equal records, of which a rebuild takes one.

use crate::shard::Shard;
use crate::shard::space::record::Head;
use crate::shard::space::{FIRST, Slot, location};

/// A segment being emptied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compaction {
    slot: usize,
    /// The next record to move.
    at: u32,
}

/// When a heap is worth compacting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Threshold {
    /// Words of holes that are always fine.
    pub(crate) slack: u64,
    /// Holes above 1 / this of the heap are too many.
    pub(crate) share: u64,
}

impl Threshold {
    /// In the background. Overwriting at random settles at this share of holes; keeping it costs
    /// a fifteenth of the time of the puts, 1/24 a twentieth, 1/18 a fortieth.
    pub(crate) const BACKGROUND: Self = Self { slack: 8192, share: 30 };
    /// When a put would otherwise be refused.
    pub(crate) const AT_THE_LIMIT: Self = Self { slack: 4096, share: 64 };
}

/// What a step came to.
pub(crate) enum Step {
    /// Nothing is worth moving.
    Idle,
    /// There is more to do.
    More,
    /// A segment is free; dropping it gives it back.
    Freed(Slot),
}

impl Shard {
    /// Moves at most `most` records.
    pub(crate) fn compact_step(&mut self, threshold: Threshold, most: usize) -> Step {
        let Some(mut work) = self.compaction.take().or_else(|| self.choose(threshold)) else {
            return Step::Idle;
        };
        // The segment may have been evicted or its guest may have left in the meantime.
        match self.space.slots.get(work.slot) {
            Some(Some(slot)) if slot.draining => {}
            _ => return Step::More,
        }
        let heap = self.space.slot(work.slot).heap;
        let mut moved = 0;
        while let Some((head, next)) = self.space.walk(work.at) {
            if matches!(head, Head::Page(_) | Head::Object) {
                if moved == most {
                    self.compaction = Some(work);
                    return Step::More;
                }
                if self.relocate(work.at, head, heap).is_err() {
                    self.space.stop_draining(work.slot);
                    return Step::Idle;
                }
                moved += 1;
            }
            work.at = next;
        }
        self.space.release(work.slot).map_or(Step::More, Step::Freed)
    }

    /// The emptiest segment of the first heap that has too many holes.
    fn choose(&mut self, threshold: Threshold) -> Option<Compaction> {
        let heaps = self.space.heaps.iter().enumerate();
        let (heap, _) = heaps
            .filter_map(|(number, heap)| Some((number, heap.as_ref()?)))
            .find(|(_, heap)| heap.dead() > threshold.slack + heap.total / threshold.share)?;
        let slot = self.space.emptiest(heap)?;
        let chosen = self.space.slot(slot);
        // Moving a segment that is nearly full gains nothing.
        if u64::from(chosen.tail - chosen.live) * threshold.share < u64::from(chosen.tail) {
            return None;
        }
        self.space.start_draining(slot);
        Some(Compaction { slot, at: location(slot, FIRST) })
    }

    /// Compacts one whole segment; true if that freed it.
    pub(crate) fn compact_segment(&mut self, threshold: Threshold) -> Option<Slot> {
        for _ in 0..2 {
            match self.compact_step(threshold, usize::MAX) {
                Step::Freed(slot) => return Some(slot),
                Step::Idle => return None,
                Step::More => {}
            }
        }
        None
    }
}
