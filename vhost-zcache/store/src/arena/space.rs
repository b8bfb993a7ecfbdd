// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The space of one shard: heaps of segments, and free space within them.
//!
//! A heap belongs to one guest and is either evictable or not. A new record goes into the
//! smallest hole that fits, or at the tail of the heap's open segment; what is freed becomes a
//! hole, joined with the hole behind it. Since a record's trailing rest is joined again when
//! the record is freed, overwriting at random keeps few percent of holes and moves nothing.
//! What discarding leaves is [`crate::compact`]'s work.
//!
//! Every operation reads the name of its object. So names of large heaps lie together: scattered
//! among the pages, each would be on a page of memory of its own, of which no cache knows anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use zerocopy::IntoBytes;

use super::bins::{Bins, NIL};
use super::memory::{Ahead, Arena, PAGE_WORDS, SEGMENT_BYTES, SEGMENT_WORDS, Segment, Tail};
use super::record::{Head, MAX_WORDS, OBJECT_WORDS, PageHead, PageName, count, hole, low, pair, split};
use crate::accounting::{Account, Charge, Use};
use crate::domain::STRIPE;
use crate::evict::queue::Queues;
use crate::key::{PAGE_SIZE, Page};
use crate::op::Refusal;
use crate::stats::Contents;

/// Bits of a location that count words within a segment.
pub(crate) const OFFSET_BITS: u32 = SEGMENT_WORDS.trailing_zeros();
/// Most segments a shard can address.
const MAX_SLOTS: usize = 1 << (32 - OFFSET_BITS);
/// Words of a segment's header; see [`crate::rebuild`].
pub(crate) const HEADER_WORDS: usize = 6;
/// Word of a segment's first record.
pub(crate) const FIRST: u32 = 6;
const _: () = assert!(FIRST as usize == HEADER_WORDS);
const SEGMENT_END: u32 = 1 << OFFSET_BITS;
/// Most pages made resident at a time by a put.
const MAX_BATCH: usize = 16;
/// Least words that the background makes resident at a time.
const MIN_STEP: usize = 4 * PAGE_WORDS;
/// Most.
const MAX_STEP: usize = 16 * PAGE_WORDS;
/// Most words it keeps resident ahead of the tail of a heap that grows: a stripe of an object, which is
/// what a sequential writer puts into a shard before it goes on to the next, even if nothing compresses.
const MAX_AHEAD: u64 = MAX_WORDS as u64 * STRIPE;

/// Words from which on a heap keeps its names in segments of their own; below, those would take more
/// memory than they save time. Tests use small stores.
const NAMES_APART: u64 = if cfg!(feature = "check") { PAGE_WORDS as u64 } else { SEGMENT_WORDS as u64 };

/// What is put into a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Pages, and names if the heap is small or there is no room for them elsewhere.
    Pages = 0,
    /// Names of objects.
    Names = 1,
}

impl Lane {
    pub(crate) const ALL: [Self; 2] = [Self::Pages, Self::Names];
}

/// Where a record is: slot and word.
pub(crate) fn location(slot: usize, word: u32) -> u32 {
    low((slot as u64) << OFFSET_BITS) | word
}

/// Slot of a location.
pub(crate) fn slot_of(at: u32) -> usize {
    (at >> OFFSET_BITS) as usize
}

/// Word of a location within its segment.
pub(crate) fn word_of(at: u32) -> usize {
    (at as usize) & (SEGMENT_WORDS - 1)
}

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

/// Room ahead of a heap's tail that is made resident while others use the shard.
pub(crate) struct Room {
    heap: usize,
    /// Whose segment it is in; `None`: the spare one.
    slot: Option<usize>,
    pub(crate) ahead: Ahead,
    charge: Charge,
}

/// A segment that will be opened next.
pub(crate) struct Spare {
    // Dropped before the charge, as in `Slot`.
    pub(crate) segment: Segment,
    pub(crate) charge: Charge,
}

/// Where a lane of a heap has room.
pub(crate) struct Free {
    pub(crate) bins: Bins,
    pub(crate) open: Option<usize>,
}

/// The segments of one guest in this shard that are evictable, or those that are not.
pub(crate) struct Heap {
    pub(crate) account: Arc<Account>,
    pub(crate) purpose: Use,
    /// Number of the guest, written into segments.
    pub(crate) guest: u32,
    /// By lane.
    pub(crate) free: [Free; 2],
    /// Made ready while the open segment comes to its end and the heap grows.
    pub(crate) spare: Option<Spare>,
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

    fn close(&mut self, lane: Lane, slot: usize) {
        self.free_mut(lane).open.take_if(|open| *open == slot);
    }

    /// Words of holes.
    pub(crate) fn dead(&self) -> u64 {
        self.total - self.live
    }
}

/// What a segment's header says besides its heap; the same for all segments of a shard.
#[derive(Clone, Copy)]
pub(crate) struct Label {
    /// Shard within the domain.
    pub(crate) shard: u16,
    /// Shards of the domain.
    pub(crate) shards: u16,
    /// Seed of the hash that spreads keys over them.
    pub(crate) seed: [u64; 2],
    /// Whether a later process can make sense of the segment.
    pub(crate) recoverable: bool,
}

/// All segments of one shard.
pub(crate) struct Space {
    arena: Arc<Arena>,
    label: Label,
    /// Set when a heap has less resident room ahead of its tail than it should.
    growing: Arc<AtomicBool>,
    /// Where the heap that grew last grows next.
    tail: Arc<Tail>,
    pub(crate) slots: Vec<Option<Slot>>,
    pub(crate) heaps: Vec<Option<Heap>>,
}

impl Space {
    pub(crate) fn new(arena: Arc<Arena>, label: Label, growing: Arc<AtomicBool>, tail: Arc<Tail>) -> Self {
        Self { arena, label, growing, tail, slots: Vec::new(), heaps: Vec::new() }
    }

    /// Adds a heap and returns its number.
    pub(crate) fn add_heap(&mut self, account: Arc<Account>, purpose: Use, guest: u32) -> usize {
        let heap = Heap {
            account,
            purpose,
            guest,
            free: [MAX_WORDS, OBJECT_WORDS].map(|largest| Free { bins: Bins::new(largest), open: None }),
            spare: None,
            total: 0,
            live: 0,
            queues: Queues::default(),
            contents: Contents::default(),
        };
        if let Some(free) = self.heaps.iter().position(Option::is_none) {
            self.heaps[free] = Some(heap);
            return free;
        }
        self.heaps.push(Some(heap));
        self.heaps.len() - 1
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
    pub(crate) fn heap_of(&self, at: u32) -> usize {
        self.slot(slot_of(at)).heap
    }

    pub(crate) fn word(&self, at: u32) -> u64 {
        self.slot(slot_of(at)).segment.words()[word_of(at)]
    }

    pub(crate) fn set_word(&mut self, at: u32, word: u64) {
        self.slot_mut(slot_of(at)).segment.words_mut()[word_of(at)] = word;
    }

    /// Asks for the first `words` words of a record, ahead of reading it.
    pub(crate) fn prefetch(&self, at: u32, words: u32) {
        if let Some(Some(slot)) = self.slots.get(slot_of(at)) {
            slot.segment.prefetch(word_of(at), words as usize);
        }
    }

    /// Stores a head after everything written before.
    pub(crate) fn publish(&mut self, at: u32, head: u64) {
        self.slot_mut(slot_of(at)).segment.publish(word_of(at), head);
    }

    pub(crate) fn words(&self, at: u32, words: u32) -> &[u64] {
        let from = word_of(at);
        &self.slot(slot_of(at)).segment.words()[from..from + words as usize]
    }

    pub(crate) fn words_mut(&mut self, at: u32, words: u32) -> &mut [u64] {
        let from = word_of(at);
        &mut self.slot_mut(slot_of(at)).segment.words_mut()[from..from + words as usize]
    }

    /// Copies a record over a hole.
    pub(crate) fn copy(&mut self, from: u32, to: u32, words: u32) {
        let (source, target) = (slot_of(from), slot_of(to));
        if source == target {
            let at = word_of(from);
            let range = at + 1..at + words as usize;
            self.slot_mut(source).segment.words_mut().copy_within(range, word_of(to) + 1);
        } else if let Ok([Some(source), Some(target)]) = self.slots.get_disjoint_mut([source, target]) {
            let source = &source.segment.words()[word_of(from)..][..words as usize];
            target.segment.words_mut()[word_of(to)..][1..words as usize].copy_from_slice(&source[1..]);
        }
        let head = self.word(from);
        self.publish(to, head);
    }

    /// Head of the page at `at`.
    pub(crate) fn page_head(&self, at: u32) -> PageHead {
        PageHead(self.word(at))
    }

    /// Copies a page's stored bytes out.
    pub(crate) fn copy_payload(&self, at: u32, head: PageHead, out: &mut Page) {
        let words = self.words(at, head.words());
        let payload = words[head.payload_at() as usize..].as_bytes();
        let length = head.length().min(PAGE_SIZE);
        out[..length].copy_from_slice(&payload[..length]);
    }

    /// Name of the page at `at`.
    pub(crate) fn page_name(&self, at: u32) -> PageName {
        let words = self.words(at, 3);
        PageName::read([words[1], words[2]])
    }

    /// Finds room for a record. Until its head is published, the location is still a hole.
    pub(crate) fn alloc(&mut self, heap: usize, words: u32) -> Result<u32, Refusal> {
        debug_assert!(words <= MAX_WORDS);
        if let Some(at) = self.alloc_hole(heap, words) {
            return Ok(at);
        }
        let at = self.extend(heap, Lane::Pages, words)?;
        self.add_live(heap, at, words);
        Ok(at)
    }

    /// Finds room for a record in a hole.
    pub(crate) fn alloc_hole(&mut self, heap: usize, words: u32) -> Option<u32> {
        self.alloc_hole_in(heap, Lane::Pages, words)
    }

    /// Finds room for the name of an object where the heap keeps names; it takes no new memory for that
    /// while memory is short.
    pub(crate) fn alloc_name(&mut self, heap: usize) -> Option<u32> {
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

    fn alloc_hole_in(&mut self, heap: usize, lane: Lane, words: u32) -> Option<u32> {
        let bins = &self.heap(heap).free(lane).bins;
        let at = self.same_sized_hole(bins, words).or_else(|| bins.fitting(words))?;
        self.split_hole(heap, at, words);
        self.add_live(heap, at, words);
        Some(at)
    }

    /// The hole that was freed last in the bin of that size, if it has just the size: what a record
    /// leaves that is overwritten by one as long. `Bins::fitting` misses it if the size is odd.
    fn same_sized_hole(&self, bins: &Bins, words: u32) -> Option<u32> {
        let at = bins.head(bins.bin_of(words)?);
        (at != NIL && self.word(at) == hole(words)).then_some(at)
    }

    fn add_live(&mut self, heap: usize, at: u32, words: u32) {
        self.slot_mut(slot_of(at)).live += words;
        self.heap_mut(heap).live += u64::from(words);
    }

    /// Takes a hole out of its bin; what remains behind `words` words stays a hole.
    fn split_hole(&mut self, heap: usize, at: u32, words: u32) {
        let size = Head::read(self.word(at)).words();
        self.unlink_hole(heap, at, size);
        if size > words {
            let rest = at + words;
            self.publish(rest, hole(size - words));
            self.link_hole(heap, rest, size - words);
        }
    }

    /// Takes room at the tail of the lane's open segment, or of a new one.
    fn extend(&mut self, heap: usize, lane: Lane, words: u32) -> Result<u32, Refusal> {
        let open = match self.heap(heap).free(lane).open {
            Some(open) if self.slot(open).tail + words <= SEGMENT_END => open,
            _ => self.open_segment(heap, lane)?,
        };
        let tail = self.slot(open).tail;
        self.populate(open, (tail + words) as usize)?;
        let slot = self.slots[open].as_mut().expect("the open segment is in use");
        slot.tail = tail + words;
        if lane == Lane::Pages {
            self.tail.set(&slot.segment, slot.tail as usize);
        }
        self.heap_mut(heap).total += u64::from(words);
        let new_page = tail as usize / PAGE_WORDS != (tail + words) as usize / PAGE_WORDS;
        if lane == Lane::Pages && new_page && !self.growing.load(Relaxed) && self.step_ahead(heap, open).is_some() {
            self.growing.store(true, Relaxed);
        }
        let at = location(open, tail);
        self.publish(at, hole(words));
        Ok(at)
    }

    fn open_segment(&mut self, heap: usize, lane: Lane) -> Result<usize, Refusal> {
        let number = match self.slots.iter().position(Option::is_none) {
            Some(number) => number,
            None if self.slots.len() < MAX_SLOTS => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => return Err(Refusal::NoMemory),
        };
        let ready = if lane == Lane::Pages { self.heap_mut(heap).spare.take() } else { None };
        let Spare { segment, charge } = ready.map_or_else(|| self.new_spare(heap), Ok)?;
        let owner = self.heap(heap);
        let (guest, purpose) = (owner.guest, owner.purpose);
        let tail = FIRST;
        self.slots[number] = Some(Slot { segment, charge, heap, lane, tail, live: 0, draining: false });
        if let Err(refusal) = self.populate(number, HEADER_WORDS) {
            self.slots[number] = None;
            return Err(refusal);
        }
        let header = crate::rebuild::header(self.label, guest, purpose, lane);
        let words = self.slot_mut(number).segment.words_mut();
        words[1..HEADER_WORDS].copy_from_slice(&header[1..]);
        self.publish(location(number, 0), header[0]);
        let owner = self.heap_mut(heap);
        owner.free_mut(lane).open = Some(number);
        owner.total += HEADER_WORDS as u64;
        Ok(number)
    }

    fn new_spare(&self, heap: usize) -> Result<Spare, Refusal> {
        let owner = self.heap(heap);
        let segment = self.arena.take().map_err(|_| Refusal::NoMemory)?;
        Ok(Spare { segment, charge: Charge::none(Arc::clone(&owner.account), owner.purpose) })
    }

    /// Takes over a segment that an earlier process wrote. It is left draining: its holes are in
    /// no bin. What is damaged beyond reading becomes a hole.
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
        self.slots.push(Some(Slot { segment, charge, heap, lane, tail, live: 0, draining: true }));
        let mut at = location(number, FIRST);
        let mut live = 0;
        let tail = loop {
            let Some((head, next)) = self.walk(at) else { break word_of(at) };
            let end = word_of(at) + head.words() as usize;
            if end > words {
                break word_of(at);
            }
            if matches!(head, Head::Page(_) | Head::Object) {
                live += head.words();
            }
            at = next;
            if end == SEGMENT_WORDS {
                break end;
            }
        };
        let rest = words - tail;
        let ends_well = rest == 0 || Head::read(self.word(at)) == Head::End;
        let tail = count(if ends_well { tail } else { words });
        if !ends_well {
            self.publish(at, hole(count(rest)));
        }
        let slot = self.slot_mut(number);
        (slot.tail, slot.live) = (tail, live);
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

    /// End of what should be resident for a growing heap, from its open slot's start: less for
    /// small heaps, and nothing where memory is short.
    fn wanted_ahead(&self, heap: usize, slot: usize) -> usize {
        let heap = self.heap(heap);
        let ahead = if heap.account.is_tight() { 0 } else { (heap.total / 2).min(MAX_AHEAD) };
        self.slot(slot).tail as usize + usize::try_from(ahead).unwrap_or(0)
    }

    /// Words, in whole pages, by which a step would bring it closer to that, if it is worth one; the spare
    /// segment continues the open one.
    fn step_ahead(&self, heap: usize, slot: usize) -> Option<usize> {
        let spare = self.heap(heap).spare.as_ref().map_or(0, |spare| spare.segment.populated());
        let has = self.slot(slot).segment.populated() + spare;
        let lacking = self.wanted_ahead(heap, slot).saturating_sub(has);
        (lacking >= MIN_STEP).then(|| (lacking / PAGE_WORDS * PAGE_WORDS).min(MAX_STEP))
    }

    /// Chooses a little room ahead of a heap's tail, to be made resident so that the puts to come need
    /// not wait for the kernel. That takes 3 us for each page, or four times that in a virtual machine
    /// whose host has to find the page first; so it is done without the shard.
    pub(crate) fn plan_room(&mut self) -> Option<Room> {
        let (heap, words) = (0..self.heaps.len()).find_map(|heap| {
            let open = self.heaps[heap].as_ref()?.free(Lane::Pages).open?;
            Some((heap, self.step_ahead(heap, open)?))
        })?;
        // Without memory the next put finds out, and says so.
        self.plan_heap_room(heap, words).ok()
    }

    fn plan_heap_room(&mut self, heap: usize, words: usize) -> Result<Room, Refusal> {
        let owner = self.heap(heap);
        let mut charge = Charge::none(Arc::clone(&owner.account), owner.purpose);
        charge.grow((words * 8) as u64)?;
        let open = owner.free(Lane::Pages).open.filter(|open| self.slot(*open).segment.populated() < SEGMENT_WORDS);
        if open.is_none() && owner.spare.is_none() {
            let spare = self.new_spare(heap)?;
            self.heap_mut(heap).spare = Some(spare);
        }
        let segment = match (open, &mut self.heaps[heap]) {
            (Some(open), _) => &mut self.slot_mut(open).segment,
            (None, Some(Heap { spare: Some(spare), .. })) => &mut spare.segment,
            _ => return Err(Refusal::NoMemory),
        };
        let ahead = segment.plan_ahead(segment.populated() + words);
        Ok(Room { heap, slot: open, ahead, charge })
    }

    /// Takes over room that was made resident, if it still continues what it was meant to.
    pub(crate) fn adopt_room(&mut self, room: Room) {
        let Room { heap, slot, ahead, charge: paid } = room;
        let Some(Some(owner)) = self.heaps.get_mut(heap) else { return };
        // The spare segment may have been opened, and the open one closed.
        let slots = [slot, owner.free(Lane::Pages).open];
        let spare = owner.spare.as_mut().map(|spare| (&mut spare.segment, &mut spare.charge));
        let planned = |segment: &Segment| segment.planned(&ahead);
        let target = match spare.filter(|(segment, _)| planned(segment)) {
            Some(spare) => Some(spare),
            None => slots
                .into_iter()
                .flatten()
                .find(|slot| self.slots.get(*slot).and_then(Option::as_ref).is_some_and(|slot| planned(&slot.segment)))
                .and_then(|slot| self.slots[slot].as_mut())
                .map(|slot| (&mut slot.segment, &mut slot.charge)),
        };
        if let Some((segment, charge)) = target {
            let words = segment.adopt_ahead(&ahead);
            charge.take_from(paid, (words * 8) as u64);
        }
    }

    /// Gives back what is resident ahead of the heaps' tails; returns whether that was anything.
    pub(crate) fn trim_ahead(&mut self) -> bool {
        let mut trimmed = false;
        for heap in 0..self.heaps.len() {
            let Some(state) = &mut self.heaps[heap] else { continue };
            trimmed |= state.spare.take().is_some();
            let open = Lane::ALL.map(|lane| state.free(lane).open);
            for open in open.into_iter().flatten() {
                let slot = self.slot_mut(open);
                let given_back = slot.segment.trim(slot.tail as usize);
                slot.charge.shrink((given_back * 8) as u64);
                trimmed |= given_back > 0;
            }
        }
        trimmed
    }

    /// Frees a record of `words` words.
    pub(crate) fn free(&mut self, at: u32, words: u32) {
        let slot_number = slot_of(at);
        let slot = self.slot_mut(slot_number);
        slot.live -= words;
        let (heap, tail, draining) = (slot.heap, slot.tail, slot.draining);
        self.heap_mut(heap).live -= u64::from(words);
        let mut size = words;
        let next = at.wrapping_add(words);
        if word_of(at) + (words as usize) < tail as usize
            && let Head::Hole(behind) = Head::read(self.word(next))
        {
            if !draining {
                self.unlink_hole(heap, next, behind);
            }
            size += behind;
        }
        self.publish(at, hole(size));
        if !draining {
            self.link_hole(heap, at, size);
        }
    }

    fn link_hole(&mut self, heap: usize, at: u32, size: u32) {
        let lane = self.slot(slot_of(at)).lane;
        let bins = &self.heap(heap).free(lane).bins;
        let Some(bin) = bins.bin_of(size) else { return };
        let next = bins.head(bin);
        self.set_word(at + 1, pair(next, NIL));
        if next != NIL {
            let (after, _) = split(self.word(next + 1));
            self.set_word(next + 1, pair(after, at));
        }
        self.heap_mut(heap).free_mut(lane).bins.set_head(bin, at);
    }

    fn unlink_hole(&mut self, heap: usize, at: u32, size: u32) {
        let lane = self.slot(slot_of(at)).lane;
        let bins = &mut self.heap_mut(heap).free_mut(lane).bins;
        let Some(bin) = bins.bin_of(size) else { return };
        let (next, previous) = split(self.word(at + 1));
        if next != NIL {
            let (after, _) = split(self.word(next + 1));
            self.set_word(next + 1, pair(after, previous));
        }
        if previous == NIL {
            self.heap_mut(heap).free_mut(lane).bins.set_head(bin, next);
        } else {
            let (_, before) = split(self.word(previous + 1));
            self.set_word(previous + 1, pair(next, before));
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

    fn for_each_hole(&mut self, slot: usize, visit: impl Fn(&mut Self, u32, u32)) {
        let mut at = location(slot, FIRST);
        while let Some((head, next)) = self.walk(at) {
            if let Head::Hole(size) = head {
                visit(self, at, size);
            }
            at = next;
        }
    }

    /// The head at `at`, and the location behind it; `None` at the tail.
    pub(crate) fn walk(&self, at: u32) -> Option<(Head, u32)> {
        // Word 0 is a header: the record before it ended at the end of its segment.
        if word_of(at) == 0 {
            return None;
        }
        let slot = self.slot(slot_of(at));
        if word_of(at) >= slot.tail as usize {
            return None;
        }
        let head = Head::read(slot.segment.words()[word_of(at)]);
        let words = head.words();
        (words > 0).then_some((head, at.wrapping_add(words)))
    }

    /// The segment of a heap with the most holes.
    pub(crate) fn emptiest(&self, heap: usize) -> Option<usize> {
        let slots = self.slots.iter().enumerate();
        slots
            .filter_map(|(number, slot)| Some((number, slot.as_ref()?)))
            .filter(|(_, slot)| slot.heap == heap && !slot.draining)
            .max_by_key(|(_, slot)| slot.tail - slot.live)
            .map(|(number, _)| number)
    }

    /// Removes an empty slot; dropping it gives the memory back, which is better done without
    /// the shard's lock.
    pub(crate) fn release(&mut self, slot: usize) -> Option<Slot> {
        let released = self.slots[slot].take()?;
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
