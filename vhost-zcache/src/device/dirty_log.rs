// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The VMM's log of pages of guest memory that were written, which it copies once more while it
//! moves its guest.
//!
//! A page is marked after it was written, by whatever writes it: the mark is made where memory is
//! accessed. So a VMM that takes a mark away before it copies the page has what was written. A
//! worker that dies in between leaves a write without a mark; but then the chain is carried out
//! again, and all of a ring that starts is marked.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use vm_memory::bitmap::{Bitmap, BitmapSlice, WithBitmapSlice};
use vm_memory::{GuestMemoryRegion, MemoryRegionAddress, VolatileMemory};

use super::guest_region::GuestRegion;

/// Bytes of memory that a bit stands for: `VHOST_LOG_PAGE`.
const PAGE: u64 = 0x1000;

/// Whether writes are logged, and where; one for all regions of a guest.
#[derive(Clone, Default)]
pub struct DirtyLog(Arc<Shared>);

#[derive(Default)]
struct Shared {
    is_on: AtomicBool,
    /// The bits, mapped as guest memory is: it may go away as well.
    bits: RwLock<Option<GuestRegion>>,
}

impl DirtyLog {
    /// Takes another log. When this returns nobody marks anything in the one before.
    pub fn replace(&self, bits: GuestRegion) {
        *self.0.bits.write().unwrap_or_else(PoisonError::into_inner) = Some(bits);
    }

    /// Lets writes be logged, or not.
    pub fn switch(&self, on: bool) {
        self.0.is_on.store(on, Ordering::Release);
    }

    /// Marks guest-physical memory.
    pub fn mark(&self, address: u64, length: u64) {
        if length == 0 || !self.0.is_on.load(Ordering::Acquire) {
            return;
        }
        let bits = self.0.bits.read().unwrap_or_else(PoisonError::into_inner);
        let Some(bits) = bits.as_ref() else { return };
        for page in address / PAGE..=address.saturating_add(length - 1) / PAGE {
            // What the VMM's log is too small for it does not want to know.
            let Ok(byte) = bits.get_slice(MemoryRegionAddress(page / 8), 1) else { return };
            if let Ok(byte) = byte.get_atomic_ref::<AtomicU8>(0) {
                byte.fetch_or(1 << (page % 8), Ordering::Release);
            }
        }
    }
}

impl fmt::Debug for DirtyLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "on: {}", self.0.is_on.load(Ordering::Relaxed))
    }
}

/// The log as a region of memory has it.
#[derive(Debug)]
pub struct RegionLog {
    log: DirtyLog,
    start: u64,
}

impl RegionLog {
    /// The log of a region at that guest-physical address.
    #[must_use]
    pub fn new(log: DirtyLog, start: u64) -> Self {
        Self { log, start }
    }

    /// From an offset in the region on.
    #[must_use]
    pub fn at(&self, offset: u64) -> LogSlice<'_> {
        LogSlice { log: &self.log, start: self.start.saturating_add(offset) }
    }
}

/// The log from some address on.
#[derive(Clone, Copy, Debug)]
pub struct LogSlice<'a> {
    log: &'a DirtyLog,
    start: u64,
}

impl<'a> WithBitmapSlice<'a> for RegionLog {
    type S = LogSlice<'a>;
}

impl Bitmap for RegionLog {
    fn mark_dirty(&self, offset: usize, length: usize) {
        self.at(0).mark_dirty(offset, length);
    }

    fn dirty_at(&self, _offset: usize) -> bool {
        false
    }

    fn slice_at(&self, offset: usize) -> LogSlice<'_> {
        self.at(offset as u64)
    }
}

impl WithBitmapSlice<'_> for LogSlice<'_> {
    type S = Self;
}

impl BitmapSlice for LogSlice<'_> {}

impl Bitmap for LogSlice<'_> {
    fn mark_dirty(&self, offset: usize, length: usize) {
        self.log.mark(self.start.saturating_add(offset as u64), length as u64);
    }

    fn dirty_at(&self, _offset: usize) -> bool {
        false
    }

    fn slice_at(&self, offset: usize) -> Self {
        Self { start: self.start.saturating_add(offset as u64), ..*self }
    }
}
