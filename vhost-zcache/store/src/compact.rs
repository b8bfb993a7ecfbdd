// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Giving memory back: the emptiest segment's records move into holes of the others, a few per
//! step, and the segment returns to the host.
//!
//! While a segment drains, its holes are in no bin. Each record moves on its own: the copy is
//! published, the index is pointed to it, the old one becomes a hole. A crash in between leaves
//! two equal records, of which a rebuild takes one.

use crate::arena::record::Head;
use crate::arena::space::{FIRST, Slot, location};
use crate::shard::Shard;

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

/// What to do with a record of a segment that is being emptied when there is no room for it elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// It stays, and so does the segment.
    Stop,
    /// It goes: the segment is wanted more.
    Evict,
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
        match self.under_way().or_else(|| self.choose(threshold)) {
            Some(work) => self.empty(work, most, NoRoom::Stop),
            None => Step::Idle,
        }
    }

    /// Takes up what was begun, unless the segment's guest has left in the meantime.
    fn under_way(&mut self) -> Option<Compaction> {
        let work = self.compaction.take()?;
        let is_draining = matches!(self.space.slots.get(work.slot), Some(Some(slot)) if slot.draining);
        is_draining.then_some(work)
    }

    /// Takes up or begins the emptying of a segment of that heap.
    pub(crate) fn drain(&mut self, heap: usize) -> Option<Compaction> {
        match self.under_way() {
            Some(work) if self.space.slot(work.slot).heap == heap => return Some(work),
            // It is tried again later, with less to move.
            Some(other) => self.space.stop_draining(other.slot),
            None => {}
        }
        let slot = self.space.emptiest(heap)?;
        Some(self.begin(slot))
    }

    fn begin(&mut self, slot: usize) -> Compaction {
        self.space.start_draining(slot);
        Compaction { slot, at: location(slot, FIRST) }
    }

    /// Moves at most `most` records of a segment elsewhere, or does with them what `no_room` says, and frees it
    /// when nothing is left.
    pub(crate) fn empty(&mut self, mut work: Compaction, most: usize, no_room: NoRoom) -> Step {
        let heap = self.space.slot(work.slot).heap;
        let mut moved = 0;
        while let Some((head, next)) = self.space.walk(work.at) {
            if matches!(head, Head::Page(_) | Head::Object) {
                if moved == most {
                    self.compaction = Some(work);
                    return Step::More;
                }
                if self.relocate(work.at, head, heap).is_ok() {
                    moved += 1;
                } else if no_room == NoRoom::Stop {
                    self.space.stop_draining(work.slot);
                    return Step::Idle;
                } else {
                    let (evicted, more) = self.evict_record(heap, work.at, head, most - moved);
                    moved += evicted;
                    if more {
                        self.compaction = Some(work);
                        return Step::More;
                    }
                }
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
        Some(self.begin(slot))
    }
}
