// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How pages leave a shard to make room: one by one, or until a segment is free.

use super::queue::Verdict;
use crate::arena::memory::SEGMENT_WORDS;
use crate::arena::word::split;
use crate::shard::Shard;
use crate::shard::index::objects::Object;
use crate::shard::space::record::Head;
use crate::shard::space::{FIRST, Slot, location};

impl Shard {
    /// Drops the page that is next in the heap's queues.
    pub(crate) fn evict_one(&mut self, heap: usize) -> bool {
        let Some(learned) = &self.learned[heap] else { return false };
        learned.evict();
        match self.space.victim(heap, learned.policy()) {
            Verdict::Evict(at) => {
                self.evict(heap, at);
                true
            }
            Verdict::Empty => false,
        }
    }

    fn evict(&mut self, heap: usize, at: u32) {
        let name = self.space.page_name(at);
        let object = Object::read(&self.nodes, name.object);
        // A page that left the main queue had its chance: remembering it as well would let a loop
        // longer than the store wash the main queue out.
        if !self.space.page_head(at).is_main() {
            self.remember(heap, object.hash, name.index);
        }
        self.pool_mut(object.pool).counters.evicted += 1;
        self.remove_page(name.object, name.index);
    }

    /// Frees one segment of an evictable heap: pages go in the order of the queues until the others
    /// fit in one segment less, and then move together. At most a few hundred pages of 4 KiB move.
    pub(crate) fn evict_segment(&mut self, heap: usize) -> Option<Slot> {
        let enough = SEGMENT_WORDS as u64 + SEGMENT_WORDS as u64 / 8;
        while self.space.heap(heap).dead() < enough && self.evict_one(heap) {}
        let slot = self.space.emptiest(heap)?;
        self.space.start_draining(slot);
        self.empty_segment(slot, heap);
        self.space.release(slot)
    }

    /// Moves all records of a draining segment to heap `to`, and removes those that do not fit.
    fn empty_segment(&mut self, slot: usize, to: usize) {
        let mut at = location(slot, FIRST);
        while let Some((head, next)) = self.space.walk(at) {
            if let Head::Page(_) = head
                && self.relocate(at, head, to).is_err()
            {
                self.evict(to, at);
            }
            at = next;
        }
        self.move_names(slot, to);
    }

    /// Removes all pages of a draining segment.
    pub(crate) fn evict_pages(&mut self, slot: usize) {
        let mut at = location(slot, FIRST);
        let heap = self.space.slot(slot).heap;
        while let Some((head, next)) = self.space.walk(at) {
            if let Head::Page(_) = head {
                self.evict(heap, at);
            }
            at = next;
        }
    }

    /// Moves the names of objects out of a draining segment, into heap `to`. An object whose
    /// name finds no room there is removed.
    pub(crate) fn move_names(&mut self, slot: usize, to: usize) {
        let mut at = location(slot, FIRST);
        while let Some((head, next)) = self.space.walk(at) {
            if head == Head::Object && self.relocate(at, head, to).is_err() {
                let (number, _) = split(self.space.word(at + 1));
                self.remove_indexes(number, 0, u64::MAX, u64::MAX);
            }
            at = next;
        }
    }
}
