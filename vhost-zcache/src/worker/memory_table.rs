// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's memory, mapped. How much of it a guest may share, the keeper has looked at.

use std::fs::File;

use thiserror::Error;
use vm_memory::{
    GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryBackend, GuestMemoryRegion,
    GuestRegionCollectionError,
};

use crate::device::guest_memory::Memory;
use crate::device::guest_region::{GuestRegion, RegionError};
use crate::link::message::Region;

/// Why a change of the memory table was refused; the table is then as it was.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// A region cannot be mapped.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// Regions overlap, or the one to remove is not there.
    #[error("the memory regions do not fit together: {0}")]
    Layout(#[from] GuestRegionCollectionError),
}

/// Maps regions in place of all that there are.
///
/// # Errors
///
/// [`MemoryError`].
pub fn replace(memory: &GuestMemoryAtomic<Memory>, regions: &[Region], files: &[File]) -> Result<(), MemoryError> {
    let mapped = regions.iter().zip(files).map(|(region, file)| map(region, file));
    let mut mapped = mapped.collect::<Result<Vec<_>, _>>()?;
    mapped.sort_by_key(GuestMemoryRegion::start_addr);
    let new = if mapped.is_empty() { Memory::new() } else { Memory::from_regions(mapped)? };
    publish(memory, new);
    Ok(())
}

/// Maps one more region.
///
/// # Errors
///
/// [`MemoryError`].
pub fn add(memory: &GuestMemoryAtomic<Memory>, region: &Region, file: &File) -> Result<(), MemoryError> {
    let new = memory.memory().insert_region(map(region, file)?.into())?;
    publish(memory, new);
    Ok(())
}

/// Unmaps a region.
///
/// # Errors
///
/// [`MemoryError::Layout`] when there is no such region.
pub fn remove(memory: &GuestMemoryAtomic<Memory>, region: &Region) -> Result<(), MemoryError> {
    let (new, _) = memory.memory().remove_region(GuestAddress(region.start), region.size)?;
    publish(memory, new);
    Ok(())
}

fn publish(memory: &GuestMemoryAtomic<Memory>, new: Memory) {
    match memory.lock() {
        Ok(guard) => guard.replace(new),
        Err(poisoned) => poisoned.into_inner().replace(new),
    }
}

fn map(region: &Region, file: &File) -> Result<GuestRegion, RegionError> {
    GuestRegion::map(file, region.offset, GuestAddress(region.start), region.size)
}

/// Regions of a guest whose memory has gone away.
#[must_use]
pub fn lost_regions(memory: &GuestMemoryAtomic<Memory>) -> usize {
    memory.memory().iter().filter(|region| region.is_lost()).count()
}
