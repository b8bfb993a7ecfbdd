// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that the driver of a benchmark shares with the device.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Result;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap};

/// Memory that lives as long as this process.
#[derive(Debug)]
pub(super) struct Shared {
    file: File,
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory is accessed by volatile copies and atomics only, by whoever.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Memory of so many bytes, all of it there.
    pub(super) fn new(length: usize) -> Result<Self> {
        let file = File::from(memfd_create("bench", MemfdFlags::CLOEXEC)?);
        ftruncate(&file, length as u64)?;
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a new mapping, which is never unmapped.
        let start = unsafe { mmap(ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, flags, &file, 0)? };
        let start = NonNull::new(start.cast()).ok_or_else(|| anyhow::anyhow!("nothing was mapped"))?;
        Ok(Self { file, start, length })
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Where it is in this process.
    pub(super) fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    fn at(&self, offset: usize, length: usize) -> *mut u8 {
        assert!(offset + length <= self.length, "{length} bytes at {offset} are outside of the memory");
        // SAFETY: inside the mapping.
        unsafe { self.start.as_ptr().add(offset) }
    }

    fn word(&self, offset: usize) -> &AtomicU16 {
        let word = self.at(offset, 2);
        assert!(word.addr().is_multiple_of(2));
        // SAFETY: aligned, inside the mapping, which is never unmapped.
        unsafe { AtomicU16::from_ptr(word.cast()) }
    }

    pub(super) fn load(&self, offset: usize) -> u16 {
        self.word(offset).load(Ordering::Acquire)
    }

    pub(super) fn store(&self, offset: usize, value: u16) {
        self.word(offset).store(value, Ordering::Release);
    }

    pub(super) fn write(&self, offset: usize, bytes: &[u8]) {
        let to = self.at(offset, bytes.len());
        // SAFETY: inside the mapping, and nobody has a reference to it.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    }

    pub(super) fn read(&self, offset: usize, bytes: &mut [u8]) {
        let from = self.at(offset, bytes.len());
        // SAFETY: as above.
        unsafe { ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) }
    }

    /// Copies within the memory, as a device does that only gives back what it gets.
    pub(super) fn copy(&self, from: usize, to: usize, length: usize) {
        let (from, to) = (self.at(from, length), self.at(to, length));
        // SAFETY: inside the mapping; ranges may overlap.
        unsafe { ptr::copy(from, to, length) }
    }
}
