// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory of the host, handed out as exclusive tokens.
//!
//! The arena is one memory file, mapped once and cut into segments. A [`Segment`] is the only
//! way to a segment's bytes and cannot be cloned, so everything built on it is safe code.
//! A segment is all zeroes when it is taken and is punched out of the file when it is dropped:
//! no guest ever sees what another one stored there.

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use super::backing;
use super::record::count;
use crate::fault::Faults;

/// Size of a segment in bytes, the unit in which the arena is handed out and given back.
pub(crate) const SEGMENT_BYTES: usize = 1 << 20;
/// Size of a segment in words.
pub(crate) const SEGMENT_WORDS: usize = SEGMENT_BYTES / 8;
/// The host's page size, the unit in which memory becomes resident and is charged.
pub(crate) const HOST_PAGE: usize = 4096;
/// Words on a line of the processor's caches.
const LINE_WORDS: usize = 8;
/// Words on a host page.
pub(crate) const PAGE_WORDS: usize = HOST_PAGE / 8;

/// The host did not give memory.
#[derive(Debug)]
pub(crate) struct NoMemory;

/// The mapped memory file.
pub(crate) struct Arena {
    mapping: backing::Shared,
    free: Mutex<Free>,
    /// Read by who gives pages back, written by who makes some resident that it does not hold. Taken
    /// inside the locks of segments' holders, and nothing is waited for with it.
    giving: RwLock<()>,
    stamps: AtomicU64,
    faults: Faults,
}

/// Segments nobody holds: those from `fresh` up, and `returned`.
struct Free {
    fresh: u32,
    returned: Vec<u32>,
    /// The file is an earlier process's, and what is in it has no owner yet.
    unadopted: bool,
}

impl Arena {
    /// Makes an arena of `segments` segments. They cost address space only, until populated.
    pub(crate) fn new(segments: u32, faults: Faults) -> io::Result<Self> {
        let mapping = backing::Shared::new(segments as usize * SEGMENT_BYTES)?;
        let free = Mutex::new(Free { fresh: 0, returned: Vec::new(), unadopted: false });
        Ok(Self { mapping, free, giving: RwLock::default(), stamps: AtomicU64::new(0), faults })
    }

    /// Maps the memory file of an earlier arena. No segment can be taken before
    /// [`Arena::adopt_all`].
    pub(crate) fn reopen(file: File, faults: Faults) -> io::Result<Self> {
        let mapping = backing::Shared::reopen(file, SEGMENT_BYTES)?;
        let segments = u32::try_from(mapping.bytes() / SEGMENT_BYTES).unwrap_or(u32::MAX);
        let free = Mutex::new(Free { fresh: segments, returned: Vec::new(), unadopted: true });
        Ok(Self { mapping, free, giving: RwLock::default(), stamps: AtomicU64::new(0), faults })
    }

    /// The memory file, which keeps the pages alive beyond this process.
    pub(crate) fn file(&self) -> io::Result<File> {
        self.mapping.file()
    }

    /// Number of segments, taken or not.
    pub(crate) fn segments(&self) -> u32 {
        u32::try_from(self.mapping.bytes() / SEGMENT_BYTES).unwrap_or(u32::MAX)
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Free> {
        // A list of numbers is whole whenever the lock is free.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an empty segment.
    pub(crate) fn take(self: &Arc<Self>) -> Result<Segment, NoMemory> {
        let mut free = self.free();
        let number = match free.returned.pop() {
            Some(number) => number,
            None if free.fresh < self.segments() => {
                free.fresh += 1;
                free.fresh - 1
            }
            None => return Err(NoMemory),
        };
        Ok(self.segment(number, 0))
    }

    fn segment(self: &Arc<Self>, number: u32, populated: u32) -> Segment {
        Segment { arena: Arc::clone(self), number, populated, reach: populated, stamp: self.stamp() }
    }

    fn stamp(&self) -> u64 {
        self.stamps.fetch_add(1, Ordering::Relaxed)
    }

    fn giving(&self) -> RwLockReadGuard<'_, ()> {
        self.giving.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has everybody wait who would give pages back; `None` if somebody does so just now. To be taken
    /// while the holder of the segment in question is locked, who can be unlocked then.
    pub(crate) fn keep_pages(&self) -> Option<KeptPages<'_>> {
        match self.giving.try_write() {
            Ok(guard) => Some(KeptPages { arena: self, _guard: guard }),
            Err(TryLockError::Poisoned(guard)) => Some(KeptPages { arena: self, _guard: guard.into_inner() }),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Takes over all segments of a reopened arena in which an earlier process wrote. Only the
    /// first call finds any.
    pub(crate) fn adopt_all(self: &Arc<Self>) -> Vec<Segment> {
        let mut free = self.free();
        if !free.unadopted {
            return Vec::new();
        }
        free.unadopted = false;
        free.fresh = 0;
        let mut adopted = Vec::new();
        let mut from = 0;
        while let Some(data) = self.mapping.next_data(from) {
            let number = count(data / SEGMENT_BYTES);
            let unused = free.fresh..number;
            free.returned.extend(unused);
            free.fresh = number + 1;
            let start = number as usize * SEGMENT_BYTES;
            let bytes = self.mapping.resident_prefix(start, SEGMENT_BYTES);
            let populated = count(bytes / 8);
            adopted.push(self.segment(number, populated));
            from = start + SEGMENT_BYTES;
        }
        adopted
    }
}

/// As long as this lives no page of the arena is given back.
pub(crate) struct KeptPages<'a> {
    arena: &'a Arena,
    _guard: RwLockWriteGuard<'a, ()>,
}

impl KeptPages<'_> {
    /// Makes pages resident of a segment that others may use meanwhile.
    pub(crate) fn populate(&self, ahead: &Ahead) -> Result<(), NoMemory> {
        self.arena.faults.check()?;
        let start = ahead.number as usize * SEGMENT_BYTES;
        let (from, to) = (ahead.from as usize * 8, ahead.to as usize * 8);
        self.arena.mapping.populate(start + from, to - from)
    }
}

/// Words of a segment that are made resident while others use it.
pub(crate) struct Ahead {
    number: u32,
    /// Of the segment, to find out whether it gave them back meanwhile.
    stamp: u64,
    from: u32,
    to: u32,
}

/// Exclusive access to one segment.
pub(crate) struct Segment {
    arena: Arc<Arena>,
    number: u32,
    /// Words from the start that are resident; the others must not be touched, because the host
    /// could then only kill us if it has no memory.
    populated: u32,
    /// Words from the start that may be resident: somebody may be at it just now.
    reach: u32,
    /// Another one for each holder, and whenever pages are given back.
    stamp: u64,
}

impl Segment {
    fn start(&self) -> NonNull<u64> {
        let offset = self.number as usize * SEGMENT_BYTES;
        // SAFETY: `take` and `adopt` hand out numbers below `segments()` only, so the offset is
        // within the mapping, which lives as long as `self.arena`.
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

    /// Asks for the cache lines of some words, to be read soon. Whether the words exist does not matter.
    pub(crate) fn prefetch(&self, from: usize, words: usize) {
        // Segments begin on a line.
        for line in (from / LINE_WORDS * LINE_WORDS..from + words).step_by(LINE_WORDS) {
            prefetch(self.start().as_ptr().wrapping_add(line));
        }
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
        self.reach = self.reach.max(self.populated);
        Ok(())
    }

    /// The next words (up to `words`, a multiple of a page) to be made resident by somebody who does
    /// not hold the segment.
    pub(crate) fn plan_ahead(&mut self, words: usize) -> Ahead {
        let to = count(words.min(SEGMENT_WORDS)).max(self.populated);
        self.reach = self.reach.max(to);
        Ahead { number: self.number, stamp: self.stamp, from: self.populated, to }
    }

    /// Whether `ahead` is of this segment, which has given back nothing since.
    pub(crate) fn planned(&self, ahead: &Ahead) -> bool {
        self.stamp == ahead.stamp
    }

    /// Takes over what was made resident; returns how many words more there are now.
    pub(crate) fn adopt_ahead(&mut self, ahead: &Ahead) -> usize {
        let old = self.populated;
        if self.planned(ahead) {
            self.populated = old.max(ahead.to);
        }
        (self.populated - old) as usize
    }

    /// Gives back the pages behind the first `words` words; returns how many words that were. They
    /// read as zeroes when they are populated again.
    pub(crate) fn trim(&mut self, words: usize) -> usize {
        let (keep, old, reach) = (words.next_multiple_of(PAGE_WORDS), self.populated(), self.reach as usize);
        let start = self.number as usize * SEGMENT_BYTES;
        let giving = self.arena.giving();
        if keep >= reach || self.arena.mapping.punch(start + keep * 8, (reach - keep) * 8).is_err() {
            return 0;
        }
        drop(giving);
        self.populated = count(keep.min(old));
        self.reach = self.populated;
        self.stamp = self.arena.stamp();
        old - self.populated()
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.reach > 0 {
            let start = self.number as usize * SEGMENT_BYTES;
            let giving = self.arena.giving();
            let punched = self.arena.mapping.punch(start, SEGMENT_BYTES);
            drop(giving);
            if punched.is_err() {
                // The host keeps the memory, but nobody may see what was in it.
                self.words_mut().fill(0);
            }
        }
        self.arena.free().returned.push(self.number);
    }
}

/// Where the next record is likely to be written, for those who do not hold the lock (yet). A hint:
/// it may point to what was given back long ago.
///
/// Aligned to a pair of cache lines, which processors fetch together: it changes with each record.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Tail(AtomicPtr<u64>);

impl Tail {
    /// Notes that the next record will be written at that word of a segment.
    pub(crate) fn set(&self, segment: &Segment, word: usize) {
        self.0.store(segment.start().as_ptr().wrapping_add(word), Ordering::Relaxed);
    }

    /// Asks for the first `words` words there, to be written soon.
    pub(crate) fn prefetch(&self, words: usize) {
        let start = self.0.load(Ordering::Relaxed);
        for word in (0..words).step_by(LINE_WORDS) {
            prefetch_to_write(start.wrapping_add(word));
        }
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
fn prefetch(address: *const u64) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch reads nothing that the program could see, and never faults.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
}

/// Takes a line away from other processors' caches as well, which `prefetch` leaves to the first store.
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn prefetch_to_write(address: *const u64) {
    // By name, because the intrinsic only prefetches for reading unless all of the program requires
    // the instruction. Processors that lack it take it for a no-op.
    // SAFETY: a prefetch changes nothing that the program could see, and never faults.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
}

/// Other machines have to do without.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn prefetch(_: *const u64) {}

/// Other machines have to do without.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn prefetch_to_write(_: *const u64) {}

/// Pages in a [`PageRun`].
pub(crate) const RUN_PAGES: usize = 64;
/// 32-bit cells on a page of a run.
pub(crate) const PAGE_CELLS: usize = HOST_PAGE / 4;

/// A run of private pages for the index, each of which can be given back on its own.
pub(crate) struct PageRun {
    mapping: backing::Private,
    faults: Faults,
}

impl PageRun {
    pub(crate) fn new(faults: Faults) -> Result<Self, NoMemory> {
        faults.check()?;
        let mapping = backing::Private::new(RUN_PAGES * HOST_PAGE)?;
        Ok(Self { mapping, faults })
    }

    /// All cells of the run; those of pages that are not resident read as zero.
    pub(crate) fn cells(&self) -> &[u32] {
        // SAFETY: the mapping is exclusively ours, aligned to a page and zero-initialised by the
        // host; `&self` excludes writers.
        unsafe { slice::from_raw_parts(self.mapping.base().cast().as_ptr(), RUN_PAGES * PAGE_CELLS) }
    }

    /// All cells of the run. Write only to populated pages.
    pub(crate) fn cells_mut(&mut self) -> &mut [u32] {
        // SAFETY: as in `cells`; `&mut self` excludes all other access.
        unsafe { slice::from_raw_parts_mut(self.mapping.base().cast().as_ptr(), RUN_PAGES * PAGE_CELLS) }
    }

    /// Asks for the cache line of a cell, to be read soon. Whether the cell exists does not matter.
    pub(crate) fn prefetch(&self, cell: usize) {
        prefetch(self.mapping.base().cast::<u32>().as_ptr().wrapping_add(cell).cast());
    }

    /// Makes a page resident.
    pub(crate) fn populate(&mut self, page: usize) -> Result<(), NoMemory> {
        self.faults.check()?;
        self.mapping.populate(page * HOST_PAGE, HOST_PAGE)
    }

    /// Gives a page back; it reads as zeroes afterwards.
    pub(crate) fn discard(&mut self, page: usize) {
        self.mapping.discard(page * HOST_PAGE, HOST_PAGE);
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
    fn what_was_made_ready_by_another_is_taken_over() {
        let arena = arena(1);
        let mut segment = arena.take().expect("a segment is free");
        segment.populate(PAGE_WORDS).expect("there is memory");
        let ahead = segment.plan_ahead(PAGE_WORDS * 3);
        arena.keep_pages().expect("nobody gives pages back").populate(&ahead).expect("there is memory");
        assert_eq!(segment.populated(), PAGE_WORDS, "it grew by itself");
        segment.populate(PAGE_WORDS * 2).expect("there is memory");
        segment.words_mut().fill(7);
        assert_eq!(segment.adopt_ahead(&ahead), PAGE_WORDS);
        assert_eq!(segment.words()[PAGE_WORDS * 2 - 1..=PAGE_WORDS * 2], [7, 0]);
        assert_eq!(segment.adopt_ahead(&ahead), 0, "the same pages count twice");
    }

    #[test]
    fn what_was_given_back_meanwhile_is_not_taken_over() {
        let arena = arena(1);
        let mut segment = arena.take().expect("a segment is free");
        segment.populate(PAGE_WORDS).expect("there is memory");
        let ahead = segment.plan_ahead(PAGE_WORDS * 3);
        arena.keep_pages().expect("nobody gives pages back").populate(&ahead).expect("there is memory");
        assert_eq!(segment.trim(PAGE_WORDS), 0, "no page of its own was given back");
        assert_eq!(arena.mapping.resident_prefix(0, SEGMENT_BYTES), PAGE_WORDS * 8, "pages are left behind");
        assert_eq!(segment.adopt_ahead(&ahead), 0);

        let ahead = segment.plan_ahead(PAGE_WORDS * 3);
        arena.keep_pages().expect("nobody gives pages back").populate(&ahead).expect("there is memory");
        drop(segment);
        assert_eq!(arena.mapping.next_data(0), None, "pages of nobody are resident");
        let mut next = arena.take().expect("a segment is free");
        assert_eq!(next.adopt_ahead(&ahead), 0, "the next holder takes over what is not there");
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

    #[test]
    fn a_page_that_was_given_back_is_empty() {
        let mut run = PageRun::new(Faults::default()).expect("there is memory");
        run.populate(1).expect("there is memory");
        run.cells_mut()[PAGE_CELLS..2 * PAGE_CELLS].fill(5);
        run.discard(1);
        assert!(run.cells().iter().all(|cell| *cell == 0));
    }
}
