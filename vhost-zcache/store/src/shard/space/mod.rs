// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The space of one shard: heaps of segments, and free space within them.
//!
//! A heap belongs to one guest and is either evictable or not. A new record goes into the
//! smallest hole that fits, or at the tail of the heap's open segment; what is freed becomes a
//! hole, joined with the hole behind it. Since a record's trailing rest is joined again when
//! the record is freed, overwriting at random keeps few percent of holes and moves nothing.
//! What discarding leaves is [`crate::shard::compact`]'s work.
//!
//! Every operation reads the name of its object. So names of large heaps lie together: scattered
//! among the pages, each would be on a page of memory of its own, of which no cache knows anything.

mod access;
pub(crate) mod adopt;
pub(crate) mod bookmark;
pub(crate) mod holes;
mod location;
pub(crate) mod queue;
pub(crate) mod record;
mod room;
pub(crate) mod segments;

use std::sync::Arc;

pub(in crate::shard) use self::access::copy_in;
use self::bookmark::Bookmarks;
use self::holes::Bins;
pub(in crate::shard) use self::location::Location;
use self::queue::Queues;
use self::record::{MAX_WORDS, OBJECT_WORDS};
use crate::accounting::{Account, Charge, Use};
use crate::arena::header::{self, HEADER_WORDS, Label, Lane};
use crate::arena::memory::{Arena, SEGMENT_WORDS, Segment};
use crate::arena::prefetch::Tail;
use crate::arena::ready::Ready;
use crate::shard::work::Work;
use crate::stats::Contents;

/// Bits of a location that count words within a segment.
pub(crate) const OFFSET_BITS: u32 = SEGMENT_WORDS.trailing_zeros();
/// Most segments a shard can address.
const MAX_SLOTS: usize = 1 << (32 - OFFSET_BITS);
/// Segments' headers that are asked for ahead of the one that is written.
const AHEAD: usize = 8;
/// Word of a segment's first record.
pub(crate) const FIRST: u32 = 7;
const _: () = assert!(FIRST as usize == HEADER_WORDS);
const SEGMENT_END: u32 = 1 << OFFSET_BITS;

/// One segment in use.
pub(crate) struct Slot {
    // Dropped before the charge: memory is paid for until it is returned.
    pub(crate) segment: Segment,
    pub(crate) charge: Charge,
    pub(crate) heap: usize,
    pub(crate) lane: Lane,
    /// First word never written.
    pub(crate) tail: u32,
    /// Words of records.
    pub(crate) live: u32,
    /// Being emptied: its holes are in no bin.
    pub(crate) draining: bool,
}

/// Where a lane of a heap has room.
pub(crate) struct Free {
    pub(crate) bins: Bins,
    pub(crate) open: Option<usize>,
}

impl Free {
    fn lanes() -> [Self; 2] {
        [MAX_WORDS, OBJECT_WORDS].map(|largest| Self { bins: Bins::new(largest), open: None })
    }
}

/// The segments of one guest in this shard that are evictable, or those that are not.
pub(crate) struct Heap {
    pub(crate) account: Arc<Account>,
    pub(crate) purpose: Use,
    /// Number of the guest, written into segments.
    pub(crate) guest: u32,
    /// The guest has left: what is here is removed in steps.
    pub(crate) leaving: bool,
    /// By lane.
    pub(crate) free: [Free; 2],
    /// Words below the tails of its segments.
    pub(crate) total: u64,
    /// Words of records.
    pub(crate) live: u64,
    pub(crate) queues: Queues,
    pub(crate) contents: Contents,
}

impl Heap {
    pub(crate) fn free(&self, lane: Lane) -> &Free {
        &self.free[lane as usize]
    }

    fn free_mut(&mut self, lane: Lane) -> &mut Free {
        &mut self.free[lane as usize]
    }

    /// Forgets all segments.
    fn clear(&mut self) {
        self.free = Free::lanes();
        (self.total, self.live) = (0, 0);
        self.queues = Queues::default();
        self.contents = Contents::default();
    }

    fn close(&mut self, lane: Lane, slot: usize) {
        self.free_mut(lane).open.take_if(|open| *open == slot);
    }

    /// Words of holes.
    pub(crate) fn dead(&self) -> u64 {
        self.total - self.live
    }
}

/// All segments of one shard.
pub(crate) struct Space {
    arena: Arc<Arena>,
    label: Label,
    ready: Arc<Ready>,
    /// Where the heap that grew last grows next.
    tail: Arc<Tail>,
    pub(crate) slots: Vec<Option<Slot>>,
    /// Numbers of the segments in them. A large store's slots are in no cache, these are: what is
    /// asked for ahead is found through them.
    numbers: Vec<u32>,
    /// Slots that are not in use.
    vacant: Vec<usize>,
    /// Where the search for empty segments goes on.
    cursor: usize,
    bookmarks: Bookmarks,
    pub(crate) heaps: Vec<Option<Heap>>,
    pub(crate) work: Work,
}

impl Space {
    pub(crate) fn new(arena: Arc<Arena>, label: Label, ready: Arc<Ready>, tail: Arc<Tail>) -> Self {
        Self {
            arena,
            label,
            ready,
            tail,
            slots: Vec::new(),
            numbers: Vec::new(),
            vacant: Vec::new(),
            cursor: 0,
            bookmarks: Bookmarks::default(),
            heaps: Vec::new(),
            work: Work::default(),
        }
    }

    /// Leaves all segments to the caller, to be dropped. A later process that finds them beside
    /// newer ones knows by their era that nothing is in them any more.
    pub(crate) fn take_all(&mut self) -> Vec<Slot> {
        self.label.era = self.label.era.wrapping_add(1);
        for heap in self.heaps.iter_mut().flatten() {
            heap.clear();
        }
        self.numbers.clear();
        self.vacant.clear();
        self.cursor = 0;
        self.bookmarks = Bookmarks::default();
        self.slots.drain(..).flatten().collect()
    }

    /// Leaves all segments of a heap to the caller, to be dropped. A later process that finds them
    /// cannot tell whose they were.
    pub(crate) fn take_heap(&mut self, heap: usize) -> Vec<Slot> {
        let mut taken = Vec::new();
        for number in 0..self.slots.len() {
            // They are in no cache, and many.
            if let Some(ahead) = self.numbers.get(number + AHEAD) {
                self.arena.prefetch(*ahead, 0, 1);
            }
            let Some(mut slot) = self.slots[number].take_if(|slot| slot.heap == heap) else { continue };
            header::void(&mut slot.segment);
            self.vacant.push(number);
            self.bookmarks.leave(number);
            taken.push(slot);
        }
        self.heap_mut(heap).clear();
        taken
    }

    /// Continues the era of segments that are taken over.
    pub(crate) fn begin_era(&mut self, era: u32) {
        self.label.era = era;
    }

    /// Whether a heap has that number.
    pub(crate) fn has_heap(&self, heap: usize) -> bool {
        matches!(self.heaps.get(heap), Some(Some(_)))
    }

    /// Adds a heap under a number that is free.
    pub(crate) fn add_heap(&mut self, number: usize, account: Arc<Account>, purpose: Use, guest: u32) {
        let heap = Heap {
            account,
            purpose,
            guest,
            free: Free::lanes(),
            leaving: false,
            total: 0,
            live: 0,
            queues: Queues::default(),
            contents: Contents::default(),
        };
        if self.heaps.len() <= number {
            self.heaps.resize_with(number + 1, || None);
        }
        self.heaps[number] = Some(heap);
    }

    /// The heap of that number, which must exist.
    pub(crate) fn heap(&self, heap: usize) -> &Heap {
        self.heaps[heap].as_ref().expect("records lie in existing heaps only")
    }

    /// The heap of that number, which must exist.
    pub(crate) fn heap_mut(&mut self, heap: usize) -> &mut Heap {
        self.heaps[heap].as_mut().expect("records lie in existing heaps only")
    }

    /// The slot of that number, which must be in use.
    pub(crate) fn slot(&self, slot: usize) -> &Slot {
        self.slots[slot].as_ref().expect("locations point into segments in use only")
    }

    /// The slot of that number, which must be in use.
    pub(crate) fn slot_mut(&mut self, slot: usize) -> &mut Slot {
        self.slots[slot].as_mut().expect("locations point into segments in use only")
    }
}
