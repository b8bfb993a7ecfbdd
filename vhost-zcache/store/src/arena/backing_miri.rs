// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The memory under [`super::memory`] where there are no system calls: Miri checks the references
//! made from it, not the kernel.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use super::host::{HOST_PAGE, NoMemory};

/// Most bytes of an arena: Miri allocates what a mapping only reserves.
const MOST: usize = 8 << 20;

struct Memory {
    base: NonNull<c_void>,
    layout: Layout,
}

// SAFETY: as for the mapping that this stands for: the tokens of `memory` govern access.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(bytes: usize) -> Result<Self, NoMemory> {
        let layout = Layout::from_size_align(bytes, HOST_PAGE).map_err(|_| NoMemory)?;
        // SAFETY: the callers ask for more than no bytes.
        let base = unsafe { alloc_zeroed(layout) };
        Ok(Self { base: NonNull::new(base.cast()).ok_or(NoMemory)?, layout })
    }

    fn clear(&self, start: usize, bytes: usize) {
        // SAFETY: the range is inside the allocation.
        let target = unsafe { self.base.byte_add(start) };
        // SAFETY: as the system call this stands for, it is called by the token that has the
        // range to itself.
        unsafe { target.cast::<u8>().write_bytes(0, bytes) };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and no token is left.
        unsafe { dealloc(self.base.as_ptr().cast(), self.layout) };
    }
}

pub(super) struct Shared(Memory);

impl Shared {
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
        Memory::new(bytes.min(MOST)).map(Self).map_err(|_| io::ErrorKind::OutOfMemory.into())
    }

    pub(super) fn reopen(_: File, _: usize) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn settle(&self) {}

    pub(super) fn keep_small(&self, _: Range<usize>) {}

    pub(super) fn base(&self) -> NonNull<c_void> {
        self.0.base
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.layout.size()
    }

    pub(super) fn file(&self) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn read(&self, _: usize, _: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn populate(&self, _: usize, _: usize) -> Result<(), NoMemory> {
        Ok(())
    }

    pub(super) fn populate_block(&self, _: usize) -> Result<(), NoMemory> {
        Ok(())
    }

    pub(super) fn punch(&self, start: usize, bytes: usize) -> io::Result<()> {
        self.0.clear(start, bytes);
        Ok(())
    }

    pub(super) fn next_data(&self, _: usize) -> Option<usize> {
        None
    }

    pub(super) fn ends_in_data(&self, _: usize, _: usize) -> bool {
        false
    }

    pub(super) fn resident_prefix(&self, _: usize, _: usize) -> usize {
        0
    }
}

pub(super) struct Private(Memory);

impl Private {
    pub(super) fn new(bytes: usize) -> Result<Self, NoMemory> {
        Memory::new(bytes).map(Self)
    }

    pub(super) fn new_huge(bytes: usize) -> Result<Self, NoMemory> {
        Self::new(bytes)
    }

    pub(super) fn base(&self) -> NonNull<c_void> {
        self.0.base
    }

    pub(super) fn populate(&self, _: usize, _: usize) -> Result<(), NoMemory> {
        Ok(())
    }

    pub(super) fn discard(&mut self, start: usize, bytes: usize) {
        self.0.clear(start, bytes);
    }
}
