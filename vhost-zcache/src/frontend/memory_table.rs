// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's memory as the VMM maps it for us.

use std::fs::File;
use std::io;

use thiserror::Error;
use vhost::vhost_user::message::{VhostUserMemoryRegion, VhostUserSingleMemoryRegion};
use vm_memory::{
    GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryBackend, GuestMemoryRegion,
    GuestRegionCollectionError,
};

use super::budget::MemoryBudget;
use crate::device::guest_memory::Memory;
use crate::device::guest_region::{GuestRegion, RegionError};

/// Why a change of the memory table was refused.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// A region cannot be mapped.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// Regions overlap, or the one to remove is not there.
    #[error("the memory regions do not fit together: {0}")]
    Layout(#[from] GuestRegionCollectionError),
    /// A file for each region is needed.
    #[error("{regions} memory regions came with {files} files")]
    Files {
        /// Regions in the message.
        regions: usize,
        /// Files that came with it.
        files: usize,
    },
    /// More regions than the device told the VMM it may have.
    #[error("{regions} memory regions are more than the {limit} that a guest may have here")]
    TooMany {
        /// Regions there would be.
        regions: usize,
        /// Limit of them.
        limit: u64,
    },
    /// More address space than is left for one guest.
    #[error("{bytes:#x} bytes of memory are more than the {limit:#x} that a guest may have here")]
    TooLarge {
        /// Bytes there would be.
        bytes: u64,
        /// Limit of them.
        limit: u64,
    },
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

impl From<&VhostUserMemoryRegion> for Mapping {
    fn from(region: &VhostUserMemoryRegion) -> Self {
        Self { vmm_address: region.user_addr, guest_address: region.guest_phys_addr, size: region.memory_size }
    }
}

/// All regions of one guest.
#[derive(Debug)]
pub struct MemoryTable {
    memory: GuestMemoryAtomic<Memory>,
    mappings: Vec<Mapping>,
    budget: MemoryBudget,
}

impl MemoryTable {
    /// The table of a guest without memory, which changes `memory`.
    #[must_use]
    pub fn new(memory: GuestMemoryAtomic<Memory>, budget: MemoryBudget) -> Self {
        Self { memory, mappings: Vec::new(), budget }
    }

    /// A handle on the memory that follows its changes.
    #[must_use]
    pub fn memory(&self) -> GuestMemoryAtomic<Memory> {
        self.memory.clone()
    }

    /// Most regions there may be.
    #[must_use]
    pub fn max_regions(&self) -> u64 {
        self.budget.regions
    }

    /// Whether there is no region at all, as when the VMM shares no memory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mappings.is_empty()
    }

    /// Replaces all regions.
    ///
    /// # Errors
    ///
    /// [`MemoryError`]; the old regions then stay.
    pub fn replace(&mut self, regions: &[VhostUserMemoryRegion], files: &[File]) -> Result<(), MemoryError> {
        if regions.len() != files.len() {
            return Err(MemoryError::Files { regions: regions.len(), files: files.len() });
        }
        self.check(regions.len(), regions.iter().map(|region| region.memory_size))?;
        let mut mapped = Vec::with_capacity(regions.len());
        for (region, file) in regions.iter().zip(files) {
            mapped.push(map(region, file)?);
        }
        mapped.sort_by_key(GuestMemoryRegion::start_addr);
        let memory = if mapped.is_empty() { Memory::new() } else { Memory::from_regions(mapped)? };
        self.publish(memory);
        self.mappings = regions.iter().map(Mapping::from).collect();
        Ok(())
    }

    /// Adds a region.
    ///
    /// # Errors
    ///
    /// [`MemoryError`]; the regions then stay as they were.
    pub fn add(&mut self, region: &VhostUserSingleMemoryRegion, file: &File) -> Result<(), MemoryError> {
        let sizes = self.mappings.iter().map(|mapping| mapping.size).chain([region.memory_size]);
        self.check(self.mappings.len() + 1, sizes)?;
        let memory = self.memory.memory().insert_region(map(region, file)?.into())?;
        self.publish(memory);
        self.mappings.push((&**region).into());
        Ok(())
    }

    /// Removes a region.
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

    /// Checks the number and the sizes of the regions there would be.
    fn check(&self, regions: usize, sizes: impl Iterator<Item = u64>) -> Result<(), MemoryError> {
        let limit = self.budget.regions;
        if regions as u64 > limit {
            return Err(MemoryError::TooMany { regions, limit });
        }
        let bytes = sizes.fold(0, u64::saturating_add);
        let limit = self.budget.bytes;
        if bytes > limit {
            return Err(MemoryError::TooLarge { bytes, limit });
        }
        Ok(())
    }

    fn publish(&self, memory: Memory) {
        match self.memory.lock() {
            Ok(guard) => guard.replace(memory),
            Err(poisoned) => poisoned.into_inner().replace(memory),
        }
    }
}

fn map(region: &VhostUserMemoryRegion, file: &File) -> Result<GuestRegion, RegionError> {
    GuestRegion::map(file, region.mmap_offset, GuestAddress(region.guest_phys_addr), region.memory_size)
}

/// Regions of a guest whose memory has gone away.
#[must_use]
pub fn lost_regions(memory: &GuestMemoryAtomic<Memory>) -> usize {
    memory.memory().iter().filter(|region| region.is_lost()).count()
}
