// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory asked for ahead of its use. Everything here is a hint and changes nothing but time.

use std::sync::atomic::{AtomicPtr, Ordering};

use super::memory::Segment;

/// Words on a line of the processor's caches.
pub(super) const LINE_WORDS: usize = 8;

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
        self.0.store(segment.address().wrapping_add(word), Ordering::Relaxed);
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
pub(super) fn prefetch(address: *const u64) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch reads nothing that the program could see, and never faults.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
}

/// Takes a line away from other processors' caches as well, which `prefetch` leaves to the first
/// store.
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
pub(super) fn prefetch(_: *const u64) {}

/// Other machines have to do without.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn prefetch_to_write(_: *const u64) {}
