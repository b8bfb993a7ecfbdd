// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Segments of an earlier process, taken over.
//!
//! Records lie one behind the other, so the head of each has to come from memory before the next is
//! known. Of one segment that is a wait for each record; so many segments are gone through side by
//! side, and the heads of all are on their way at once.

use std::mem;
use std::ops::Range;

use super::record::{Head, hole};
use super::{FIRST, Location, MAX_SLOTS, Slot, Space};
use crate::accounting::Charge;
use crate::arena::header::Lane;
use crate::arena::memory::Segment;
use crate::arena::word::count;
use crate::op::Refusal;

/// Segments that are gone through side by side.
const SIDE_BY_SIDE: usize = 16;

/// A segment of an earlier process, and what it is of.
pub(crate) struct Remains {
    // Dropped before the charge: memory is paid for until it is returned.
    pub(crate) segment: Segment,
    pub(crate) charge: Charge,
    pub(crate) heap: usize,
    pub(crate) lane: Lane,
    pub(crate) era: u32,
}

/// A segment of an earlier process, taken over.
pub(crate) struct Adopted {
    pub(crate) slot: usize,
    /// Each record in it ends where the next one begins, or where nothing was written yet.
    pub(crate) whole: bool,
    /// Words of records, as it was found.
    live: u32,
    /// Its holes, in [`Find::holes`].
    holes: Range<usize>,
}

/// What is in them.
#[derive(Default)]
pub(crate) struct Find {
    pub(crate) segments: Vec<Adopted>,
    pub(in crate::shard) names: Vec<Location>,
    pub(in crate::shard) pages: Vec<Location>,
    holes: Vec<(Location, u32)>,
}

/// Where somebody is who goes through a segment.
struct Walk<'a> {
    words: &'a [u64],
    slot: usize,
    /// The number of the segment.
    number: u32,
    at: usize,
    found: Walked,
}

/// What was found in a segment.
#[derive(Default)]
struct Walked {
    names: Vec<Location>,
    pages: Vec<Location>,
    holes: Vec<(Location, u32)>,
    live: u32,
    /// Where its records end, and whether they do where its words do, or where nothing was written.
    end: usize,
    whole: bool,
}

impl Walk<'_> {
    /// Looks at the record that comes next; returns whether there is another one.
    fn step(&mut self) -> bool {
        let Some(word) = self.words.get(self.at) else { return self.end(true) };
        let head = Head::read(*word);
        let words = head.words();
        let end = self.at + words as usize;
        if head == Head::Unknown || end > self.words.len() {
            return self.end(false);
        }
        let location = Location::new(self.slot, count(self.at));
        match head {
            Head::Page(_) => self.found.pages.push(location),
            Head::Object => self.found.names.push(location),
            Head::Hole(0) | Head::End | Head::Unknown => return self.end(true),
            Head::Hole(_) => self.found.holes.push((location, words)),
        }
        if matches!(head, Head::Page(_) | Head::Object) {
            self.found.live += words;
        }
        self.at = end;
        true
    }

    fn end(&mut self, whole: bool) -> bool {
        (self.found.end, self.found.whole) = (self.at, whole);
        false
    }
}

impl Space {
    /// Takes over segments that an earlier process wrote; returns what is in them. They are left
    /// draining, their holes are in no bin. What was not written yet, or is damaged beyond reading,
    /// becomes a hole.
    pub(in crate::shard) fn adopt(&mut self, remains: Vec<Remains>) -> Result<Find, Refusal> {
        let first = self.slots.len();
        if first + remains.len() > MAX_SLOTS {
            return Err(Refusal::NoMemory);
        }
        for Remains { segment, charge, heap, lane, .. } in remains {
            let tail = count(segment.populated());
            self.numbers.push(segment.number());
            self.slots.push(Some(Slot { segment, charge, heap, lane, tail, live: 0, draining: true }));
        }
        let mut find = Find::default();
        for from in (first..self.slots.len()).step_by(SIDE_BY_SIDE) {
            let slots = from..self.slots.len().min(from + SIDE_BY_SIDE);
            for (slot, walked) in slots.clone().zip(self.walk_side_by_side(slots)) {
                self.take_over(slot, walked, &mut find);
            }
        }
        Ok(find)
    }

    fn walk_side_by_side(&self, slots: Range<usize>) -> Vec<Walked> {
        let walk = |slot| {
            let segment = &self.slot(slot).segment;
            let (words, number) = (segment.words(), segment.number());
            Walk { words, slot, number, at: FIRST as usize, found: Walked::default() }
        };
        let mut walks: Vec<Walk<'_>> = slots.map(walk).collect();
        let mut going: Vec<&mut Walk<'_>> = walks.iter_mut().collect();
        while !going.is_empty() {
            going.retain_mut(|walk| {
                let more = walk.step();
                if more {
                    self.arena.prefetch(walk.number, walk.at, 1);
                }
                more
            });
        }
        walks.into_iter().map(|walk| walk.found).collect()
    }

    fn take_over(&mut self, slot: usize, walked: Walked, find: &mut Find) {
        let Walked { names, pages, holes, live, end, whole } = walked;
        let before = find.holes.len();
        find.names.extend(names);
        find.pages.extend(pages);
        find.holes.extend(holes);
        let Slot { heap, tail, .. } = *self.slot(slot);
        let rest = tail - count(end);
        if rest > 0 {
            let at = Location::new(slot, count(end));
            self.publish(at, hole(rest));
            find.holes.push((at, rest));
        }
        self.slot_mut(slot).live = live;
        let heap = self.heap_mut(heap);
        heap.total += u64::from(tail);
        heap.live += u64::from(live);
        find.segments.push(Adopted { slot, whole, live, holes: before..find.holes.len() });
    }

    /// Lets records into the holes of the segments that were taken over, when all that were dropped
    /// are.
    pub(in crate::shard) fn open_adopted(&mut self, find: &mut Find) {
        for Adopted { slot, live, holes, .. } in mem::take(&mut find.segments) {
            let Slot { heap, live: now, .. } = *self.slot(slot);
            if now != live {
                // There are other holes by now.
                self.stop_draining(slot);
                continue;
            }
            self.slot_mut(slot).draining = false;
            for (at, size) in &find.holes[holes] {
                self.link_hole(heap, *at, *size);
            }
        }
    }
}
