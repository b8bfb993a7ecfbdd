// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest is on one connection: its part of the store, and whether a driver has said
//! HELLO.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use thiserror::Error;
use zcache_protocol::ID_SIZE;
use zcache_store::Guest;

/// Gives every session of the daemon's life an epoch of its own. It starts at the clock, so that
/// a restarted daemon does not repeat its predecessor's.
#[derive(Debug)]
pub struct Epochs(AtomicU64);

impl Default for Epochs {
    fn default() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(AtomicU64::new(u64::try_from(now.as_nanos()).unwrap_or(0)))
    }
}

impl Epochs {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// What a HELLO found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// The persistent pools of this instance were kept.
    pub resumed: bool,
    /// Changes whenever the pools are lost.
    pub epoch: u64,
}

/// No HELLO was answered since the last reset.
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
    /// Driver whose pools the store holds.
    instance: Option<[u8; ID_SIZE]>,
    epoch: u64,
    open: bool,
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
        let state = State { instance: None, epoch: 0, open: false };
        Self { guest, allowed_shared, state: RwLock::new(state) }
    }

    /// Opens a session: ZC-DEV-17 and 18. Waits for requests on other queues to end.
    pub fn hello(&self, instance: [u8; ID_SIZE], epochs: &Epochs) -> Welcome {
        let mut state = self.state_mut();
        let resumed = state.instance == Some(instance);
        if resumed {
            self.guest.destroy_ephemeral_pools();
        } else {
            self.guest.reset();
            state.instance = Some(instance);
            state.epoch = epochs.next();
        }
        state.open = true;
        Welcome { resumed, epoch: state.epoch }
    }

    /// Ends the session, because all queues were stopped. The pools stay for the next HELLO to
    /// decide on: ZC-DEV-40.
    pub fn end(&self) {
        self.state_mut().open = false;
    }

    /// Access to the pools.
    ///
    /// # Errors
    ///
    /// [`NoSession`] when no session is open.
    pub fn access(&self) -> Result<Access<'_>, NoSession> {
        let state = self.state();
        if state.open { Ok(Access { session: self, _state: state }) } else { Err(NoSession) }
    }

    /// Whether a session is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state().open
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
