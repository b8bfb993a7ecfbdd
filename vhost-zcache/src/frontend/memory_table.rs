// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's memory as the VMM maps it for us.

use std::fs::File;
use std::io;

use log::warn;
use rustix::fs::{SealFlags, fcntl_get_seals};
use thiserror::Error;
use vhost::vhost_user::message::{VhostUserMemoryRegion, VhostUserSingleMemoryRegion};
use vm_memory::{GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestRegionCollectionError, GuestRegionMmap};

use crate::device::guest_memory::Memory;

/// Most regions a VMM may add one by one. The limit KVM had for long, which VMMs count on.
pub const MAX_MEM_SLOTS: u64 = 509;

/// Why a memory region was not accepted.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// The VMM's file cannot be mapped.
    #[error("a memory region cannot be mapped: {0}")]
    Map(vhost::vhost_user::Error),
    /// The region ends beyond the 64-bit address space.
    #[error("a memory region ends beyond the guest's address space")]
    Address,
    /// Regions overlap, or the one to remove is not there.
    #[error("the memory regions do not fit together: {0}")]
    Layout(#[from] GuestRegionCollectionError),
    /// A file for each region is needed.
    #[error("a memory region came without its file")]
    NoFile,
}

impl From<MemoryError> for vhost::vhost_user::Error {
    fn from(error: MemoryError) -> Self {
        Self::ReqHandlerError(io::Error::other(error))
    }
}

/// Where a region is in the VMM's own address space, in which it names the rings.
#[derive(Debug, Clone, Copy)]
struct Mapping {
    vmm_address: u64,
    guest_address: u64,
    size: u64,
}

/// All regions of one guest.
#[derive(Debug)]
pub struct MemoryTable {
    memory: GuestMemoryAtomic<Memory>,
    mappings: Vec<Mapping>,
    warned: bool,
}

impl MemoryTable {
    /// A guest without memory.
    #[must_use]
    pub fn empty() -> Self {
        Self { memory: GuestMemoryAtomic::new(Memory::new()), mappings: Vec::new(), warned: false }
    }

    /// A handle on the memory that follows its changes.
    #[must_use]
    pub fn memory(&self) -> GuestMemoryAtomic<Memory> {
        self.memory.clone()
    }

    /// Replaces all regions.
    ///
    /// # Errors
    ///
    /// [`MemoryError`]; the old regions then stay.
    pub fn replace(&mut self, regions: &[VhostUserMemoryRegion], files: Vec<File>) -> Result<(), MemoryError> {
        if regions.len() != files.len() {
            return Err(MemoryError::NoFile);
        }
        let mut mapped = Vec::with_capacity(regions.len());
        for (region, file) in regions.iter().zip(files) {
            self.check_seals(&file);
            let mmap = region.mmap_region(file).map_err(MemoryError::Map)?;
            let base = GuestAddress(region.guest_phys_addr);
            mapped.push(GuestRegionMmap::new(mmap, base).ok_or(MemoryError::Address)?);
        }
        let memory = Memory::from_regions(mapped)?;
        self.publish(memory);
        self.mappings = regions
            .iter()
            .map(|region| Mapping {
                vmm_address: region.user_addr,
                guest_address: region.guest_phys_addr,
                size: region.memory_size,
            })
            .collect();
        Ok(())
    }

    /// Adds a region.
    ///
    /// # Errors
    ///
    /// [`MemoryError`]; the regions then stay as they were.
    pub fn add(&mut self, region: &VhostUserSingleMemoryRegion, file: File) -> Result<(), MemoryError> {
        self.check_seals(&file);
        let mmap = region.mmap_region(file).map_err(MemoryError::Map)?;
        let base = GuestAddress(region.guest_phys_addr);
        let mapped = GuestRegionMmap::new(mmap, base).ok_or(MemoryError::Address)?;
        let memory = self.memory.memory().insert_region(mapped.into())?;
        self.publish(memory);
        self.mappings.push(Mapping {
            vmm_address: region.user_addr,
            guest_address: region.guest_phys_addr,
            size: region.memory_size,
        });
        Ok(())
    }

    /// Removes a region. A chain in progress may still use it until it is completed.
    ///
    /// # Errors
    ///
    /// [`MemoryError::Layout`] when there is no such region.
    pub fn remove(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<(), MemoryError> {
        let base = GuestAddress(region.guest_phys_addr);
        let (memory, _) = self.memory.memory().remove_region(base, region.memory_size)?;
        self.publish(memory);
        self.mappings.retain(|mapping| mapping.guest_address != region.guest_phys_addr);
        Ok(())
    }

    /// The guest-physical address of an address in the VMM.
    #[must_use]
    pub fn guest_address(&self, vmm_address: u64) -> Option<u64> {
        self.mappings.iter().find_map(|mapping| {
            let offset = vmm_address.checked_sub(mapping.vmm_address)?;
            (offset < mapping.size).then(|| mapping.guest_address.checked_add(offset))?
        })
    }

    fn publish(&self, memory: Memory) {
        match self.memory.lock() {
            Ok(guard) => guard.replace(memory),
            Err(poisoned) => poisoned.into_inner().replace(memory),
        }
    }

    /// Says once when the VMM could shrink the file under us, which would end the daemon by
    /// SIGBUS at the next access.
    fn check_seals(&mut self, file: &File) {
        let sealed = fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
        if !sealed && !self.warned {
            self.warned = true;
            warn!(
                "The VMM's memory file is not sealed against shrinking; a VMM that truncates it \
                 ends this daemon"
            );
        }
    }
}
