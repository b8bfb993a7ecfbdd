// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One split ring: takes chains in order, gives them back in order.

use std::sync::atomic::Ordering;

use thiserror::Error;
use virtio_bindings::bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

use super::chain::{Chain, ChainError, Indirect, Table};
use super::dirty_log::DirtyLog;
use super::guest_memory::{self, Memory, MemoryError};

/// Most entries a ring may have. Both VMMs with a generic vhost-user device stop at this.
pub const MAX_QUEUE_SIZE: u16 = 1024;

/// Offset of the first entry in the available ring, after its flags and index.
const AVAIL_ENTRIES: u64 = 4;

/// The used ring: flags and index, entries, and the index at which the device wants to be kicked.
const USED_ENTRIES: u64 = 4;
const USED_ENTRY: u64 = 8;
const AVAIL_EVENT: u64 = 2;

/// Why a ring is not served (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RingError {
    /// A size that is no power of two up to [`MAX_QUEUE_SIZE`], or a misaligned address.
    #[error("the ring's size or alignment is wrong")]
    Layout,
    /// The ring itself is not in the guest's memory.
    #[error("the ring is not in the guest's memory")]
    Unmapped,
    /// More chains than entries: the driver's index jumped.
    #[error("{pending} chains are available in a ring of {size}")]
    AvailIndex {
        /// Chains between the last one taken and the driver's index.
        pending: u16,
        /// Entries of the ring.
        size: u16,
    },
    /// A chain that cannot be followed.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A chain that was in service when a process died, and when another one died.
    #[error("the chain of index {0} was in service when the daemon's worker died, and when the next one did")]
    Deadly(u16),
}

impl From<MemoryError> for RingError {
    fn from(error: MemoryError) -> Self {
        Self::Chain(error.into())
    }
}

impl From<virtio_queue::Error> for RingError {
    fn from(_: virtio_queue::Error) -> Self {
        // With the layout checked at the start, what is left are accesses outside of memory.
        Self::Unmapped
    }
}

/// Where a ring lies in guest memory, as the VMM said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingPlace {
    /// Entries.
    pub size: u16,
    /// Guest-physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest-physical address of the available ring.
    pub available: u64,
    /// Guest-physical address of the used ring.
    pub used: u64,
}

/// How far a ring was served. A ring that is another driver's differs in this, because a driver
/// that sets up a ring begins with a used index of zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingPosition {
    /// Where the ring lies.
    pub place: RingPlace,
    /// Index of the first chain that is not completed.
    pub index: u16,
}

/// What the driver has acknowledged of the features that concern rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RingFeatures {
    /// `VIRTIO_RING_F_EVENT_IDX`.
    pub event_idx: bool,
    /// `VIRTIO_RING_F_INDIRECT_DESC`.
    pub indirect: bool,
}

/// A chain that was taken and has to be completed before the next one is taken.
#[derive(Debug)]
#[must_use]
pub struct Taken {
    head: u16,
    /// Where in the ring it was.
    pub index: u16,
}

/// A ring that can be served, by whichever thread has it.
#[derive(Debug)]
pub struct Ring {
    queue: Queue,
    place: RingPlace,
    features: RingFeatures,
}

impl Ring {
    /// Starts to serve a ring at its used index, whatever index the VMM believes in.
    ///
    /// Chains are completed in order, so all before the used index are done and none after it
    /// is. After an orderly stop this is where the ring was left; after a crash of the device it
    /// replays exactly the unfinished chains, where Cloud Hypervisor would skip them by passing
    /// the available index.
    ///
    /// # Errors
    ///
    /// [`RingError::Layout`] or [`RingError::Unmapped`] when the VMM has placed it wrongly.
    pub fn start(place: RingPlace, features: RingFeatures, memory: &Memory) -> Result<Self, RingError> {
        let mut queue = Queue::new(MAX_QUEUE_SIZE).map_err(|_| RingError::Layout)?;
        queue
            .try_set_size(place.size)
            .and_then(|()| queue.try_set_desc_table_address(GuestAddress(place.descriptors)))
            .and_then(|()| queue.try_set_avail_ring_address(GuestAddress(place.available)))
            .and_then(|()| queue.try_set_used_ring_address(GuestAddress(place.used)))
            .map_err(|_| RingError::Layout)?;
        queue.set_event_idx(features.event_idx);
        queue.set_ready(true);
        if !queue.is_valid(memory) {
            return Err(RingError::Unmapped);
        }
        let used = queue.used_idx(memory, Ordering::Acquire)?.0;
        queue.set_next_avail(used);
        queue.set_next_used(used);
        Ok(Self { queue, place, features })
    }

    /// Takes the next chain into `chain`, if the driver made one available.
    ///
    /// # Errors
    ///
    /// [`RingError`] when the ring or the chain makes no sense.
    pub fn take(&mut self, memory: &Memory, chain: &mut Chain) -> Result<Option<Taken>, RingError> {
        let size = self.queue.size();
        let next = self.queue.next_avail();
        // Acquire: the entry and descriptors are read after the index that announces them.
        let available = self.queue.avail_idx(memory, Ordering::Acquire)?.0;
        // An index out of memory that has gone away says nothing.
        guest_memory::check_intact(memory)?;
        let pending = available.wrapping_sub(next);
        if pending == 0 {
            return Ok(None);
        }
        if pending > size {
            return Err(RingError::AvailIndex { pending, size });
        }

        let slot = AVAIL_ENTRIES + 2 * u64::from(next % size);
        // The whole ring was found to be in guest memory, far from the end of addresses.
        let head = guest_memory::load_u16(memory, self.queue.avail_ring().wrapping_add(slot))?;
        let table = Table { address: self.queue.desc_table(), entries: size.into() };
        let indirect = if self.features.indirect { Indirect::Negotiated } else { Indirect::Declined };
        chain.collect(memory, table, head, size, indirect)?;
        self.queue.set_next_avail(next.wrapping_add(1));
        Ok(Some(Taken { head, index: next }))
    }

    /// Whether the driver has made chains available. More than there can be count as some.
    ///
    /// # Errors
    ///
    /// [`RingError::Unmapped`] when the ring's memory has gone.
    pub fn has_chains(&self, memory: &Memory) -> Result<bool, RingError> {
        Ok(self.queue.avail_idx(memory, Ordering::Relaxed)?.0 != self.queue.next_avail())
    }

    /// Puts a chain on the used ring, `written` bytes of it written.
    ///
    /// # Errors
    ///
    /// [`RingError`] when any of the guest's memory has gone: then the chain is not used, whose
    /// results may be wrong or lost.
    pub fn complete(&mut self, memory: &Memory, taken: Taken, written: u32) -> Result<(), RingError> {
        guest_memory::check_intact(memory)?;
        Ok(self.queue.add_used(memory, taken.head, written)?)
    }

    /// Whether the driver wants to be told of the chains completed since the last call.
    ///
    /// # Errors
    ///
    /// [`RingError::Unmapped`] when the ring's memory has gone.
    pub fn needs_notification(&mut self, memory: &Memory) -> Result<bool, RingError> {
        // Has a fence between the used index, written before, and what the driver wants, read
        // after.
        let wanted = self.queue.needs_notification(memory)?;
        if self.features.event_idx {
            return Ok(wanted);
        }
        // The crate does not look at the flag. It is the first word of the available ring.
        let flags = guest_memory::load_u16(memory, self.queue.avail_ring())?;
        Ok(u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }

    /// Asks the driver not to kick.
    ///
    /// # Errors
    ///
    /// [`RingError::Unmapped`] when the ring's memory has gone.
    pub fn disable_kicks(&mut self, memory: &Memory) -> Result<(), RingError> {
        Ok(self.queue.disable_notification(memory)?)
    }

    /// Asks the driver to kick again; true when chains are already there, which may have been
    /// made available without a kick.
    ///
    /// # Errors
    ///
    /// [`RingError::Unmapped`] when the ring's memory has gone.
    pub fn enable_kicks(&mut self, memory: &Memory) -> Result<bool, RingError> {
        Ok(self.queue.enable_notification(memory)?)
    }

    /// Marks all that the device writes of the ring itself. A process that has died may have
    /// written it without a mark.
    pub fn mark_used(&self, log: &DirtyLog) {
        log.mark(self.place.used, USED_ENTRIES + USED_ENTRY * u64::from(self.place.size) + AVAIL_EVENT);
    }

    /// How far the ring was served.
    #[must_use]
    pub fn position(&self) -> RingPosition {
        RingPosition { place: self.place, index: self.queue.next_used() }
    }
}
