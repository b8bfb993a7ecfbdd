// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest's session as it is written down.

use std::mem::offset_of;
use std::ops::Range;

use zcache_protocol::ID_SIZE;
use zcache_store::MAX_POOLS_PER_GUEST;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::args::{LONGEST_DOMAIN, MAX_QUEUES};
use crate::device::ring::{RingPlace, RingPosition};

/// A guest's session. All of it changes at once.
#[derive(Clone, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct SessionState {
    /// Which of the guest's connections it is of; 0 for none.
    pub life: u64,
    /// Epoch of the last HELLO, if `holds` is not 0.
    pub epoch: u64,
    /// Instance of the last HELLO, if `holds` is not 0.
    pub instance: [u8; ID_SIZE],
    /// The guest's number in the store.
    pub number: u32,
    /// Whether the store holds pools of that instance.
    pub holds: u32,
    /// Whether a session is open.
    pub open: u32,
    /// Whether the guest has had a private pool, so that the store's memory knows the guest.
    pub is_known: u32,
    /// With whom the connection shares pools, whatever the configuration says by now; behind it
    /// zeros.
    trust_domain: [u8; LONGEST_DOMAIN],
    /// Features that the last HELLO has acknowledged.
    pub features: u32,
    reserved: u32,
    stopped: [StoppedRing; MAX_QUEUES as usize],
    shared: [SharedPool; MAX_POOLS_PER_GUEST],
}

#[derive(Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct StoppedRing {
    descriptors: u64,
    available: u64,
    used: u64,
    size: u16,
    index: u16,
    /// 0 where no ring has stopped.
    is_there: u32,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct SharedPool {
    /// Zero where there is none; no pool has that UUID.
    uuid: [u8; ID_SIZE],
    id: u32,
    reserved: u32,
}

impl Default for SessionState {
    fn default() -> Self {
        Self {
            life: 0,
            epoch: 0,
            instance: [0; ID_SIZE],
            number: 0,
            holds: 0,
            open: 0,
            is_known: 0,
            trust_domain: [0; LONGEST_DOMAIN],
            features: 0,
            reserved: 0,
            stopped: [StoppedRing::default(); MAX_QUEUES as usize],
            shared: [SharedPool::default(); MAX_POOLS_PER_GUEST],
        }
    }
}

impl std::fmt::Debug for SessionState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "session of connection {}, open {}, epoch {}", self.life, self.open, self.epoch)
    }
}

impl SessionState {
    /// Bytes that layout 3 of the ledger does not have.
    pub(super) const ADDED: Range<usize> = offset_of!(Self, trust_domain)..offset_of!(Self, stopped);

    /// The connection `life` of a guest of that number in the store, which has not said HELLO.
    #[must_use]
    pub fn new(life: u64, number: u32) -> Self {
        Self { life, number, ..Self::default() }
    }

    /// Notes with whom the connection shares pools.
    pub fn set_trust_domain(&mut self, domain: &str) {
        self.trust_domain = [0; LONGEST_DOMAIN];
        for (to, from) in self.trust_domain.iter_mut().zip(domain.bytes()) {
            *to = from;
        }
    }

    /// With whom the connection shares pools, if that was noted.
    #[must_use]
    pub fn trust_domain(&self) -> Option<&str> {
        let length = self.trust_domain.iter().position(|byte| *byte == 0).unwrap_or(LONGEST_DOMAIN);
        str::from_utf8(&self.trust_domain[..length]).ok().filter(|domain| !domain.is_empty())
    }

    /// Where rings of the session have stopped.
    pub fn stopped(&self) -> impl Iterator<Item = (usize, RingPosition)> {
        let position = |ring: &StoppedRing| {
            let StoppedRing { size, descriptors, available, used, index, .. } = *ring;
            RingPosition { place: RingPlace { size, descriptors, available, used }, index }
        };
        let rings = self.stopped.iter().enumerate().filter(|(_, ring)| ring.is_there != 0);
        rings.map(move |(queue, ring)| (queue, position(ring)))
    }

    /// Notes where a ring has stopped, or that it has not.
    pub fn set_stopped(&mut self, queue: usize, position: Option<RingPosition>) {
        let ring = position.map_or_else(StoppedRing::default, |RingPosition { place, index }| {
            let RingPlace { size, descriptors, available, used } = place;
            StoppedRing { descriptors, available, used, size, index, is_there: 1 }
        });
        if let Some(slot) = self.stopped.get_mut(queue) {
            *slot = ring;
        }
    }

    /// Notes that no ring has stopped.
    pub fn clear_stopped(&mut self) {
        self.stopped = [StoppedRing::default(); MAX_QUEUES as usize];
    }

    /// Shared pools the guest is in: its number for each, and the UUID.
    pub fn shared(&self) -> impl Iterator<Item = (u32, [u8; ID_SIZE])> {
        self.shared.iter().filter(|pool| pool.uuid != [0; ID_SIZE]).map(|pool| (pool.id, pool.uuid))
    }

    /// Notes that the guest is in a shared pool. A guest has no more pools than there are places.
    pub fn join(&mut self, id: u32, uuid: [u8; ID_SIZE]) {
        self.leave(id);
        if let Some(slot) = self.shared.iter_mut().find(|pool| pool.uuid == [0; ID_SIZE]) {
            *slot = SharedPool { uuid, id, reserved: 0 };
        }
    }

    /// Notes that the guest is not in a shared pool any more.
    pub fn leave(&mut self, id: u32) {
        self.shared.iter_mut().filter(|pool| pool.id == id).for_each(|pool| *pool = SharedPool::default());
    }

    /// Notes that the guest is in no shared pool.
    pub fn leave_all(&mut self) {
        self.shared = [SharedPool::default(); MAX_POOLS_PER_GUEST];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_and_pools_are_noted() {
        let position =
            RingPosition { place: RingPlace { size: 8, descriptors: 1, available: 2, used: 3 }, index: u16::MAX };
        let mut state = SessionState::default();
        assert_eq!(state.stopped().count() + state.shared().count(), 0);
        state.set_stopped(63, Some(position));
        assert_eq!(state.stopped().collect::<Vec<_>>(), [(63, position)]);
        state.join(0, [1; 16]);
        state.join(5, [2; 16]);
        state.join(5, [3; 16]);
        assert_eq!(state.shared().collect::<Vec<_>>(), [(0, [1; 16]), (5, [3; 16])]);
        state.leave(0);
        assert_eq!(state.shared().collect::<Vec<_>>(), [(5, [3; 16])]);
        state.set_stopped(63, None);
        state.leave_all();
        assert_eq!(state, SessionState::default());
    }

    #[test]
    fn the_trust_domain_is_noted() {
        let mut state = SessionState::default();
        assert_eq!(state.trust_domain(), None);
        for domain in ["x".repeat(LONGEST_DOMAIN), "red".to_owned()] {
            state.set_trust_domain(&domain);
            assert_eq!(state.trust_domain(), Some(&*domain));
        }
    }
}
