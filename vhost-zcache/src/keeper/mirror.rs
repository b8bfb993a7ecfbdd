// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All that a VMM has set up on its connection, kept for the next worker.

use std::fs::File;
use std::io;
use std::rc::Rc;

use rustix::fs::{fcntl_getfl, fstat};
use thiserror::Error;
use vhost::vhost_user::Result;

use crate::device::ring::MAX_QUEUE_SIZE;
use crate::frontend::budget::MemoryBudget;
use crate::frontend::features::Acknowledged;
use crate::link::message::{Addresses, Change, LogArea, Region, RingChange};

/// A change with the files that belong to it.
pub type Carried = (Change, Vec<Rc<File>>);

/// Why a guest may not share memory.
#[derive(Debug, Error)]
enum MemoryError {
    /// A file for each region is needed.
    #[error("{regions} memory regions came with {files} files")]
    Files { regions: usize, files: usize },
    /// More regions than the device told the VMM it may have.
    #[error("{regions} memory regions are more than the {limit} that a guest may have here")]
    TooMany { regions: usize, limit: u64 },
    /// More address space than is left for one guest.
    #[error("{bytes:#x} bytes of memory are more than the {limit:#x} that a guest may have here")]
    TooLarge { bytes: u64, limit: u64 },
}

impl From<MemoryError> for vhost::vhost_user::Error {
    fn from(error: MemoryError) -> Self {
        Self::ReqHandlerError(io::Error::other(error))
    }
}

/// What was set up, as far as a worker has carried it out.
#[derive(Debug)]
pub struct Mirror {
    features: Option<u64>,
    regions: Vec<(Region, Rc<File>)>,
    log: Option<(LogArea, Rc<File>)>,
    rings: Vec<Ring>,
}

#[derive(Debug, Clone)]
struct Ring {
    size: u16,
    place: Option<Addresses>,
    base: u16,
    kick: Option<Rc<File>>,
    call: Option<Rc<File>>,
    enabled: bool,
}

impl Mirror {
    /// Nothing is set up.
    #[must_use]
    pub fn new(num_queues: u16) -> Self {
        let ring = Ring { size: MAX_QUEUE_SIZE, place: None, base: 0, kick: None, call: None, enabled: false };
        Self { features: None, regions: Vec::new(), log: None, rings: vec![ring; num_queues.into()] }
    }

    /// The features that were acknowledged.
    #[must_use]
    pub fn features(&self) -> Option<Acknowledged> {
        self.features.and_then(Acknowledged::new)
    }

    /// Whether there is no region at all, as when the VMM shares no memory.
    #[must_use]
    pub fn is_without_memory(&self) -> bool {
        self.regions.is_empty()
    }

    /// The guest-physical address of an address in the VMM.
    #[must_use]
    pub fn guest_address(&self, vmm_address: u64) -> Option<u64> {
        self.regions.iter().find_map(|(region, _)| {
            let offset = vmm_address.checked_sub(region.vmm_address)?;
            (offset < region.size).then(|| region.start.checked_add(offset))?
        })
    }

    /// How a change comes out that no worker carries out: nobody serves a ring or touches memory
    /// then. Where the ring stands that it is about, as far as the VMM knows.
    ///
    /// # Errors
    ///
    /// When it takes a worker.
    pub fn without_worker(&self, change: &Change) -> std::result::Result<u16, String> {
        match change {
            Change::Ring(ring, _) => Ok(self.rings.get(*ring).map_or(0, |ring| ring.base)),
            Change::MoveState(_) | Change::CheckState => Err("the guest is not served".into()),
            _ => Ok(0),
        }
    }

    /// Whether a guest may have these regions in place of those it has.
    ///
    /// # Errors
    ///
    /// When it may not.
    pub fn check_table(&self, regions: &[Region], files: usize, budget: MemoryBudget) -> Result<()> {
        if regions.len() != files {
            return Err(MemoryError::Files { regions: regions.len(), files }.into());
        }
        check(regions.iter().map(|region| region.size), budget)
    }

    /// Whether a guest may have one region more.
    ///
    /// # Errors
    ///
    /// When it may not.
    pub fn check_region(&self, region: &Region, budget: MemoryBudget) -> Result<()> {
        let sizes = self.regions.iter().map(|(region, _)| region.size);
        check(sizes.chain([region.size]), budget)
    }

    /// Notes a change that was carried out; `base` is where a ring was stopped, if that was it.
    pub fn commit(&mut self, (change, files): Carried, base: u16) {
        let mut files = files.into_iter();
        match change {
            Change::Connect(_) | Change::Disconnect | Change::Hold(_) | Change::MoveState(_) | Change::CheckState => {}
            Change::Features(features) => self.features = Some(features),
            Change::Table(regions) => {
                self.regions.clear();
                for (region, file) in regions.into_iter().zip(files) {
                    self.add(region, file);
                }
            }
            Change::AddRegion(region) => {
                if let Some(file) = files.next() {
                    self.add(region, file);
                }
            }
            Change::Log(area) => self.log = files.next().map(|file| (area, file)),
            Change::RemoveRegion(region) => self.regions.retain(|(there, _)| there.start != region.start),
            Change::Ring(index, change) => {
                let Some(ring) = self.rings.get_mut(index) else { return };
                match change {
                    RingChange::Size(size) => ring.size = size,
                    RingChange::Place(place) => ring.place = place,
                    RingChange::Base(base) => ring.base = base,
                    RingChange::Kick(_) => ring.kick = files.next(),
                    RingChange::Call(_) => ring.call = files.next(),
                    RingChange::Enable(enabled) => ring.enabled = enabled,
                    RingChange::Stop => (ring.kick, ring.call, ring.base) = (None, None, base),
                }
            }
        }
    }

    /// Whether a ring is started.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.rings.iter().any(|ring| ring.kick.is_some())
    }

    /// Adds a region. VMMs pass a file once for each region that is in it, and one descriptor is
    /// enough.
    fn add(&mut self, region: Region, file: Rc<File>) {
        let known = self.regions.iter().find(|(_, known)| is_same(known, &file));
        let file = known.map_or(file, |(_, known)| Rc::clone(known));
        self.regions.push((region, file));
    }

    /// The changes by which a device that knows nothing becomes what was set up. A ring's kick
    /// comes last, so that it is served once, when all is known.
    #[must_use]
    pub fn changes(&self) -> Vec<Carried> {
        let mut changes = Vec::new();
        changes.extend(self.features.map(|features| (Change::Features(features), Vec::new())));
        changes.extend(self.regions.iter().map(|(region, file)| (Change::AddRegion(*region), vec![Rc::clone(file)])));
        changes.extend(self.log.iter().map(|(area, file)| (Change::Log(*area), vec![Rc::clone(file)])));
        for (index, ring) in self.rings.iter().enumerate() {
            let mut set = |change, file: Option<&Rc<File>>| {
                changes.push((Change::Ring(index, change), file.cloned().into_iter().collect()));
            };
            set(RingChange::Size(ring.size), None);
            set(RingChange::Base(ring.base), None);
            if ring.place.is_some() {
                set(RingChange::Place(ring.place), None);
            }
            if ring.call.is_some() {
                set(RingChange::Call(true), ring.call.as_ref());
            }
            if ring.enabled {
                set(RingChange::Enable(true), None);
            }
            if ring.kick.is_some() {
                set(RingChange::Kick(true), ring.kick.as_ref());
            }
        }
        changes
    }
}

/// Whether two descriptors are of one file, opened in the same way.
fn is_same(one: &File, other: &File) -> bool {
    let identity = |file: &File| {
        let status = fstat(file).ok()?;
        Some((status.st_dev, status.st_ino, fcntl_getfl(file).ok()?))
    };
    identity(one).is_some_and(|identity_of_one| Some(identity_of_one) == identity(other))
}

/// Checks the number and the sizes of the regions there would be.
fn check(sizes: impl Iterator<Item = u64>, budget: MemoryBudget) -> Result<()> {
    let (mut regions, mut bytes) = (0, 0u64);
    for size in sizes {
        regions += 1;
        bytes = bytes.saturating_add(size);
    }
    if regions as u64 > budget.regions {
        return Err(MemoryError::TooMany { regions, limit: budget.regions }.into());
    }
    if bytes > budget.bytes {
        return Err(MemoryError::TooLarge { bytes, limit: budget.bytes }.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_up_is_set_up_again() {
        let file = Rc::new(tempfile::tempfile().unwrap());
        let region = |start| Region { start, size: 0x1000, vmm_address: start + 0x10_0000, offset: 0 };
        let place = Addresses { descriptors: 1, available: 2, used: 3 };
        let mut mirror = Mirror::new(2);
        let mut commit = |change, files: &[&Rc<File>], base| {
            mirror.commit((change, files.iter().map(|file| Rc::clone(file)).collect()), base);
        };
        commit(Change::Features(1 << 32), &[], 0);
        commit(Change::Table(vec![region(0), region(0x1000)]), &[&file, &file], 0);
        commit(Change::AddRegion(region(0x2000)), &[&file], 0);
        commit(Change::RemoveRegion(region(0x1000)), &[], 0);
        let log = Change::Log(LogArea { size: 1, offset: 0 });
        commit(log.clone(), &[&file], 0);
        for ring in 0..2 {
            commit(Change::Ring(ring, RingChange::Size(8)), &[], 0);
            commit(Change::Ring(ring, RingChange::Place(Some(place))), &[], 0);
            commit(Change::Ring(ring, RingChange::Kick(true)), &[&file], 0);
            commit(Change::Ring(ring, RingChange::Call(true)), &[&file], 0);
            commit(Change::Ring(ring, RingChange::Enable(true)), &[], 0);
        }
        commit(Change::Ring(1, RingChange::Stop), &[], 77);
        assert_eq!(mirror.without_worker(&Change::Ring(1, RingChange::Stop)), Ok(77));
        assert_eq!((mirror.guest_address(0x10_2fff), mirror.guest_address(0x10_1000)), (Some(0x2fff), None));

        let changes: Vec<Change> = mirror.changes().into_iter().map(|(change, _)| change).collect();
        let ring = |ring, change| Change::Ring(ring, change);
        let expected = [
            Change::Features(1 << 32),
            Change::AddRegion(region(0)),
            Change::AddRegion(region(0x2000)),
            log,
            ring(0, RingChange::Size(8)),
            ring(0, RingChange::Base(0)),
            ring(0, RingChange::Place(Some(place))),
            ring(0, RingChange::Call(true)),
            ring(0, RingChange::Enable(true)),
            ring(0, RingChange::Kick(true)),
            ring(1, RingChange::Size(8)),
            ring(1, RingChange::Base(77)),
            ring(1, RingChange::Place(Some(place))),
            ring(1, RingChange::Enable(true)),
        ];
        assert_eq!(changes, expected);
    }
}
