// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guest memory: a sealed memfd, mapped at a guest-physical address other than its own.

use std::fs::File;
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use vhost::VhostUserMemoryRegionInfo;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// Guest-physical address of the first byte. Nothing is below it.
pub const RAM_BASE: u64 = 0x4000_0000;

/// Memory of one guest, with two simple allocators: for ever from the end, and for the chains
/// that are outstanding from the start.
pub struct Ram {
    memory: GuestMemoryMmap<()>,
    size: u64,
    borrowed: u64,
    kept: u64,
}

impl Ram {
    /// Memory of so many bytes, all zero, that cannot be shrunk.
    pub fn new(size: usize) -> Self {
        Self::with_seals(size, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
    }

    /// Memory that [`Ram::cut_off`] can be used on.
    pub fn unsealed(size: usize) -> Self {
        Self::with_seals(size, SealFlags::empty())
    }

    fn with_seals(size: usize, seals: SealFlags) -> Self {
        let memfd = memfd_create("guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("memfd");
        ftruncate(&memfd, size as u64).expect("ftruncate");
        fcntl_add_seals(&memfd, seals).expect("seal");
        let file = FileOffset::new(File::from(memfd), 0);
        let memory = GuestMemoryMmap::from_ranges_with_files([(GuestAddress(RAM_BASE), size, Some(file))])
            .expect("guest memory");
        Self { memory, size: size as u64, borrowed: 0, kept: size as u64 }
    }

    /// Takes the memory away from all who map it. Nothing of it may be touched afterwards.
    pub fn cut_off(&self) {
        let region = self.memory.iter().next().expect("one region");
        ftruncate(region.file_offset().expect("a file").file(), 0).expect("ftruncate");
    }

    /// The memory as the VMM announces it.
    pub fn region(&self) -> VhostUserMemoryRegionInfo {
        let region = self.memory.iter().next().expect("one region");
        VhostUserMemoryRegionInfo::from_guest_region(region).expect("a region with a file")
    }

    /// First guest-physical address after the memory.
    pub fn end(&self) -> u64 {
        RAM_BASE + self.size
    }

    /// Takes page-aligned memory for ever.
    pub fn keep(&mut self, length: usize) -> u64 {
        self.kept = self.kept.checked_sub(length as u64).expect("guest memory") & !0xfff;
        assert!(self.kept >= self.borrowed, "guest memory is full");
        RAM_BASE + self.kept
    }

    /// Takes memory until [`Ram::give_back`].
    pub fn borrow(&mut self, length: usize) -> u64 {
        let address = self.borrowed;
        self.borrowed = (self.borrowed + length as u64).next_multiple_of(16);
        assert!(self.borrowed <= self.kept, "guest memory is full");
        RAM_BASE + address
    }

    /// All borrowed memory is free again.
    pub fn give_back(&mut self) {
        self.borrowed = 0;
    }

    /// Address in this process of a guest-physical address.
    pub fn vmm_address(&self, address: u64) -> u64 {
        self.memory.get_host_address(GuestAddress(address)).expect("an address in memory") as u64
    }

    /// Writes bytes.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).expect("an address in memory");
    }

    /// Reads bytes.
    pub fn read(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).expect("an address in memory");
        bytes
    }

    /// Stores a 16-bit word at once; what was written before is seen before it.
    pub fn store_u16(&self, address: u64, value: u16) {
        self.memory.store(value.to_le(), GuestAddress(address), Ordering::Release).expect("an address in memory");
    }

    /// Loads a 16-bit word at once; what is read later is read after it.
    pub fn load_u16(&self, address: u64) -> u16 {
        const { assert!(size_of::<AtomicU16>() == 2) };
        u16::from_le(self.memory.load(GuestAddress(address), Ordering::Acquire).expect("an address in memory"))
    }
}
