// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Room for records: holes, their lists, and the open segments' rests.

use super::holes::Bins;
use super::record::{Head, MAX_WORDS, OBJECT_WORDS, hole};
use super::{FIRST, Location, SEGMENT_END, Slot, Space};
use crate::arena::header::Lane;
use crate::arena::host::PAGE_WORDS;
use crate::op::Refusal;

/// Words from which on a heap keeps its names in segments of their own; below, those would take
/// more memory than they save time. Tests use small stores.
const NAMES_APART: u64 = if cfg!(feature = "check") { PAGE_WORDS as u64 } else { 1 << 17 };

impl Space {
    /// Finds room for a record. Until its head is published, the location is still a hole.
    pub(in crate::shard) fn alloc(&mut self, heap: usize, words: u32) -> Result<Location, Refusal> {
        debug_assert!(words <= MAX_WORDS);
        if let Some(at) = self.alloc_hole(heap, words) {
            return Ok(at);
        }
        let at = self.extend(heap, Lane::Pages, words)?;
        self.add_live(heap, at, words);
        Ok(at)
    }

    /// Finds room for a record in a hole.
    pub(in crate::shard) fn alloc_hole(&mut self, heap: usize, words: u32) -> Option<Location> {
        self.alloc_hole_in(heap, Lane::Pages, words)
    }

    /// Finds room for the name of an object where the heap keeps names; it takes no new memory for
    /// that while memory is short.
    pub(in crate::shard) fn alloc_name(&mut self, heap: usize) -> Option<Location> {
        if let Some(at) = self.alloc_hole_in(heap, Lane::Names, OBJECT_WORDS) {
            return Some(at);
        }
        let owner = self.heap(heap);
        if owner.total < NAMES_APART || owner.account.is_tight() {
            return None;
        }
        let at = self.extend(heap, Lane::Names, OBJECT_WORDS).ok()?;
        self.add_live(heap, at, OBJECT_WORDS);
        Some(at)
    }

    fn alloc_hole_in(&mut self, heap: usize, lane: Lane, words: u32) -> Option<Location> {
        let bins = &self.heap(heap).free(lane).bins;
        let at = self.same_sized_hole(bins, words).or_else(|| bins.fitting(words))?;
        self.split_hole(heap, at, words);
        self.add_live(heap, at, words);
        Some(at)
    }

    /// The hole that was freed last in the bin of that size, if it has just the size: what a record
    /// leaves that is overwritten by one as long. `Bins::fitting` misses it if the size is odd.
    fn same_sized_hole(&self, bins: &Bins, words: u32) -> Option<Location> {
        let at = bins.head(bins.bin_of(words)?);
        (at != Location::NONE && self.word(at) == hole(words)).then_some(at)
    }

    fn add_live(&mut self, heap: usize, at: Location, words: u32) {
        self.slot_mut(at.slot()).live += words;
        self.heap_mut(heap).live += u64::from(words);
    }

    /// Takes a hole out of its bin; what remains behind `words` words stays a hole.
    fn split_hole(&mut self, heap: usize, at: Location, words: u32) {
        let size = Head::read(self.word(at)).words();
        self.unlink_hole(heap, at, size);
        if size > words {
            let rest = at + words;
            self.publish(rest, hole(size - words));
            self.link_hole(heap, rest, size - words);
        }
    }

    /// Takes room at the tail of the lane's open segment, or of a new one.
    fn extend(&mut self, heap: usize, lane: Lane, words: u32) -> Result<Location, Refusal> {
        let open = match self.heap(heap).free(lane).open {
            Some(open) if self.slot(open).tail + words <= SEGMENT_END => open,
            full => {
                if let Some(full) = full {
                    self.close_segment(full);
                }
                self.open_segment(heap, lane)?
            }
        };
        let tail = self.slot(open).tail;
        self.populate(open, (tail + words) as usize)?;
        let slot = self.slots[open].as_mut().expect("the open segment is in use");
        slot.tail = tail + words;
        if lane == Lane::Pages {
            self.tail.set(&slot.segment, slot.tail as usize);
        }
        self.heap_mut(heap).total += u64::from(words);
        let at = Location::new(open, tail);
        self.publish(at, hole(words));
        Ok(at)
    }

    /// Frees a record of `words` words.
    pub(in crate::shard) fn free(&mut self, at: Location, words: u32) {
        let slot_number = at.slot();
        let slot = self.slot_mut(slot_number);
        slot.live -= words;
        let (heap, tail, draining) = (slot.heap, slot.tail, slot.draining);
        self.heap_mut(heap).live -= u64::from(words);
        let mut size = words;
        let next = at.behind(words);
        if at.word() + (words as usize) < tail as usize
            && let Head::Hole(behind) = Head::read(self.word(next))
        {
            if !draining {
                self.unlink_hole(heap, next, behind);
            }
            size += behind;
        }
        self.publish(at, hole(size));
        self.bookmarks.join(at, size);
        if !draining {
            self.link_hole(heap, at, size);
        }
    }

    pub(super) fn link_hole(&mut self, heap: usize, at: Location, size: u32) {
        let lane = self.slot(at.slot()).lane;
        let bins = &self.heap(heap).free(lane).bins;
        let Some(bin) = bins.bin_of(size) else { return };
        let next = bins.head(bin);
        self.set_word(at + 1, Location::pair(next, Location::NONE));
        if next != Location::NONE {
            let (after, _) = Location::split(self.word(next + 1));
            self.set_word(next + 1, Location::pair(after, at));
        }
        self.heap_mut(heap).free_mut(lane).bins.set_head(bin, at);
    }

    fn unlink_hole(&mut self, heap: usize, at: Location, size: u32) {
        let lane = self.slot(at.slot()).lane;
        let bins = &mut self.heap_mut(heap).free_mut(lane).bins;
        let Some(bin) = bins.bin_of(size) else { return };
        let (next, previous) = Location::split(self.word(at + 1));
        if next != Location::NONE {
            let (after, _) = Location::split(self.word(next + 1));
            self.set_word(next + 1, Location::pair(after, previous));
        }
        if previous == Location::NONE {
            self.heap_mut(heap).free_mut(lane).bins.set_head(bin, next);
        } else {
            let (_, before) = Location::split(self.word(previous + 1));
            self.set_word(previous + 1, Location::pair(next, before));
        }
    }

    /// Takes a slot's holes out of the bins, so that nothing new is placed in it.
    pub(crate) fn start_draining(&mut self, slot: usize) {
        let Slot { heap, lane, .. } = *self.slot(slot);
        self.for_each_hole(slot, |space, at, size| space.unlink_hole(heap, at, size));
        self.slot_mut(slot).draining = true;
        self.heap_mut(heap).close(lane, slot);
    }

    /// Puts a slot's holes back into the bins.
    pub(crate) fn stop_draining(&mut self, slot: usize) {
        let heap = self.slot(slot).heap;
        self.slot_mut(slot).draining = false;
        self.for_each_hole(slot, |space, at, size| space.link_hole(heap, at, size));
    }

    fn for_each_hole(&mut self, slot: usize, visit: impl Fn(&mut Self, Location, u32)) {
        let mut at = Location::new(slot, FIRST);
        while let Some((head, next)) = self.walk(at) {
            if let Head::Hole(size) = head {
                visit(self, at, size);
            }
            at = next;
        }
    }
}
