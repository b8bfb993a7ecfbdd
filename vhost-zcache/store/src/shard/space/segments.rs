// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The segments of a space: opened, made resident as they fill up, released.

use std::sync::Arc;

use super::record::{MIN_HOLE, hole};
use super::{FIRST, Location, MAX_SLOTS, Slot, Space};
use crate::accounting::{Charge, Use};
use crate::arena::header::{self, HEADER_WORDS, Label, Lane, Role};
use crate::arena::host::PAGE_WORDS;
use crate::arena::memory::{BLOCK, BLOCK_BYTES, SEGMENT_BYTES, SEGMENT_WORDS, Segment};
use crate::arena::ready::{Spare, Wanted};
use crate::arena::word::count;
use crate::op::Refusal;

const _: () = assert!(SEGMENT_BYTES.is_multiple_of(PAGE_WORDS * 8));
/// Segments that are looked at for the one with the most holes, as the shard is locked meanwhile.
const MOST_CANDIDATES: usize = 1024;
/// Most pages made resident at a time by a put.
const MAX_BATCH: usize = 16;
/// Words from which on a heap takes segments that are resident as a whole. Until then it is not
/// sure that it will ever need one.
const WHOLE_SEGMENTS: u64 = SEGMENT_WORDS as u64 / 2;
/// Segments from which on an evictable heap takes blocks of its own, which go back to the host
/// whole when all of the heap does: a quarter of it is ready then, on an average.
const BLOCKS_APART: usize = 2 * BLOCK;
/// Most segments that should be ready for such a heap.
const MOST_APART: usize = 4;

/// A segment, and the slot it was in when somebody looked.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// Of the segment, in the arena.
    number: u32,
    pub(crate) slot: usize,
}

impl Place {
    /// Whether one huge page may hold both.
    pub(crate) fn is_beside(&self, other: &Self) -> bool {
        self.number as usize / BLOCK == other.number as usize / BLOCK
    }
}

impl Space {
    /// The segments that pages of a heap are in, by their addresses: on the whole, the oldest
    /// first.
    pub(crate) fn places(&self, heap: usize) -> Vec<Place> {
        let slots = self.slots.iter().enumerate().filter_map(|(number, slot)| Some((number, slot.as_ref()?)));
        let slots = slots.filter(|(_, slot)| slot.heap == heap && slot.lane == Lane::Pages);
        let mut places: Vec<Place> =
            slots.map(|(number, slot)| Place { number: slot.segment.number(), slot: number }).collect();
        places.sort_unstable_by_key(|place| place.number);
        places
    }

    /// Whether a segment of a heap still is where it was.
    pub(crate) fn is_place(&self, heap: usize, place: Place) -> bool {
        let slot = self.slots.get(place.slot).and_then(Option::as_ref);
        slot.is_some_and(|slot| slot.heap == heap && slot.segment.number() == place.number)
    }

    pub(super) fn open_segment(&mut self, heap: usize, lane: Lane) -> Result<usize, Refusal> {
        let number = match self.vacant.pop() {
            Some(number) => number,
            None if self.slots.len() < MAX_SLOTS => {
                self.slots.push(None);
                self.numbers.push(0);
                self.slots.len() - 1
            }
            None => return Err(Refusal::NoMemory),
        };
        if let Err(refusal) = self.occupy(number, heap, lane) {
            self.slots[number] = None;
            self.vacant.push(number);
            return Err(refusal);
        }
        let owner = self.heap(heap);
        let label = Label { guest: owner.guest, ..self.label };
        let role = Role::Records(owner.purpose, lane);
        header::write(&mut self.slot_mut(number).segment, label, role);
        let owner = self.heap_mut(heap);
        owner.free_mut(lane).open = Some(number);
        owner.total += HEADER_WORDS as u64;
        Ok(number)
    }

    /// Puts a segment that has room for its header into a slot.
    fn occupy(&mut self, number: usize, heap: usize, lane: Lane) -> Result<(), Refusal> {
        let Spare { segment, charge } = self.ready_segment(heap, lane).map_or_else(|| self.empty_segment(heap), Ok)?;
        self.numbers[number] = segment.number();
        self.slots[number] = Some(Slot { segment, charge, heap, lane, tail: FIRST, live: 0, draining: false });
        self.populate(number, HEADER_WORDS)
    }

    /// Makes a hole of what the open segment of a heap has left.
    pub(super) fn close_segment(&mut self, number: usize) {
        let slot = self.slot_mut(number);
        let Slot { heap, lane, tail, .. } = *slot;
        let end = count(slot.segment.populated());
        if end - tail >= MIN_HOLE {
            slot.tail = end;
            self.heap_mut(heap).total += u64::from(end - tail);
            self.publish(Location::new(number, tail), hole(end - tail));
            self.link_hole(heap, Location::new(number, tail), end - tail);
        }
        self.heap_mut(heap).close(lane, number);
    }

    /// A segment that is resident already, for the pages of a heap that is not small.
    fn ready_segment(&self, heap: usize, lane: Lane) -> Option<Spare> {
        self.ready.note_opening();
        let owner = self.heap(heap);
        if lane == Lane::Names || owner.total < WHOLE_SEGMENTS || owner.account.is_tight() {
            return None;
        }
        let shards = usize::from(self.label.shards);
        let segments = usize::try_from(owner.total / SEGMENT_WORDS as u64).unwrap_or(usize::MAX);
        // Near a limit, what is ready for one shard only would have to go back for another.
        let has_room = owner.account.room() > (2 * shards * BLOCK_BYTES) as u64;
        let wanted = if owner.purpose == Use::Evictable && segments >= BLOCKS_APART && has_room {
            // As many as are filled while blocks are made for all shards.
            Wanted::Apart((segments / BLOCKS_APART).min(MOST_APART))
        } else {
            // One for each shard, as those of a sequential writer fill up at the same time; less
            // for small heaps, of which a quarter may be ready.
            Wanted::Shared(shards.min(shards.saturating_mul(segments) / 4).max(1))
        };
        self.ready.take(heap, self.label.shard, wanted)
    }

    fn empty_segment(&self, heap: usize) -> Result<Spare, Refusal> {
        let owner = self.heap(heap);
        let segment = self.arena.take().map_err(|_| Refusal::NoMemory)?;
        Ok(Spare { segment, charge: Charge::none(Arc::clone(&owner.account), owner.purpose) })
    }

    /// Makes the first `words` words of a slot resident, in batches that grow with the heap, as
    /// what is left of them when it stops is given back; of names, a page holds a hundred.
    pub(super) fn populate(&mut self, slot: usize, words: usize) -> Result<(), Refusal> {
        let has = self.slot(slot).segment.populated();
        if words <= has {
            return Ok(());
        }
        self.ready.note_growth();
        let needed = words.next_multiple_of(PAGE_WORDS);
        let heap = self.heap(self.slot(slot).heap);
        let heap_pages = heap.total / PAGE_WORDS as u64;
        let batch = match self.slot(slot).lane {
            Lane::Pages if heap.account.is_tight() => 1,
            Lane::Pages => usize::try_from(heap_pages / 8).unwrap_or(MAX_BATCH).clamp(1, MAX_BATCH),
            Lane::Names => 1,
        };
        let wanted = (has + batch * PAGE_WORDS).clamp(needed, SEGMENT_WORDS.max(needed));
        let Slot { segment, charge, .. } = self.slot_mut(slot);
        let result = grow(segment, charge, wanted);
        if result.is_err() && wanted > needed { grow(segment, charge, needed) } else { result }
    }

    /// Gives back what is resident ahead of the heaps' tails if it is more than one part in `parts`
    /// of the heap; returns how many bytes that was.
    pub(crate) fn trim_ahead(&mut self, parts: u64) -> u64 {
        let mut trimmed = 0;
        for heap in 0..self.heaps.len() {
            let Some(state) = &self.heaps[heap] else { continue };
            let tolerated = state.total / parts;
            let open = Lane::ALL.map(|lane| state.free(lane).open);
            for open in open.into_iter().flatten() {
                let slot = self.slot_mut(open);
                if (slot.segment.populated() - slot.tail as usize) as u64 <= tolerated {
                    continue;
                }
                let given_back = slot.segment.trim(slot.tail as usize);
                slot.charge.shrink((given_back * 8) as u64);
                trimmed += (given_back * 8) as u64;
            }
        }
        trimmed
    }

    /// The segment of a heap with the most holes, of a thousand that come next.
    pub(crate) fn emptiest(&mut self, heap: usize) -> Option<usize> {
        let slots = self.slots.len();
        let mut emptiest = None;
        let mut candidates = 0;
        for _ in 0..slots {
            self.cursor = (self.cursor + 1) % slots;
            let Some(slot) = self.slots[self.cursor].as_ref().filter(|slot| slot.heap == heap && !slot.draining) else {
                continue;
            };
            emptiest = emptiest.max(Some((slot.tail - slot.live, self.cursor)));
            candidates += 1;
            if candidates == MOST_CANDIDATES {
                break;
            }
        }
        emptiest.map(|(_, number)| number)
    }

    /// Removes an empty slot; dropping it gives the memory back, which is better done without
    /// the shard's lock.
    pub(crate) fn release(&mut self, slot: usize) -> Option<Slot> {
        let released = self.slots[slot].take()?;
        self.vacant.push(slot);
        self.bookmarks.leave(slot);
        let heap = self.heap_mut(released.heap);
        heap.total -= u64::from(released.tail);
        heap.close(released.lane, slot);
        Some(released)
    }
}

fn grow(segment: &mut Segment, charge: &mut Charge, words: usize) -> Result<(), Refusal> {
    let bytes = ((words - segment.populated()) * 8) as u64;
    charge.grow(bytes)?;
    segment.populate(words).map_err(|_| {
        charge.shrink(bytes);
        Refusal::NoMemory
    })
}
