// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Giving memory back: the emptiest segment's records move into holes of the others, a few per
//! step, and the segment returns to the host.
//!
//! While a segment drains, its holes are in no bin. Each record moves on its own: the copy is
//! published, the index is pointed to it, the old one becomes a hole. A crash in between leaves
//! two equal records, of which a rebuild takes one.

use crate::shard::Shard;
use crate::shard::space::Slot;
use crate::shard::space::bookmark::Walker;
use crate::shard::space::record::Head;
use crate::shard::space::segments::Place;

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

/// What becomes of the records of a segment that is being emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// They move. What finds no room elsewhere stays, and so does the segment.
    Move,
    /// They move. What finds no room elsewhere goes: the segment is wanted more.
    MoveOrGo,
    /// Pages go. Names move, as pages elsewhere need them, and go if they find no room.
    Go,
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
    /// Moves at most `most` records, or removes them if their guest has left.
    pub(crate) fn compact_step(&mut self, threshold: Threshold, most: usize) -> Step {
        match self.compaction.or_else(|| self.choose(threshold, most)) {
            Some(slot) => self.empty(slot, most, Fate::Move),
            // A heap whose guest has left may have no segment and still somebody to pay for its
            // index.
            None if self.leaving().is_some() => Step::More,
            None => Step::Idle,
        }
    }

    /// Takes up or begins the emptying of a segment of that heap.
    pub(crate) fn drain(&mut self, heap: usize) -> Option<usize> {
        match self.compaction {
            Some(slot) if self.space.slot(slot).heap == heap => return Some(slot),
            // It is tried again later, with less to move.
            Some(other) => self.stop(other),
            None => {}
        }
        let slot = self.space.emptiest(heap)?;
        Some(self.start(slot))
    }

    fn start(&mut self, slot: usize) -> usize {
        self.space.start_draining(slot);
        self.space.open_at(Walker::Compaction, slot);
        self.compaction = Some(slot);
        slot
    }

    fn stop(&mut self, slot: usize) {
        self.space.stop_draining(slot);
        self.compaction = None;
    }

    /// Lets pages go with the segment they are in; nothing if it is not there any more.
    pub(crate) fn clear_step(&mut self, heap: usize, place: Place, most: usize) -> Step {
        if !self.space.is_place(heap, place) {
            return Step::Idle;
        }
        if self.compaction != Some(place.slot) {
            if let Some(other) = self.compaction {
                self.stop(other);
            }
            self.start(place.slot);
        }
        self.empty(place.slot, most, Fate::Go)
    }

    /// Does with at most `most` records of a segment what `fate` says, and frees it when nothing is
    /// left. If their guest has left, they are removed.
    pub(crate) fn empty(&mut self, slot: usize, most: usize, fate: Fate) -> Step {
        let heap = self.space.slot(slot).heap;
        let leaving = self.space.heap(heap).leaving;
        let mut moved = 0;
        while let Some((at, head)) = self.space.turn_page(Walker::Compaction) {
            if !matches!(head, Head::Page(_) | Head::Object) {
                continue;
            }
            if moved >= most {
                self.space.turn_back(Walker::Compaction, at);
                return Step::More;
            }
            if leaving {
                moved += self.expel(at, head, most - moved);
            } else if !(fate == Fate::Go && matches!(head, Head::Page(_))) && self.relocate(at, head, heap).is_ok() {
                moved += 1;
            } else if fate == Fate::Move {
                self.stop(slot);
                return Step::Idle;
            } else {
                moved += self.evict_record(heap, at, head, most - moved);
            }
        }
        self.compaction = None;
        self.space.release(slot).map_or(Step::More, Step::Freed)
    }

    /// The emptiest segment of a heap whose guest has left, or of the first that has too many
    /// holes.
    fn choose(&mut self, threshold: Threshold, most: usize) -> Option<usize> {
        if let Some(heap) = self.leaving() {
            match self.space.emptiest(heap) {
                Some(slot) => return Some(self.start(slot)),
                None => self.finish_leaving(heap, most),
            }
        }
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
        Some(self.start(slot))
    }
}
