// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest is on one connection: its part of the store, and whether a driver has said
//! HELLO.
//!
//! A session begins with HELLO. It ends when the connection ends, at the next HELLO, or when a
//! ring comes back that is another driver's ([`super::comeback`]). It does not end when the rings
//! stop: that may be a pause.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use thiserror::Error;
use zcache_protocol::ID_SIZE;
use zcache_store::Guest;

use super::comeback::{Comeback, QueueIndex, StoppedRings};
use super::ring::RingPosition;

/// What a HELLO found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// The persistent pools of this instance were kept.
    pub resumed: bool,
    /// Changes whenever the pools are lost.
    pub epoch: u64,
}

/// No session is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the driver has not said HELLO")]
pub struct NoSession;

/// A guest's state on one connection. Dropping it drops all the guest had in the store.
pub struct Session {
    guest: Guest,
    allowed_shared: Vec<[u8; ID_SIZE]>,
    state: RwLock<State>,
}

struct State {
    /// Whose pools the store holds: instance and epoch of the last HELLO.
    holds: Option<([u8; ID_SIZE], u64)>,
    phase: Phase,
}

/// Where the rings stopped means something to the session they stopped in, and to no other.
enum Phase {
    Closed,
    Open(StoppedRings),
}

/// Access to the guest's pools. While it exists no HELLO is answered, so what it does belongs to
/// the session it was obtained in.
pub struct Access<'a> {
    session: &'a Session,
    _state: RwLockReadGuard<'a, State>,
}

impl Session {
    /// A guest that has not said HELLO, and may create shared pools of those UUIDs.
    #[must_use]
    pub fn new(guest: Guest, allowed_shared: Vec<[u8; ID_SIZE]>) -> Self {
        let state = State { holds: None, phase: Phase::Closed };
        Self { guest, allowed_shared, state: RwLock::new(state) }
    }

    /// Opens a session: ZC-DEV-17 and 18. Waits for requests on other queues to end. Rings that
    /// have stopped before may come back in any way after it.
    pub fn hello(&self, instance: [u8; ID_SIZE]) -> Welcome {
        let mut state = self.state_mut();
        let welcome = match state.holds {
            Some((held, epoch)) if held == instance => {
                self.guest.destroy_ephemeral_pools();
                Welcome { resumed: true, epoch }
            }
            previous => {
                self.guest.reset();
                let epoch = fresh_epoch(previous.map(|(_, epoch)| epoch));
                state.holds = Some((instance, epoch));
                Welcome { resumed: false, epoch }
            }
        };
        state.phase = Phase::Open(StoppedRings::default());
        welcome
    }

    /// A ring is not served any more, for now or for good, and stands at a position.
    pub fn ring_stops(&self, queue: QueueIndex, position: RingPosition) {
        if let Phase::Open(stopped) = &mut self.state_mut().phase {
            stopped.stop(queue, position);
        }
    }

    /// A ring is about to be served from a position. When it is not the ring that stopped, the
    /// driver that opened the session is gone: the session ends, and the ephemeral pools go at
    /// once, as no HELLO would keep them. Persistent ones stay for the next HELLO: ZC-DEV-40.
    pub fn ring_starts(&self, queue: QueueIndex, position: RingPosition) -> Comeback {
        let mut state = self.state_mut();
        let Phase::Open(stopped) = &mut state.phase else {
            return Comeback::First;
        };
        let comeback = stopped.start(queue, position);
        if comeback == Comeback::Another {
            state.phase = Phase::Closed;
            self.guest.destroy_ephemeral_pools();
        }
        comeback
    }

    /// Access to the pools.
    ///
    /// # Errors
    ///
    /// [`NoSession`] when no session is open.
    pub fn access(&self) -> Result<Access<'_>, NoSession> {
        let state = self.state();
        match state.phase {
            Phase::Open(_) => Ok(Access { session: self, _state: state }),
            Phase::Closed => Err(NoSession),
        }
    }

    /// Whether a session is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state().phase, Phase::Open(_))
    }

    /// The guest, for its statistics.
    #[must_use]
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    // A thread that panicked with the lock held leaves no half-made state behind: the fields are
    // written one by one after all that can fail, and a session that was not opened is closed.
    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Access<'_> {
    /// The guest's pools.
    #[must_use]
    pub fn guest(&self) -> &Guest {
        &self.session.guest
    }

    /// Whether the operator lets the guest share pools of this UUID.
    #[must_use]
    pub fn may_share(&self, uuid: &[u8; ID_SIZE]) -> bool {
        self.session.allowed_shared.contains(uuid)
    }
}

/// A number that nobody can guess or learn anything from, and that is not the previous one.
fn fresh_epoch(previous: Option<u64>) -> u64 {
    // The kernel has random numbers from early in its boot on; if ever it has none, those that it
    // gave the standard library for its hash tables do.
    let random = || getrandom::u64().unwrap_or_else(|_| RandomState::new().hash_one(previous));
    let mut epoch = random();
    while Some(epoch) == previous {
        epoch = random();
    }
    epoch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::ring::RingPlace;
    use zcache_store::{GuestConfig, PoolId, PoolKind, Store, StoreConfig};

    const PERSISTENT: PoolId = PoolId(1);
    const EPHEMERAL: PoolId = PoolId(2);

    fn at(index: u16) -> RingPosition {
        RingPosition { place: RingPlace { size: 8, descriptors: 0x1000, available: 0x2000, used: 0x3000 }, index }
    }

    /// A session that instance 1 has opened, with a pool of each kind.
    fn open() -> Session {
        let store = Store::new(StoreConfig::new(1 << 20)).unwrap();
        let session = Session::new(store.register_guest(GuestConfig::new("guest")), Vec::new());
        assert!(!session.hello([1; 16]).resumed);
        session.guest.create_pool(PERSISTENT, PoolKind::Persistent).unwrap();
        session.guest.create_pool(EPHEMERAL, PoolKind::Ephemeral).unwrap();
        session
    }

    #[test]
    fn rings_that_stop_and_go_on_change_nothing() {
        let session = open();
        for queue in 0..2 {
            session.ring_stops(queue, at(5));
        }
        assert!(session.is_open(), "all rings have stopped");
        for queue in 0..2 {
            assert_eq!(session.ring_starts(queue, at(5)), Comeback::Same);
        }
        assert!(session.is_open() && session.guest.has_pool(EPHEMERAL));
    }

    #[test]
    fn another_ring_ends_the_session_once() {
        let session = open();
        for queue in 0..2 {
            session.ring_stops(queue, at(5));
        }
        assert!(session.guest.has_pool(EPHEMERAL), "a stop drops pages");
        assert_eq!(session.ring_starts(0, at(0)), Comeback::Another);
        assert!(!session.is_open());
        assert!(!session.guest.has_pool(EPHEMERAL), "what can only be dead is still there");
        assert!(session.guest.has_pool(PERSISTENT), "what the next HELLO decides on is gone");
        assert_eq!(session.ring_starts(1, at(0)), Comeback::First, "where rings of the old session stopped is past");

        assert!(session.hello([1; 16]).resumed);
        assert!(session.is_open() && session.guest.has_pool(PERSISTENT));
    }

    #[test]
    fn a_hello_makes_rings_that_stopped_before_it_those_of_nobody() {
        let session = open();
        session.ring_stops(1, at(5));
        assert!(!session.hello([2; 16]).resumed);
        assert_eq!(session.ring_starts(1, at(0)), Comeback::First);
        assert!(session.is_open(), "a ring of the old driver's has ended the new driver's session");
        assert!(!session.guest.has_pool(PERSISTENT), "a pool of another instance");
    }

    #[test]
    fn rings_that_stop_without_a_session_may_come_back_in_any_way() {
        let session = open();
        session.ring_stops(0, at(5));
        session.ring_starts(0, at(0));
        session.ring_stops(0, at(3));
        assert!(session.hello([1; 16]).resumed);
        assert_eq!(session.ring_starts(0, at(9)), Comeback::First);
        assert!(session.is_open());
    }

    #[test]
    fn epochs_are_of_an_instance_and_say_nothing() {
        let session = open();
        let epochs: Vec<u64> = (0..64u8).map(|instance| session.hello([instance; 16]).epoch).collect();
        assert_eq!(session.hello([63; 16]), Welcome { resumed: true, epoch: epochs[63] });
        for bit in 0..64 {
            let ones = epochs.iter().filter(|epoch| *epoch >> bit & 1 == 1).count();
            assert!((8..=56).contains(&ones), "bit {bit} is 1 in {ones} of 64 epochs, which are not random then");
        }
    }
}
