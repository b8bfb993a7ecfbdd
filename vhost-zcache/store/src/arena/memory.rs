// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory of the host, handed out as exclusive tokens.
//!
//! The arena is one memory file, mapped once and cut into segments. A [`Segment`] is the only
//! way to a segment's bytes and cannot be cloned, so everything built on it is safe code.
//! Eight of them are a block, which one huge page can hold.
//! A segment is all zeroes when it is taken and is punched out of the file when it is dropped:
//! no guest ever sees what another one stored there.

use std::array;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use zerocopy::IntoBytes;

use super::backing;
use super::host::{HUGE_PAGE, NoMemory, PAGE_WORDS};
use super::prefetch::{LINE_WORDS, prefetch};
use super::word::count;
use crate::fault::Faults;

/// Size of a segment in bytes, the unit in which the arena is handed out and given back.
pub(crate) const SEGMENT_BYTES: usize = 256 << 10;
/// Size of a segment in words.
pub(crate) const SEGMENT_WORDS: usize = SEGMENT_BYTES / 8;
/// Segments of a block.
pub(crate) const BLOCK: usize = 8;
/// Size of a block in bytes: that of a huge page.
pub(crate) const BLOCK_BYTES: usize = HUGE_PAGE;
const _: () = assert!(BLOCK * SEGMENT_BYTES == BLOCK_BYTES);
/// Times that it is tried to give a part of a huge page back.
const PUNCHES: usize = 32;
/// Between two of these.
const PUNCH_REST: Duration = Duration::from_micros(50);

/// The mapped memory file. Segments of its first half are handed out one by one and grow page by
/// page, those of its second half in blocks that are resident as a whole.
pub(crate) struct Arena {
    mapping: backing::Shared,
    /// Segments of the first half.
    singles: u32,
    free: Mutex<Free>,
    faults: Faults,
}

/// What nobody holds.
struct Free {
    /// Single segments: those from here up, and `returned`.
    fresh: u32,
    returned: Vec<u32>,
    /// Blocks: those from here up, and `blocks`.
    fresh_block: u32,
    blocks: Vec<u32>,
    /// Of the other blocks, how many segments are held. What is left of a block is not handed out,
    /// so that it becomes a block again; there are more addresses than memory.
    held: HashMap<u32, usize>,
    /// The file is an earlier process's, and what is in it has no owner yet.
    unadopted: bool,
    /// Segments of an earlier process that nobody wants, until [`Arena::settle`].
    unwanted: Option<Vec<u32>>,
}

/// Bytes of the first half of an arena.
fn first_half(bytes: usize) -> usize {
    (bytes / 2).next_multiple_of(BLOCK_BYTES).min(bytes)
}

impl Arena {
    /// Makes an arena of `segments` segments. They cost address space only, until populated.
    pub(crate) fn new(segments: u32, faults: Faults) -> io::Result<Self> {
        let bytes = segments as usize * SEGMENT_BYTES;
        Ok(Self::of(backing::Shared::new(bytes)?, false, faults))
    }

    /// Maps the memory file of an earlier arena. No segment can be taken before
    /// [`Arena::adopt_all`].
    pub(crate) fn reopen(file: File, faults: Faults) -> io::Result<Self> {
        Ok(Self::of(backing::Shared::reopen(file, SEGMENT_BYTES)?, true, faults))
    }

    fn of(mapping: backing::Shared, unadopted: bool, faults: Faults) -> Self {
        let number = |bytes: usize| u32::try_from(bytes / SEGMENT_BYTES).unwrap_or(u32::MAX);
        let (singles, segments) = (number(first_half(mapping.bytes())), number(mapping.bytes()));
        let (fresh, fresh_block) = if unadopted { (singles, segments) } else { (0, singles) };
        let free = Free {
            fresh,
            returned: Vec::new(),
            fresh_block: fresh_block / count(BLOCK),
            blocks: Vec::new(),
            held: HashMap::new(),
            unadopted,
            unwanted: unadopted.then(Vec::new),
        };
        Self { mapping, singles, free: Mutex::new(free), faults }
    }

    /// The memory file, which keeps the pages alive beyond this process.
    pub(crate) fn file(&self) -> io::Result<File> {
        self.mapping.file()
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Free> {
        // A list of numbers is whole whenever the lock is free.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an empty segment.
    pub(crate) fn take(self: &Arc<Self>) -> Result<Segment, NoMemory> {
        let mut free = self.free();
        let returned = if free.is_settled() { free.returned.pop() } else { None };
        let number = match returned {
            Some(number) => number,
            None if free.fresh < self.singles => {
                free.fresh += 1;
                free.fresh - 1
            }
            None => return Err(NoMemory),
        };
        Ok(self.segment(number, 0))
    }

    /// Takes a block of empty segments that are resident as a whole. That takes as long as hundreds
    /// of puts.
    pub(crate) fn take_block(self: &Arc<Self>) -> Result<[Segment; BLOCK], NoMemory> {
        self.faults.check()?;
        let block = self.free().block(self.blocks_end())?;
        if self.mapping.populate_block(block as usize * BLOCK_BYTES).is_err() {
            self.give_back_block(block);
            return Err(NoMemory);
        }
        self.free().held.insert(block, BLOCK);
        Ok(array::from_fn(|n| self.segment(block * count(BLOCK) + count(n), count(SEGMENT_WORDS))))
    }

    fn blocks_end(&self) -> u32 {
        u32::try_from(self.mapping.bytes() / BLOCK_BYTES).unwrap_or(u32::MAX)
    }

    /// Asks for the cache lines of some words of a segment, to be read soon. Whether they exist
    /// does not matter.
    pub(crate) fn prefetch(&self, number: u32, from: usize, words: usize) {
        let start = self.mapping.base().cast::<u64>().as_ptr().wrapping_add(number as usize * SEGMENT_WORDS);
        // Segments begin on a line.
        for line in (from / LINE_WORDS * LINE_WORDS..from + words).step_by(LINE_WORDS) {
            prefetch(start.wrapping_add(line));
        }
    }

    fn segment(self: &Arc<Self>, number: u32, populated: u32) -> Segment {
        Segment { arena: Arc::clone(self), number, populated }
    }

    /// Gives a part of a block back.
    ///
    /// The kernel splits a huge page for that, but not while somebody else refers to it; then it
    /// has only cleared the memory. That was seen for up to 32 calls in a row without a rest
    /// between them, so it is likely a thread that has a fault in another of the block's segments
    /// and waits for this very call.
    fn punch(&self, start: usize, bytes: usize) -> io::Result<()> {
        for _ in 0..PUNCHES {
            self.mapping.punch(start, bytes)?;
            if start < self.singles as usize * SEGMENT_BYTES || self.mapping.next_data(start) != Some(start) {
                break;
            }
            thread::sleep(PUNCH_REST);
        }
        Ok(())
    }

    /// Notes that nobody holds a segment any more, of which nothing is resident.
    fn put_back(&self, number: u32) {
        let mut free = self.free();
        if number < self.singles {
            free.returned.push(number);
            return;
        }
        let block = number / count(BLOCK);
        if free.leave(block) {
            drop(free);
            self.give_back_block(block);
        }
    }

    fn give_back_block(&self, block: u32) {
        // Its segments were given back one by one, but a kernel that could not split a huge page
        // for that has only cleared it.
        let _ = self.mapping.punch(block as usize * BLOCK_BYTES, BLOCK_BYTES);
        self.free().blocks.push(block);
    }

    /// Everything of an earlier process has its new owner, so the rest is given back. Until then
    /// nothing is: who fails before leaves the file to the next one as it was.
    pub(crate) fn settle(self: &Arc<Self>) {
        self.mapping.settle();
        let unwanted = self.free().unwanted.take().unwrap_or_default();
        for number in unwanted {
            drop(self.segment(number, count(SEGMENT_WORDS)));
        }
    }

    /// Whether a segment stays as it is for now, as nobody may be found who wants it.
    fn keep_for_now(&self, number: u32) -> bool {
        let mut free = self.free();
        free.unwanted.as_mut().map(|unwanted| unwanted.push(number)).is_some()
    }

    /// Takes over all segments of a reopened arena in which an earlier process wrote. Only the
    /// first call finds any. Of one that the process was giving back when it died the beginning may
    /// be gone.
    pub(crate) fn adopt_all(self: &Arc<Self>) -> Vec<Segment> {
        let mut free = self.free();
        if !free.unadopted {
            return Vec::new();
        }
        free.unadopted = false;
        (free.fresh, free.fresh_block) = (0, self.singles / count(BLOCK));
        let mut adopted = Vec::new();
        let (mut start, mut behind_a_full_one) = (0, false);
        while start < self.mapping.bytes() {
            let bytes = if behind_a_full_one && self.mapping.ends_in_data(start, SEGMENT_BYTES) {
                // Mostly so, and one question less for each segment.
                SEGMENT_BYTES
            } else {
                let Some(data) = self.mapping.next_data(start) else { break };
                start = data / SEGMENT_BYTES * SEGMENT_BYTES;
                self.mapping.resident_prefix(start, SEGMENT_BYTES)
            };
            let number = count(start / SEGMENT_BYTES);
            free.claim(number, self.singles);
            adopted.push(self.segment(number, count(bytes / 8)));
            (start, behind_a_full_one) = (start + SEGMENT_BYTES, bytes == SEGMENT_BYTES);
        }
        // What is handed out from here on is new, and huge pages are only for what was found.
        let fresh = free.fresh as usize * SEGMENT_BYTES..self.singles as usize * SEGMENT_BYTES;
        let fresh_blocks = free.fresh_block as usize * BLOCK_BYTES..self.mapping.bytes();
        drop(free);
        self.mapping.keep_small(fresh);
        self.mapping.keep_small(fresh_blocks);
        adopted
    }
}

impl Free {
    /// Whether all there is has an owner. Until then only what no earlier process has used is
    /// handed out.
    fn is_settled(&self) -> bool {
        self.unwanted.is_none()
    }

    /// A block below `end` that nobody holds.
    fn block(&mut self, end: u32) -> Result<u32, NoMemory> {
        if self.is_settled()
            && let Some(block) = self.blocks.pop()
        {
            return Ok(block);
        }
        if self.fresh_block >= end {
            return Err(NoMemory);
        }
        self.fresh_block += 1;
        Ok(self.fresh_block - 1)
    }

    /// Notes that one segment less of a block is held; returns whether it was the last.
    fn leave(&mut self, block: u32) -> bool {
        let Some(held) = self.held.get_mut(&block) else { return false };
        *held -= 1;
        let last = *held == 0;
        if last {
            self.held.remove(&block);
        }
        last
    }

    /// Notes that a segment is held, the next in the order of their numbers.
    fn claim(&mut self, number: u32, singles: u32) {
        if number < singles {
            self.returned.extend(self.fresh..number);
            self.fresh = number + 1;
            return;
        }
        let block = number / count(BLOCK);
        self.blocks.extend(self.fresh_block..block);
        self.fresh_block = block + 1;
        *self.held.entry(block).or_default() += 1;
    }
}

/// Exclusive access to one segment.
pub(crate) struct Segment {
    arena: Arc<Arena>,
    number: u32,
    /// Words from the start that are resident; the others must not be touched, because the host
    /// could then only kill us if it has no memory.
    populated: u32,
}

impl Segment {
    fn start(&self) -> NonNull<u64> {
        let offset = self.number as usize * SEGMENT_BYTES;
        // SAFETY: only numbers of segments within the mapping are handed out, and it lives as long
        // as `self.arena`.
        unsafe { self.arena.mapping.base().byte_add(offset).cast() }
    }

    /// The populated words.
    pub(crate) fn words(&self) -> &[u64] {
        // SAFETY: the range is mapped, page-aligned and initialised (a memory file starts as
        // zeroes); each number is handed out once, so `&self` excludes all writers.
        unsafe { slice::from_raw_parts(self.start().as_ptr(), self.populated as usize) }
    }

    /// The populated words.
    pub(crate) fn words_mut(&mut self) -> &mut [u64] {
        // SAFETY: as in `words`; `&mut self` excludes all other access.
        unsafe { slice::from_raw_parts_mut(self.start().as_ptr(), self.populated as usize) }
    }

    /// Its first words, read by way of the file: to touch the memory would map its pages, which of
    /// all segments one after the other takes five times as long.
    pub(crate) fn first_words<const WORDS: usize>(&self) -> Option<[u64; WORDS]> {
        let mut words = [0; WORDS];
        let start = self.number as usize * SEGMENT_BYTES;
        self.arena.mapping.read(start, words.as_mut_bytes()).ok().map(|()| words)
    }

    /// Where its words are, for hints only.
    pub(super) fn address(&self) -> *mut u64 {
        self.start().as_ptr()
    }

    /// Its number, for [`Arena::prefetch`].
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Stores a word after everything written before, as a later process would see it if this
    /// one died in between.
    pub(crate) fn publish(&mut self, at: usize, word: u64) {
        let target: *mut u64 = &raw mut self.words_mut()[at];
        // SAFETY: `target` comes from an exclusive reference to an aligned word, and is used
        // for this one store only.
        unsafe { AtomicU64::from_ptr(target) }.store(word, Ordering::Release);
    }

    /// Words that are resident.
    pub(crate) fn populated(&self) -> usize {
        self.populated as usize
    }

    /// Whether it is the next one behind another, and one huge page may hold both.
    pub(crate) fn is_behind_in_block(&self, other: &Self) -> bool {
        self.number == other.number + 1 && !(self.number as usize).is_multiple_of(BLOCK)
    }

    /// Whether it is the next one behind another, and both are best given back by one call. Each
    /// block is seen to that it really is.
    fn is_behind(&self, other: &Self) -> bool {
        let is_single = self.number < self.arena.singles;
        if is_single { self.number == other.number + 1 } else { self.is_behind_in_block(other) }
    }

    /// Gives back all that is resident of some segments, which are to be dropped then: those side
    /// by side at once, if they come one behind the other. That takes the kernel a part of the
    /// time, and a small one of it for all of a huge page, which it has to split otherwise.
    pub(crate) fn empty<'a>(segments: impl Iterator<Item = &'a mut Self>) {
        let may_go = |segment: &&mut Self| segment.populated > 0 && segment.arena.free().is_settled();
        let mut segments: Vec<&mut Self> = segments.filter(may_go).collect();
        for run in segments.chunk_by_mut(|before, segment| segment.is_behind(before)) {
            let (start, bytes) = (run[0].number as usize * SEGMENT_BYTES, run.len() * SEGMENT_BYTES);
            // Where it fails, each segment tries again when it is dropped.
            if run[0].arena.punch(start, bytes).is_ok() {
                run.iter_mut().for_each(|segment| segment.populated = 0);
            }
        }
    }

    /// Makes the first `words` words (a multiple of a page) resident.
    pub(crate) fn populate(&mut self, words: usize) -> Result<(), NoMemory> {
        let words = words.min(SEGMENT_WORDS);
        let old = self.populated();
        if words <= old {
            return Ok(());
        }
        self.arena.faults.check()?;
        let start = self.number as usize * SEGMENT_BYTES;
        self.arena.mapping.populate(start + old * 8, (words - old) * 8)?;
        self.populated = count(words);
        Ok(())
    }

    /// Gives back the pages behind the first `words` words; returns how many words that were. They
    /// read as zeroes when they are populated again.
    pub(crate) fn trim(&mut self, words: usize) -> usize {
        let (keep, old) = (words.next_multiple_of(PAGE_WORDS), self.populated());
        let start = self.number as usize * SEGMENT_BYTES;
        if keep >= old || self.arena.punch(start + keep * 8, (old - keep) * 8).is_err() {
            return 0;
        }
        self.populated = count(keep);
        old - keep
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.arena.keep_for_now(self.number) {
            return;
        }
        if self.populated > 0 {
            let start = self.number as usize * SEGMENT_BYTES;
            if self.arena.punch(start, SEGMENT_BYTES).is_err() {
                // The host keeps the memory, but nobody may see what was in it.
                self.words_mut().fill(0);
            }
        }
        self.arena.put_back(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arena(segments: u32) -> Arc<Arena> {
        Arc::new(Arena::new(segments, Faults::default()).expect("an arena is made"))
    }

    #[test]
    fn a_segment_is_empty_again_for_the_next_holder() {
        let arena = arena(2);
        let mut first = arena.take().expect("a segment is free");
        first.populate(PAGE_WORDS).expect("there is memory");
        first.words_mut().fill(7);
        first.publish(3, 9);
        assert_eq!(first.words()[2..5], [7, 9, 7]);
        let number = first.number;
        drop(first);
        let mut again = arena.take().expect("a segment is free");
        assert_eq!(again.number, number, "a returned segment is taken first");
        again.populate(PAGE_WORDS * 2).expect("there is memory");
        assert!(again.words().iter().all(|word| *word == 0), "another holder's words are readable");
    }

    #[test]
    fn what_was_trimmed_is_empty_when_it_comes_back() {
        let arena = arena(1);
        let mut segment = arena.take().expect("a segment is free");
        segment.populate(PAGE_WORDS * 3).expect("there is memory");
        segment.words_mut().fill(7);
        assert_eq!(segment.trim(PAGE_WORDS + 1), PAGE_WORDS, "one page is behind the second");
        assert_eq!(segment.populated(), PAGE_WORDS * 2);
        assert_eq!(segment.trim(PAGE_WORDS * 2), 0, "nothing is left to trim");
        segment.populate(PAGE_WORDS * 3).expect("there is memory");
        assert_eq!(segment.words()[PAGE_WORDS * 2 - 1..=PAGE_WORDS * 2], [7, 0]);
    }

    #[test]
    fn a_block_is_handed_out_again_when_nobody_holds_a_segment_of_it() {
        let arena = arena(4 * count(BLOCK));
        let mut first = arena.take_block().expect("there is memory");
        for segment in &mut first {
            assert!(segment.words().iter().all(|word| *word == 0), "a new segment has something in it");
            segment.words_mut().fill(7);
        }
        let numbers = first.each_ref().map(|segment| segment.number);
        let [kept, others @ ..] = first;
        drop(others);
        assert_eq!(kept.words()[SEGMENT_WORDS - 1], 7, "a segment went with the others of its block");
        let second = arena.take_block().expect("there is another block");
        assert!(arena.take_block().is_err(), "what is left of a block was handed out");
        drop(kept);
        assert_eq!(arena.mapping.next_data(0), Some(second[0].number as usize * SEGMENT_BYTES), "memory is left");
        let again = arena.take_block().expect("a block was given back");
        assert_eq!(again.each_ref().map(|segment| segment.number), numbers);
        assert!(
            again.iter().all(|segment| segment.words().iter().all(|word| *word == 0)),
            "others' words are readable"
        );
    }

    #[test]
    fn segments_do_not_overlap_and_run_out() {
        let arena = arena(2);
        let mut both: Vec<Segment> = (0..2).map(|_| arena.take().expect("a segment is free")).collect();
        assert!(arena.take().is_err(), "an arena of two gave three segments");
        for (segment, value) in both.iter_mut().zip(1..) {
            segment.populate(SEGMENT_WORDS).expect("there is memory");
            (segment.words_mut()[0], segment.words_mut()[SEGMENT_WORDS - 1]) = (value, value);
        }
        for (segment, value) in both.iter().zip(1..) {
            assert_eq!(segment.words()[0], value);
            assert_eq!(segment.words()[SEGMENT_WORDS - 1], value);
        }
        both.pop();
        assert!(arena.take().is_ok());
    }

    #[test]
    fn a_segment_outlives_the_handle_of_its_arena() {
        let arena = arena(1);
        let mut segment = arena.take().expect("a segment is free");
        drop(arena);
        segment.populate(PAGE_WORDS).expect("there is memory");
        segment.words_mut()[0] = 1;
        assert_eq!(segment.words()[0], 1);
    }
}
