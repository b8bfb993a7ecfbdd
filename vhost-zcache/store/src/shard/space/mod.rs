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

pub(crate) mod bookmark;
pub(crate) mod holes;
mod location;
pub(crate) mod queue;
pub(crate) mod record;

use std::sync::Arc;

use zerocopy::IntoBytes;

use self::bookmark::Bookmarks;
use self::holes::Bins;
pub(in crate::shard) use self::location::Location;
use self::queue::Queues;
use self::record::{Head, MAX_WORDS, MIN_HOLE, OBJECT_WORDS, ObjectName, PageHead, PageName, hole};
use crate::accounting::{Account, Charge, Use};
use crate::arena::header::{self, HEADER_WORDS, Label, Lane, Role};
use crate::arena::host::PAGE_WORDS;
use crate::arena::memory::{Arena, SEGMENT_BYTES, SEGMENT_WORDS, Segment};
use crate::arena::prefetch::Tail;
use crate::arena::ready::{Ready, Spare};
use crate::arena::word::count;
use crate::key::{PAGE_SIZE, Page};
use crate::op::Refusal;
use crate::shard::index::nodes::Node;
use crate::shard::work::Work;
use crate::stats::Contents;

/// Bits of a location that count words within a segment.
pub(crate) const OFFSET_BITS: u32 = SEGMENT_WORDS.trailing_zeros();
/// Segments that are looked at for the one with the most holes, as the shard is locked meanwhile.
const MOST_CANDIDATES: usize = 1024;
/// Most segments a shard can address.
const MAX_SLOTS: usize = 1 << (32 - OFFSET_BITS);
/// Word of a segment's first record.
pub(crate) const FIRST: u32 = 6;
const _: () = assert!(FIRST as usize == HEADER_WORDS);
const SEGMENT_END: u32 = 1 << OFFSET_BITS;
/// Most pages made resident at a time by a put.
const MAX_BATCH: usize = 16;
/// Words from which on a heap takes segments that are resident as a whole. Until then it is not sure that
/// it will ever need one.
const WHOLE_SEGMENTS: u64 = SEGMENT_WORDS as u64 / 2;

/// Words from which on a heap keeps its names in segments of their own; below, those would take more
/// memory than they save time. Tests use small stores.
const NAMES_APART: u64 = if cfg!(feature = "check") { PAGE_WORDS as u64 } else { 1 << 17 };

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
    /// Numbers of the segments in them. A large store's slots are in no cache, these are: what is asked for ahead
    /// is found through them.
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

    /// Leaves all segments to the caller, to be dropped.
    pub(crate) fn take_all(&mut self) -> Vec<Slot> {
        for heap in self.heaps.iter_mut().flatten() {
            heap.clear();
        }
        self.numbers.clear();
        self.vacant.clear();
        self.cursor = 0;
        self.bookmarks = Bookmarks::default();
        self.slots.drain(..).flatten().collect()
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

    /// Heap of the record at `at`.
    pub(in crate::shard) fn heap_of(&self, at: Location) -> usize {
        self.slot(at.slot()).heap
    }

    pub(in crate::shard) fn word(&self, at: Location) -> u64 {
        self.slot(at.slot()).segment.words()[at.word()]
    }

    pub(in crate::shard) fn set_word(&mut self, at: Location, word: u64) {
        self.slot_mut(at.slot()).segment.words_mut()[at.word()] = word;
    }

    /// Asks for the first `words` words of a record, ahead of reading it.
    pub(in crate::shard) fn prefetch(&self, at: Location, words: u32) {
        if let Some(number) = self.numbers.get(at.slot()) {
            self.arena.prefetch(*number, at.word(), words as usize);
        }
    }

    /// Stores a head after everything written before.
    pub(in crate::shard) fn publish(&mut self, at: Location, head: u64) {
        self.slot_mut(at.slot()).segment.publish(at.word(), head);
    }

    pub(in crate::shard) fn words(&self, at: Location, words: u32) -> &[u64] {
        let from = at.word();
        &self.slot(at.slot()).segment.words()[from..from + words as usize]
    }

    pub(in crate::shard) fn words_mut(&mut self, at: Location, words: u32) -> &mut [u64] {
        let from = at.word();
        &mut self.slot_mut(at.slot()).segment.words_mut()[from..from + words as usize]
    }

    /// Copies a record over a hole.
    pub(in crate::shard) fn copy(&mut self, from: Location, to: Location, words: u32) {
        let (source, target) = (from.slot(), to.slot());
        if source == target {
            let at = from.word();
            let range = at + 1..at + words as usize;
            self.slot_mut(source).segment.words_mut().copy_within(range, to.word() + 1);
        } else if let Ok([Some(source), Some(target)]) = self.slots.get_disjoint_mut([source, target]) {
            let source = &source.segment.words()[from.word()..][..words as usize];
            target.segment.words_mut()[to.word()..][1..words as usize].copy_from_slice(&source[1..]);
        }
        let head = self.word(from);
        self.publish(to, head);
    }

    /// Head of the page at `at`.
    pub(in crate::shard) fn page_head(&self, at: Location) -> PageHead {
        PageHead(self.word(at))
    }

    /// Copies a page's stored bytes out.
    pub(in crate::shard) fn copy_payload(&self, at: Location, head: PageHead, out: &mut Page) {
        let words = self.words(at, head.words());
        let payload = words[head.payload_at() as usize..].as_bytes();
        let length = head.length().min(PAGE_SIZE);
        out[..length].copy_from_slice(&payload[..length]);
    }

    /// Name of the page at `at`.
    pub(in crate::shard) fn page_name(&self, at: Location) -> PageName {
        let words = self.words(at, 3);
        PageName::read([words[1], words[2]])
    }

    /// Number of the object whose name is at `at`.
    pub(in crate::shard) fn object_at(&self, at: Location) -> Node {
        ObjectName::object(self.word(at + 1))
    }

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

    /// Finds room for the name of an object where the heap keeps names; it takes no new memory for that
    /// while memory is short.
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

    fn open_segment(&mut self, heap: usize, lane: Lane) -> Result<usize, Refusal> {
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
    fn close_segment(&mut self, number: usize) {
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
        // One for each shard, as those of a sequential writer fill up at the same time; less for small
        // heaps, of which a quarter may be ready.
        let segments = usize::try_from(owner.total / SEGMENT_WORDS as u64).unwrap_or(usize::MAX);
        self.ready.take(heap, shards.min(shards.saturating_mul(segments) / 4).max(1))
    }

    fn empty_segment(&self, heap: usize) -> Result<Spare, Refusal> {
        let owner = self.heap(heap);
        let segment = self.arena.take().map_err(|_| Refusal::NoMemory)?;
        Ok(Spare { segment, charge: Charge::none(Arc::clone(&owner.account), owner.purpose) })
    }

    /// Takes over a segment that an earlier process wrote. It is left draining: its holes are in
    /// no bin. What was not written yet, or is damaged beyond reading, becomes a hole.
    pub(crate) fn adopt(&mut self, heap: usize, lane: Lane, segment: Segment) -> Result<usize, Refusal> {
        let number = self.slots.len();
        if number >= MAX_SLOTS {
            return Err(Refusal::NoMemory);
        }
        let owner = self.heap(heap);
        let mut charge = Charge::none(Arc::clone(&owner.account), owner.purpose);
        let words = segment.populated();
        charge.grow((words * 8) as u64)?;
        let tail = count(words);
        self.numbers.push(segment.number());
        self.slots.push(Some(Slot { segment, charge, heap, lane, tail, live: 0, draining: true }));
        let mut at = Location::new(number, FIRST);
        let mut live = 0;
        let written = loop {
            let Some((head, next)) = self.walk(at) else { break at.word() };
            let end = at.word() + head.words() as usize;
            if end > words {
                break at.word();
            }
            if matches!(head, Head::Page(_) | Head::Object) {
                live += head.words();
            }
            at = next;
            if end == SEGMENT_WORDS {
                break end;
            }
        };
        if written < words {
            self.publish(at, hole(count(words - written)));
        }
        self.slot_mut(number).live = live;
        let heap = self.heap_mut(heap);
        heap.total += u64::from(tail);
        heap.live += u64::from(live);
        Ok(number)
    }

    /// Makes the first `words` words of a slot resident, in batches that grow with the heap, as what is
    /// left of them when it stops is given back; of names, a page holds a hundred.
    fn populate(&mut self, slot: usize, words: usize) -> Result<(), Refusal> {
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

    /// Gives back what is resident ahead of the heaps' tails if it is more than one part in `parts` of the
    /// heap; returns whether that was anything.
    pub(crate) fn trim_ahead(&mut self, parts: u64) -> bool {
        let mut trimmed = false;
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
                trimmed |= given_back > 0;
            }
        }
        trimmed
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

    fn link_hole(&mut self, heap: usize, at: Location, size: u32) {
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

    /// The head at `at`, and the location behind it; `None` at the tail.
    pub(in crate::shard) fn walk(&self, at: Location) -> Option<(Head, Location)> {
        // Word 0 is a header: the record before it ended at the end of its segment.
        if at.word() == 0 {
            return None;
        }
        let slot = self.slot(at.slot());
        if at.word() >= slot.tail as usize {
            return None;
        }
        let head = Head::read(slot.segment.words()[at.word()]);
        let words = head.words();
        (words > 0).then_some((head, at.behind(words)))
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

const _: () = assert!(SEGMENT_BYTES.is_multiple_of(PAGE_WORDS * 8));

/// Copies bytes into words; the rest of the last word becomes zero.
pub(crate) fn copy_in(words: &mut [u64], bytes: &[u8]) {
    if let Some(last) = words.last_mut() {
        *last = 0;
    }
    words.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
}
