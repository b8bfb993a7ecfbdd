// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest leaves a shared pool. Its heap is marked, and nobody finds its pages from then on;
//! [compaction](super::compact) removes them segment by segment, and moves the names of objects
//! that others have pages of to another member, who also takes over what the guest pays for in the
//! index.

use super::compact::{Step, Threshold};
use super::index::objects::Object;
use super::retire::FEW;
use super::space::Location;
use super::space::bookmark::Walker;
use super::space::record::Head;
use super::{PoolSlot, Shard};

/// Records of a small heap that are removed before [`Shard::retire_heap`] returns.
const AT_ONCE: usize = 64;

impl Shard {
    /// Takes a member's heap out of service; returns how many pages it has.
    pub(crate) fn retire_heap(&mut self, heap: usize) -> u64 {
        let state = self.space.heap_mut(heap);
        state.leaving = true;
        let pages = state.contents.pages;
        self.leaving.push(heap);
        if pages <= FEW && self.compaction.is_none() {
            while let Step::Freed(_) = self.compact_step(Threshold::BACKGROUND, AT_ONCE) {}
        }
        pages
    }

    /// The first heap whose guest has left.
    pub(super) fn leaving(&self) -> Option<usize> {
        self.leaving.first().copied()
    }

    /// Whether the page at `at` belongs to a guest that has left.
    pub(super) fn has_left(&self, at: Location) -> bool {
        !self.leaving.is_empty() && self.space.heap(self.space.heap_of(at)).leaving
    }

    /// Removes a record of a heap whose guest has left; of an object, at most `most` of its pages
    /// for a start. Returns how many records that were.
    pub(super) fn expel(&mut self, at: Location, head: Head, most: usize) -> usize {
        match head {
            Head::Page(_) => {
                let name = self.space.page_name(at);
                self.remove_page(name.object, name.index);
                1
            }
            Head::Object => {
                if self.heir().is_some_and(|heir| self.relocate(at, head, heir).is_ok()) {
                    return 1;
                }
                // Nobody can pay for the name.
                self.remove_object(at, most)
            }
            Head::End | Head::Hole(_) | Head::Unknown => 0,
        }
    }

    /// Removes at most `most` pages of the object whose record compaction has just come to; the
    /// record goes with the last page, until then compaction comes to it again. Returns how many
    /// that were.
    pub(super) fn remove_object(&mut self, at: Location, most: usize) -> usize {
        let number = self.space.object_at(at);
        let pages = Object::read(&self.nodes, number).pages as usize;
        self.remove_indexes(number, 0, u64::MAX, most as u64);
        if pages > most {
            self.space.turn_back(Walker::Compaction, at);
        }
        pages.min(most)
    }

    /// A member that stays.
    fn heir(&self) -> Option<usize> {
        let heaps = self.space.heaps.iter().enumerate();
        heaps
            .filter_map(|(number, heap)| Some((number, heap.as_ref()?)))
            .find(|(_, heap)| !heap.leaving)
            .map(|(n, _)| n)
    }

    /// Ends a heap that has no segment any more.
    pub(super) fn finish_leaving(&mut self, heap: usize, most: usize) {
        let inherited = self.heir().is_none_or(|heir| self.nodes.inherit(heap, heir).is_ok());
        if inherited {
            self.leaving.retain(|other| *other != heap);
            self.space.heaps[heap] = None;
            self.learned[heap] = None;
            return;
        }
        // The heir cannot pay for the index: pages go, which are ephemeral, and with them nodes.
        let pools = 0..self.pools.len();
        let in_service = |pool: &PoolSlot| self.pool(*pool).is_some_and(|pool| !pool.retired);
        if let Some(pool) = pools.map(PoolSlot).find(in_service) {
            self.remove_some(pool, most as u64);
        }
    }
}
