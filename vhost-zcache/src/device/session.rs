// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest is on one connection: its part of the store, and whether a driver has said
//! HELLO.
//!
//! A session begins with HELLO. It ends when the connection ends, at the next HELLO, or when a
//! ring comes back that is another driver's ([`super::comeback`]). It does not end when the rings
//! stop: that may be a pause.
//!
//! It does not end either when the process ends: whatever changes about it is noted in the
//! [`crate::ledger`], in an order that leaves the next process something right at each moment.

pub mod handover;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use thiserror::Error;
use zcache_protocol::ID_SIZE;
use zcache_store::{Creation, Guest, NoPool, PoolError, PoolId, PoolKind};

use super::comeback::{Comeback, QueueIndex, StoppedRings};
use super::ring::RingPosition;
use super::ticket::Ticket;
use crate::crash::{self, Place};
use crate::ledger::record::Record;
use crate::ledger::session::SessionState;

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
    journal: Journal,
}

/// What is noted of a session. Its lock is taken after that of the session's state.
struct Journal {
    record: &'static Record<SessionState>,
    noted: Mutex<SessionState>,
}

impl Journal {
    fn open(record: &'static Record<SessionState>, state: SessionState) -> Self {
        record.write(&state);
        Self { record, noted: Mutex::new(state) }
    }

    fn note(&self, change: impl FnOnce(&mut SessionState)) {
        self.note_in(&mut self.noted(), change);
    }

    fn note_in(&self, noted: &mut SessionState, change: impl FnOnce(&mut SessionState)) {
        change(noted);
        self.record.write(noted);
    }

    fn noted(&self) -> MutexGuard<'_, SessionState> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct State {
    /// Whose pools the store holds: instance and epoch of the last HELLO.
    holds: Option<([u8; ID_SIZE], u64)>,
    /// Features that it has acknowledged.
    features: u32,
    phase: Phase,
    /// Counts starts of rings and HELLOs, without which nothing changes.
    moves: u64,
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
    state: RwLockReadGuard<'a, State>,
}

impl Session {
    /// A guest on its connection `life` that has not said HELLO, and may create shared pools of
    /// those UUIDs.
    #[must_use]
    pub fn new(
        guest: Guest,
        allowed_shared: Vec<[u8; ID_SIZE]>,
        record: &'static Record<SessionState>,
        life: u64,
    ) -> Self {
        let mut noted = SessionState::new(life, guest.number());
        noted.set_trust_domain(guest.trust_domain());
        let state = RwLock::new(State { holds: None, features: 0, phase: Phase::Closed, moves: 0 });
        Self { guest, allowed_shared, state, journal: Journal::open(record, noted) }
    }

    /// The session that an earlier process has noted, of a guest that has its private pools. It
    /// joins its shared pools again, whose pages are gone.
    #[must_use]
    pub fn restore(
        guest: Guest,
        allowed_shared: Vec<[u8; ID_SIZE]>,
        record: &'static Record<SessionState>,
        mut noted: SessionState,
    ) -> Self {
        noted.number = guest.number();
        noted.set_trust_domain(guest.trust_domain());
        if noted.holds == 0 {
            // What there is belongs to no session: a HELLO or a load was not finished.
            guest.reset();
        }
        let holds = (noted.holds != 0).then_some((noted.instance, noted.epoch));
        let phase = if noted.open == 0 {
            // The process may have died when it had noted that, and not done it.
            guest.destroy_ephemeral_pools();
            noted.leave_all();
            Phase::Closed
        } else {
            let pools: Vec<_> = noted.shared().collect();
            for (id, uuid) in pools {
                if guest.create_pool(PoolId(id), PoolKind::SharedEphemeral(uuid)).is_err() {
                    noted.leave(id);
                }
            }
            Phase::Open(noted.stopped().collect())
        };
        let state = RwLock::new(State { holds, features: noted.features, phase, moves: 0 });
        Self { guest, allowed_shared, state, journal: Journal::open(record, noted) }
    }

    /// Opens a session with a driver that has acknowledged features: ZC-DEV-17 and 18. Waits for
    /// requests on other queues to end. Rings that have stopped before may come back in any way
    /// after it.
    pub fn hello(&self, instance: [u8; ID_SIZE], features: u32, ticket: Ticket<'_>) -> Welcome {
        let mut state = self.state_mut();
        state.moves += 1;
        let welcome = ticket.planned().map_or_else(
            || match state.holds {
                Some((held, epoch)) if held == instance => Welcome { resumed: true, epoch },
                previous => Welcome { resumed: false, epoch: fresh_epoch(previous.map(|(_, epoch)| epoch)) },
            },
            |[resumed, epoch]| Welcome { resumed: resumed != 0, epoch },
        );
        let Welcome { resumed, epoch } = welcome;
        ticket.plan([u64::from(resumed), epoch]);
        // From here on there is no session, and maybe half of the pools, until there is a new one.
        self.journal.note(|noted| {
            noted.open = 0;
            if !resumed {
                noted.holds = 0;
            }
        });
        crash::point(Place::SessionClosed);
        if resumed {
            self.guest.destroy_ephemeral_pools();
        } else {
            self.guest.reset();
        }
        crash::point(Place::PoolsDestroyed);
        state.holds = Some((instance, epoch));
        state.features = features;
        state.phase = Phase::Open(StoppedRings::default());
        self.journal.note(|noted| {
            (noted.open, noted.holds, noted.instance, noted.epoch) = (1, 1, instance, epoch);
            noted.features = features;
            noted.clear_stopped();
            noted.leave_all();
        });
        crash::point(Place::SessionOpened);
        welcome
    }

    /// A ring is not served any more, for now or for good, and stands at a position.
    pub fn ring_stops(&self, queue: QueueIndex, position: RingPosition) {
        if let Phase::Open(stopped) = &mut self.state_mut().phase {
            stopped.stop(queue, position);
            self.journal.note(|noted| noted.set_stopped(queue, Some(position)));
        }
    }

    /// Where a ring has stopped in this session, if it has not started since.
    pub fn stopped_at(&self, queue: QueueIndex) -> Option<RingPosition> {
        match &self.state().phase {
            Phase::Open(stopped) => stopped.position(queue),
            Phase::Closed => None,
        }
    }

    /// A ring is about to be served from a position. When it is not the ring that stopped, the
    /// driver that opened the session is gone: the session ends, and the ephemeral pools go at
    /// once, as no HELLO would keep them. Persistent ones stay for the next HELLO: ZC-DEV-40.
    pub fn ring_starts(&self, queue: QueueIndex, position: RingPosition) -> Comeback {
        let mut state = self.state_mut();
        state.moves += 1;
        let Phase::Open(stopped) = &mut state.phase else {
            return Comeback::First;
        };
        let comeback = stopped.start(queue, position);
        match comeback {
            Comeback::First => {}
            Comeback::Same => self.journal.note(|noted| noted.set_stopped(queue, None)),
            Comeback::Another => {
                state.phase = Phase::Closed;
                self.journal.note(|noted| {
                    noted.open = 0;
                    noted.clear_stopped();
                });
                self.guest.destroy_ephemeral_pools();
                self.journal.note(SessionState::leave_all);
            }
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
            Phase::Open(_) => Ok(Access { session: self, state }),
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

    /// Whether the driver has acknowledged a feature.
    #[must_use]
    pub fn has_acknowledged(&self, feature: u32) -> bool {
        self.state.features & feature != 0
    }

    /// Whether the operator lets the guest share pools of this UUID.
    #[must_use]
    pub fn may_share(&self, uuid: &[u8; ID_SIZE]) -> bool {
        self.session.allowed_shared.contains(uuid)
    }

    /// Creates a pool, or joins a shared one.
    ///
    /// # Errors
    ///
    /// See [`PoolError`].
    pub fn create_pool(&self, pool: PoolId, kind: PoolKind) -> Result<Creation, PoolError> {
        let journal = &self.session.journal;
        let mut noted = journal.noted();
        let PoolKind::SharedEphemeral(uuid) = kind else {
            // Private pools are noted by the store, if it is there.
            let created = self.guest().create_pool(pool, kind)?;
            if noted.is_known == 0 {
                journal.note_in(&mut noted, |noted| noted.is_known = 1);
            }
            return Ok(created);
        };
        let created = self.guest().create_pool(pool, kind)?;
        crash::point(Place::PoolMade);
        if created == Creation::Created {
            journal.note_in(&mut noted, |noted| noted.join(pool.0, uuid));
            crash::point(Place::PoolNoted);
        }
        Ok(created)
    }

    /// Destroys a pool, or leaves a shared one; the number of pages that go.
    ///
    /// # Errors
    ///
    /// [`NoPool`] when there is none.
    pub fn destroy_pool(&self, pool: PoolId, ticket: Ticket<'_>) -> Result<u64, NoPool> {
        let guest = self.guest();
        let planned = ticket.planned().map(|[_, pages]| pages);
        if planned.is_none() && guest.has_pool(pool) {
            let pages =
                guest.stats().pools.iter().find(|stats| stats.id == pool).map_or(0, |stats| stats.contents.pages);
            ticket.plan([0, pages]);
        }
        let journal = &self.session.journal;
        let mut noted = journal.noted();
        let removed = guest.destroy_pool(pool);
        crash::point(Place::PoolGone);
        if noted.shared().any(|(id, _)| id == pool.0) {
            journal.note_in(&mut noted, |noted| noted.leave(pool.0));
        }
        // What a process before this one has destroyed was there when this request came.
        removed.or_else(|NoPool| planned.ok_or(NoPool))
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
    use crate::ledger::Ledger;
    use crate::ledger::service::QueueLedger;
    use zcache_store::{GuestConfig, Store, StoreConfig};

    const PERSISTENT: PoolId = PoolId(1);
    const EPHEMERAL: PoolId = PoolId(2);

    fn at(index: u16) -> RingPosition {
        RingPosition { place: RingPlace { size: 8, descriptors: 0x1000, available: 0x2000, used: 0x3000 }, index }
    }

    /// A session, and the queue on which it is said HELLO.
    struct Opened {
        session: Session,
        queue: &'static QueueLedger,
        record: &'static Record<SessionState>,
        store: Store,
    }

    impl std::ops::Deref for Opened {
        type Target = Session;

        fn deref(&self) -> &Session {
            &self.session
        }
    }

    impl Opened {
        fn hello(&self, instance: u8) -> Welcome {
            self.queue.take(0);
            let welcome = self.session.hello([instance; 16], 0, Ticket::new(self.queue, 0));
            self.queue.complete();
            welcome
        }

        /// The session as the next process has it, which finds no pages.
        fn again(self) -> Self {
            let noted = self.record.read().unwrap();
            drop(self.session);
            let guest = self.store.register_guest(GuestConfig::new("guest"));
            Self { session: Session::restore(guest, vec![SHARED], self.record, noted), ..self }
        }
    }

    const SHARED: [u8; 16] = [7; 16];

    fn unopened() -> Opened {
        let (ledger, _) = Ledger::create(1, 1).unwrap();
        let store = Store::new(StoreConfig::new(1 << 20)).unwrap();
        let (queue, record) = (&ledger.queues(0)[0], ledger.session(0));
        let session = Session::new(store.register_guest(GuestConfig::new("guest")), vec![SHARED], record, 1);
        Opened { session, queue, record, store }
    }

    /// A session that instance 1 has opened, with a pool of each kind.
    fn open() -> Opened {
        let session = unopened();
        assert!(!session.hello(1).resumed);
        session.guest.create_pool(PERSISTENT, PoolKind::Persistent).unwrap();
        session.guest.create_pool(EPHEMERAL, PoolKind::Ephemeral).unwrap();
        session
    }

    #[test]
    fn the_next_process_has_the_session() {
        let session = open();
        let access = session.access().unwrap();
        access.create_pool(PoolId(9), PoolKind::SharedEphemeral(SHARED)).unwrap();
        drop(access);
        session.ring_stops(0, at(5));
        let session = session.again();
        assert!(session.is_open() && session.guest.has_pool(PoolId(9)));
        assert_eq!(session.ring_starts(0, at(5)), Comeback::Same);
        assert_eq!(session.ring_starts(0, at(6)), Comeback::First, "a comeback counts once");
        session.ring_stops(0, at(6));
        let session = session.again();
        assert_eq!(session.ring_starts(0, at(0)), Comeback::Another);
        let session = session.again();
        assert!(!session.is_open() && !session.guest.has_pool(PoolId(9)));
        assert!(session.hello(1).resumed, "the instance is forgotten");
    }

    #[test]
    fn a_request_that_is_carried_out_again_is_answered_the_same() {
        let session = unopened();
        let ticket = Ticket::new(session.queue, 0);
        session.queue.take(0);
        let first = session.session.hello([1; 16], 0, ticket);
        assert_eq!(session.session.hello([1; 16], 0, ticket), first, "HELLO");
        assert!(!first.resumed);
        session.queue.complete();
        assert!(session.hello(1).resumed, "another HELLO is another one");

        session.queue.take(1);
        let access = session.access().unwrap();
        assert_eq!(access.destroy_pool(PERSISTENT, ticket), Err(NoPool));
        session.guest.create_pool(PERSISTENT, PoolKind::Persistent).unwrap();
        assert_eq!(access.destroy_pool(PERSISTENT, ticket), Ok(0));
        assert_eq!(access.destroy_pool(PERSISTENT, ticket), Ok(0), "POOL_DESTROY");
        session.queue.complete();
        session.queue.take(2);
        assert_eq!(access.destroy_pool(PERSISTENT, ticket), Err(NoPool), "another POOL_DESTROY is another one");
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

        assert!(session.hello(1).resumed);
        assert!(session.is_open() && session.guest.has_pool(PERSISTENT));
    }

    #[test]
    fn a_hello_makes_rings_that_stopped_before_it_those_of_nobody() {
        let session = open();
        session.ring_stops(1, at(5));
        assert!(!session.hello(2).resumed);
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
        assert!(session.hello(1).resumed);
        assert_eq!(session.ring_starts(0, at(9)), Comeback::First);
        assert!(session.is_open());
    }

    #[test]
    fn epochs_are_of_an_instance_and_say_nothing() {
        let session = open();
        let epochs: Vec<u64> = (0..64u8).map(|instance| session.hello(instance).epoch).collect();
        assert_eq!(session.hello(63), Welcome { resumed: true, epoch: epochs[63] });
        for bit in 0..64 {
            let ones = epochs.iter().filter(|epoch| *epoch >> bit & 1 == 1).count();
            assert!((8..=56).contains(&ones), "bit {bit} is 1 in {ones} of 64 epochs, which are not random then");
        }
    }
}
