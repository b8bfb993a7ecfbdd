// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The one place where guest memory is read and written.
//!
//! A guest may change its memory at any moment, so nothing here hands out references into it:
//! bytes are copied, once, into memory the guest cannot reach.

use std::sync::atomic::Ordering;

use thiserror::Error;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, GuestRegionCollection, MemoryRegionAddress,
    VolatileSlice,
};

use super::dirty_log::LogSlice;
use super::guest_region::GuestRegion;
use super::memory_fault;

/// All memory of one guest.
pub type Memory = GuestRegionCollection<GuestRegion>;

/// Why guest memory is not accessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MemoryError {
    /// The guest named an address it does not have.
    #[error("{length} bytes at guest address {address:#x} are not in the guest's memory")]
    Unmapped {
        /// First guest-physical address.
        address: u64,
        /// Length in bytes.
        length: u64,
    },
    /// The VMM's file was cut off under the mapping, has no pages left, or its memory failed.
    #[error("memory of the guest has gone away, although the VMM shares it")]
    Lost,
}

/// Makes sure that what was read before were the guest's own bytes, and that what was written
/// before has reached it.
///
/// # Errors
///
/// [`MemoryError::Lost`] when any of the guest's memory has gone away.
pub fn check_intact(memory: &Memory) -> Result<(), MemoryError> {
    if memory_fault::any_lost() && memory.iter().any(GuestRegion::is_lost) {
        return Err(MemoryError::Lost);
    }
    Ok(())
}

/// Guest-physical range that a descriptor names. Its length is not zero and it was inside the
/// guest's memory when [`Buffer::new`] looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    address: u64,
    length: u32,
}

impl Buffer {
    /// A buffer, or `None` for an empty one.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] when a byte of it is outside the guest's memory.
    pub fn new(memory: &Memory, address: u64, length: u32) -> Result<Option<Self>, MemoryError> {
        if length == 0 {
            return Ok(None);
        }
        let unmapped = MemoryError::Unmapped { address, length: length.into() };
        let size = usize::try_from(length).map_err(|_| unmapped)?;
        if GuestMemoryBackend::check_range(memory, GuestAddress(address), size) {
            Ok(Some(Self { address, length }))
        } else {
            Err(unmapped)
        }
    }

    /// Length in bytes.
    #[must_use]
    pub fn length(self) -> u32 {
        self.length
    }
}

/// Copies `bytes.len()` bytes from a guest-physical address.
///
/// # Errors
///
/// [`MemoryError`] when one of them is outside the guest's memory.
pub fn read(memory: &Memory, address: u64, bytes: &mut [u8]) -> Result<(), MemoryError> {
    copy_from(memory, GuestAddress(address), bytes)?;
    check_intact(memory)
}

/// Bytes that are in one region, as nearly all are: the way over several takes as long as the copy
/// of a request.
fn in_one_region(memory: &Memory, address: GuestAddress, length: usize) -> Option<VolatileSlice<'_, LogSlice<'_>>> {
    let region = memory.find_region(address)?;
    region.get_slice(MemoryRegionAddress(address.0 - region.start_addr().0), length).ok()
}

fn copy_from(memory: &Memory, address: GuestAddress, bytes: &mut [u8]) -> Result<(), MemoryError> {
    if let Some(slice) = in_one_region(memory, address, bytes.len()) {
        slice.copy_to(bytes);
        return Ok(());
    }
    let length = bytes.len() as u64;
    memory.read_slice(bytes, address).map_err(|_| MemoryError::Unmapped { address: address.0, length })
}

fn copy_to(memory: &Memory, address: GuestAddress, bytes: &[u8]) -> Result<(), MemoryError> {
    if let Some(slice) = in_one_region(memory, address, bytes.len()) {
        slice.copy_from(bytes);
        return Ok(());
    }
    let length = bytes.len() as u64;
    memory.write_slice(bytes, address).map_err(|_| MemoryError::Unmapped { address: address.0, length })
}

/// Loads one little-endian 16-bit word in one access.
///
/// # Errors
///
/// [`MemoryError`] when it is misaligned or outside the guest's memory.
pub fn load_u16(memory: &Memory, address: u64) -> Result<u16, MemoryError> {
    memory
        .load::<u16>(GuestAddress(address), Ordering::Relaxed)
        .map(u16::from_le)
        .map_err(|_| MemoryError::Unmapped { address, length: 2 })
}

/// Position in a list of buffers that together form one stream of bytes.
#[derive(Debug, Clone)]
struct Cursor<'a> {
    rest: &'a [Buffer],
    /// Bytes of the first of `rest` already passed, always less than its length.
    passed: u32,
}

impl<'a> Cursor<'a> {
    fn new(buffers: &'a [Buffer]) -> Self {
        Self { rest: buffers, passed: 0 }
    }

    /// Passes up to `wanted` bytes that are contiguous; their address and number. `None` at the
    /// end of the stream.
    fn advance(&mut self, wanted: usize) -> Option<(GuestAddress, usize)> {
        let first = self.rest.first()?;
        // Buffers were checked to be in memory, so the sum stays below 2^64.
        let address = GuestAddress(first.address.saturating_add(self.passed.into()));
        let left = first.length - self.passed;
        match u32::try_from(wanted) {
            Ok(wanted) if wanted < left => {
                self.passed += wanted;
            }
            _ => {
                self.rest = &self.rest[1..];
                self.passed = 0;
            }
        }
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        Some((address, wanted.min(left)))
    }
}

/// Reads a chain's device-readable buffers as one stream, each byte once.
#[derive(Debug)]
pub struct Reader<'a> {
    memory: &'a Memory,
    cursor: Cursor<'a>,
}

impl<'a> Reader<'a> {
    /// A reader at the first byte.
    #[must_use]
    pub fn new(memory: &'a Memory, buffers: &'a [Buffer]) -> Self {
        let cursor = Cursor::new(buffers);
        Self { memory, cursor }
    }

    /// Copies the next `bytes.len()` bytes of the stream.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] when the stream ends before, or the guest's memory has gone.
    pub fn read(&mut self, mut bytes: &mut [u8]) -> Result<(), MemoryError> {
        while !bytes.is_empty() {
            let (address, length) = self
                .cursor
                .advance(bytes.len())
                .ok_or(MemoryError::Unmapped { address: 0, length: bytes.len() as u64 })?;
            let (now, later) = bytes.split_at_mut(length);
            copy_from(self.memory, address, now)?;
            bytes = later;
        }
        check_intact(self.memory)
    }
}

/// Writes a chain's device-writable buffers as one stream.
#[derive(Debug)]
pub struct Writer<'a> {
    memory: &'a Memory,
    cursor: Cursor<'a>,
}

impl<'a> Writer<'a> {
    /// A writer at the first byte.
    #[must_use]
    pub fn new(memory: &'a Memory, buffers: &'a [Buffer]) -> Self {
        let cursor = Cursor::new(buffers);
        Self { memory, cursor }
    }

    /// Writes the next bytes of the stream.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] when the stream ends before, or the guest's memory has gone.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), MemoryError> {
        while !bytes.is_empty() {
            let (address, length) = self
                .cursor
                .advance(bytes.len())
                .ok_or(MemoryError::Unmapped { address: 0, length: bytes.len() as u64 })?;
            let (now, later) = bytes.split_at(length);
            copy_to(self.memory, address, now)?;
            bytes = later;
        }
        check_intact(self.memory)
    }

    /// Leaves the next `length` bytes of the stream as they are.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] when the stream ends before.
    pub fn skip(&mut self, mut length: usize) -> Result<(), MemoryError> {
        while length > 0 {
            let (_, passed) =
                self.cursor.advance(length).ok_or(MemoryError::Unmapped { address: 0, length: length as u64 })?;
            length -= passed;
        }
        Ok(())
    }
}

/// Memory of these addresses and lengths, for tests.
#[cfg(test)]
pub(crate) fn test_memory(regions: &[(u64, u64)]) -> Memory {
    let map = |&(start, length): &(u64, u64)| {
        let file = tempfile::tempfile().unwrap();
        file.set_len(length).unwrap();
        GuestRegion::map(&file, 0, GuestAddress(start), length).unwrap()
    };
    Memory::from_regions(regions.iter().map(map).collect()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        test_memory(&[(0x1000, 0x1000), (0x4000, 0x1000)])
    }

    fn buffer(memory: &Memory, address: u64, length: u32) -> Buffer {
        Buffer::new(memory, address, length).unwrap().unwrap()
    }

    #[test]
    fn buffers_outside_memory_are_refused() {
        let memory = memory();
        assert_eq!(Buffer::new(&memory, 0x1ff0, 0x10).map(|b| b.is_some()), Ok(true));
        for (address, length) in [(0x1ff0, 0x11), (0, 1), (u64::MAX, 1), (u64::MAX, 2), (0x3fff, 2)] {
            assert!(Buffer::new(&memory, address, length).is_err(), "{length} bytes at {address:#x} were accepted");
        }
        assert_eq!(Buffer::new(&memory, 0, 0), Ok(None), "an empty buffer needs no memory");
    }

    #[test]
    fn streams_ignore_the_division_into_buffers() {
        let memory = memory();
        let pieces = [buffer(&memory, 0x1000, 1), buffer(&memory, 0x1ffd, 3), buffer(&memory, 0x4000, 4)];
        let mut writer = Writer::new(&memory, &pieces);
        writer.write(&[1, 2]).unwrap();
        writer.skip(1).unwrap();
        writer.write(&[4, 5, 6, 7, 8]).unwrap();
        assert!(writer.write(&[9]).is_err(), "wrote past the end of the stream");

        let mut reader = Reader::new(&memory, &pieces);
        let mut bytes = [0; 8];
        reader.read(&mut bytes[..5]).unwrap();
        reader.read(&mut bytes[5..]).unwrap();
        assert_eq!(bytes, [1, 2, 0, 4, 5, 6, 7, 8]);
        assert!(reader.read(&mut [0]).is_err(), "read past the end of the stream");
    }
}
