// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's memory, mapped. How much of it a guest may share, the keeper has looked at.

use std::fs::File;

use thiserror::Error;
use vm_memory::{
    GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryBackend, GuestMemoryRegion,
    GuestRegionCollectionError,
};

use super::guest::Connection;
use crate::device::guest_memory::Memory;
use crate::device::guest_region::{GuestRegion, RegionError};
use crate::link::message::{LogArea, Region};

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
pub fn replace(connection: &Connection, regions: &[Region], files: &[File]) -> Result<(), MemoryError> {
    let mapped = regions.iter().zip(files).map(|(region, file)| map(connection, region, file));
    let mut mapped = mapped.collect::<Result<Vec<_>, _>>()?;
    mapped.sort_by_key(GuestMemoryRegion::start_addr);
    let new = if mapped.is_empty() { Memory::new() } else { Memory::from_regions(mapped)? };
    publish(&connection.memory, new);
    Ok(())
}

/// Maps one more region.
///
/// # Errors
///
/// [`MemoryError`].
pub fn add(connection: &Connection, region: &Region, file: &File) -> Result<(), MemoryError> {
    let new = connection.memory.memory().insert_region(map(connection, region, file)?.into())?;
    publish(&connection.memory, new);
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

fn map(connection: &Connection, region: &Region, file: &File) -> Result<GuestRegion, RegionError> {
    let mapped = GuestRegion::map(file, region.offset, GuestAddress(region.start), region.size)?;
    Ok(mapped.with_log(&connection.log))
}

/// Takes a log of what is written to a guest's memory, in place of the one before.
///
/// # Errors
///
/// [`MemoryError`].
pub fn replace_log(connection: &Connection, area: &LogArea, file: &File) -> Result<(), MemoryError> {
    let bits = GuestRegion::map(file, area.offset, GuestAddress(0), area.size)?;
    connection.log.replace(bits);
    Ok(())
}

/// Regions of a guest whose memory has gone away.
#[must_use]
pub fn lost_regions(memory: &GuestMemoryAtomic<Memory>) -> usize {
    memory.memory().iter().filter(|region| region.is_lost()).count()
}
