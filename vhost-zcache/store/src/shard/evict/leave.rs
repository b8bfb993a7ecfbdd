// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How pages leave a shard to make room: one by one, or until a segment is free.

use super::victim::{Patience, TwoQueues, victim};
use super::{Departure, Policy};
use crate::arena::memory::SEGMENT_WORDS;
use crate::shard::Shard;
use crate::shard::compact::{Fate, Step};
use crate::shard::index::objects::Object;
use crate::shard::space::queue::Queue;
use crate::shard::space::record::Head;
use crate::shard::space::{Location, Space};

/// Words of holes beside which the records of any segment find room.
const ENOUGH: u64 = SEGMENT_WORDS as u64 + SEGMENT_WORDS as u64 / 8;

/// The queues of a heap.
struct HeapQueues<'a> {
    space: &'a mut Space,
    heap: usize,
}

impl TwoQueues for HeapQueues<'_> {
    type Page = Location;

    fn size(&self, queue: Queue) -> u64 {
        self.space.heap(self.heap).queues.words(queue)
    }

    fn oldest(&self, queue: Queue) -> Option<(Location, u8)> {
        let at = self.space.heap(self.heap).queues.oldest(queue)?;
        Some((at, self.space.page_head(at).frequency()))
    }

    fn spare(&mut self, from: Queue, to: Queue, frequency: u8) {
        if let Some(at) = self.space.heap(self.heap).queues.oldest(from) {
            self.space.work.count();
            self.space.move_to(at, to, frequency);
        }
    }
}

impl Shard {
    /// Drops the page that is next in the heap's queues.
    pub(crate) fn evict_one(&mut self, heap: usize, patience: &mut Patience) -> bool {
        let Some(learned) = &self.learned[heap] else { return false };
        learned.evict();
        let policy: Policy = learned.policy();
        let Some(at) = victim(&mut HeapQueues { space: &mut self.space, heap }, policy, patience) else {
            return false;
        };
        self.evict(heap, at);
        true
    }

    fn evict(&mut self, heap: usize, at: Location) {
        let name = self.space.page_name(at);
        let object = Object::read(&self.nodes, name.object);
        let queue = Queue::of(self.space.page_head(at));
        self.leave(heap, object.hash, name.index, Departure::Evicted(queue));
        self.pool_mut(object.pool).counters.evicted += 1;
        self.remove_page(name.object, name.index);
    }

    /// Does a part of freeing one segment of an evictable heap, of at most `most` records. Pages go
    /// in the order of the queues until the others fit in one segment less, and then move together.
    ///
    /// What is done so far is in the shard, so anybody can go on with it at any time: evicted pages
    /// are holes, which count for the next who needs some, and the segment that is being emptied is
    /// that of the compaction.
    pub(crate) fn evict_step(&mut self, heap: usize, most: usize) -> Step {
        // The guest may have left since the heap was found.
        if self.learned.get(heap).is_none_or(Option::is_none) {
            return Step::Idle;
        }
        let mut patience = Patience::for_a_step();
        let mut evicted = 0;
        while self.space.heap(heap).dead() < ENOUGH {
            if evicted == most {
                return Step::More;
            }
            if !self.evict_one(heap, &mut patience) {
                break;
            }
            evicted += 1;
        }
        match self.drain(heap) {
            Some(work) => self.empty(work, most - evicted, Fate::MoveOrGo),
            None => Step::Idle,
        }
    }

    /// Removes a record of a heap for which there is no room elsewhere: a page, or of an object at
    /// most `most` pages for a start. Returns how many pages that were.
    pub(in crate::shard) fn evict_record(&mut self, heap: usize, at: Location, head: Head, most: usize) -> usize {
        match head {
            Head::Page(_) => {
                self.evict(heap, at);
                1
            }
            Head::Object => self.remove_object(at, most),
            Head::End | Head::Hole(_) | Head::Unknown => 0,
        }
    }
}
