// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One guest's place in the worker, which outlives its connections.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use log::error;
use vm_memory::GuestMemoryAtomic;
use zcache_protocol::ID_SIZE;
use zcache_store::{Guest, GuestConfig, Reservation, Store, Weight};

use super::memory_table::lost_regions;
use super::queue::conduct::Conduct;
use super::queue::reactors::Reactors;
use crate::device::dirty_log::DirtyLog;
use crate::device::guest_memory::Memory;
use crate::device::session::Session;
use crate::device_state::transfer::TransferLog;
use crate::ledger::Ledger;
use crate::ledger::service::QueueLedger;
use crate::ledger::session::SessionState;

/// What the operator decided for one guest.
#[derive(Debug, Clone)]
pub struct GuestPolicy {
    /// Physical bytes the guest may use; `None` for the store's limit.
    pub memory_limit: Option<u64>,
    /// What the guest can count on for its persistent pages, connected or not.
    pub reservation: Arc<Reservation>,
    /// Its part of the memory for ephemeral pages, beside others'.
    pub weight: Weight,
    /// Nothing new is stored for it.
    pub frozen: bool,
    /// UUIDs of shared pools the guest may create, from its next connection on.
    pub allow_shared: Vec<[u8; ID_SIZE]>,
    /// With whom it shares these, from its next connection on.
    pub trust_domain: Arc<str>,
}

/// One socket, and the guest that connects to it.
pub struct GuestPlace {
    name: String,
    number: usize,
    store: Store,
    ledger: Ledger,
    policy: Mutex<GuestPolicy>,
    connected: Mutex<Option<Connection>>,
    conduct: Arc<Conduct>,
    reactors: Arc<Reactors>,
    transfer_log: Arc<TransferLog>,
}

/// What is there of a guest while a VMM is connected.
#[derive(Clone)]
pub struct Connection {
    /// Which connection of the guest it is.
    pub life: u64,
    /// The connection's session.
    pub session: Arc<Session>,
    /// The guest's memory, which is none until the VMM shares some.
    pub memory: GuestMemoryAtomic<Memory>,
    /// Where the VMM wants to know what of it was written.
    pub log: DirtyLog,
}

impl GuestPolicy {
    /// How the store knows a guest of that name.
    #[must_use]
    pub fn config(&self, name: &str) -> GuestConfig {
        let mut config = GuestConfig::new(name);
        config.memory_limit = self.memory_limit;
        config.reservation = Some(Arc::clone(&self.reservation));
        (config.weight, config.frozen) = (self.weight, self.frozen);
        config.trust_domain = Arc::clone(&self.trust_domain);
        config
    }

    /// The same for a connection that an earlier worker has noted: with whom it shares pools was
    /// decided when it connected.
    #[must_use]
    pub fn config_of(&self, name: &str, noted: &SessionState) -> GuestConfig {
        let mut config = self.config(name);
        if let Some(domain) = noted.trust_domain() {
            config.trust_domain = domain.into();
        }
        config
    }
}

impl GuestPlace {
    /// A guest that is not connected.
    #[must_use]
    pub fn new(
        name: String,
        number: usize,
        store: Store,
        ledger: Ledger,
        policy: GuestPolicy,
        reactors: Arc<Reactors>,
    ) -> Self {
        let (connected, conduct, transfer_log) = (Mutex::new(None), Arc::default(), Arc::default());
        let policy = Mutex::new(policy);
        Self { name, number, store, ledger, policy, connected, conduct, reactors, transfer_log }
    }

    /// Path or descriptor of the socket.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Physical bytes it may use, if it has a limit of its own.
    #[must_use]
    pub fn memory_limit(&self) -> Option<u64> {
        self.policy().memory_limit
    }

    /// Bytes it can count on for its persistent pages.
    #[must_use]
    pub fn reserved_bytes(&self) -> u64 {
        self.policy().reservation.bytes()
    }

    /// Its part of the memory for ephemeral pages, beside others'.
    #[must_use]
    pub fn weight(&self) -> Weight {
        self.policy().weight
    }

    /// With whom it shares pools, from its next connection on.
    #[must_use]
    pub fn trust_domain(&self) -> Arc<str> {
        Arc::clone(&self.policy().trust_domain)
    }

    /// Whether nothing new is stored for it.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.policy().frozen
    }

    /// Takes another policy. That a limit which is lower now holds takes [`GuestPlace::shrink`].
    pub fn set_policy(&self, policy: GuestPolicy) {
        let session = self.session();
        *self.policy() = policy.clone();
        if let Some(session) = session {
            session.guest().set_reservation(policy.reservation);
            session.guest().set_weight(policy.weight);
            session.guest().set_frozen(policy.frozen);
        }
    }

    /// Has the guest go by its limit, which may take long. One that connects meanwhile does so from
    /// the beginning.
    pub fn shrink(&self) {
        let limit = self.memory_limit();
        if let Some(session) = self.session() {
            session.guest().set_memory_limit(limit);
        }
    }

    /// What is known of its queues, over all connections and workers.
    #[must_use]
    pub fn queues(&self) -> &'static [QueueLedger] {
        self.ledger.queues(self.number)
    }

    /// How it behaves.
    #[must_use]
    pub fn conduct(&self) -> &Arc<Conduct> {
        &self.conduct
    }

    /// Who serves its rings.
    #[must_use]
    pub fn reactors(&self) -> &Arc<Reactors> {
        &self.reactors
    }

    /// Limits what its VMM can write to the log by moving its state.
    #[must_use]
    pub fn transfer_log(&self) -> &Arc<TransferLog> {
        &self.transfer_log
    }

    /// The session of the connection there is.
    #[must_use]
    pub fn session(&self) -> Option<Arc<Session>> {
        self.slot().as_ref().map(|connection| Arc::clone(&connection.session))
    }

    /// Regions of its memory that have gone away under the daemon.
    #[must_use]
    pub fn lost_regions(&self) -> usize {
        let memory = self.slot().as_ref().map(|connection| connection.memory.clone());
        memory.map_or(0, |memory| lost_regions(&memory))
    }

    /// Whether workers have died of taking it over, so that it is not served.
    #[must_use]
    pub fn is_quarantined(&self) -> bool {
        self.ledger.restore(self.number).is_quarantined()
    }

    /// Takes over the connection of which an earlier worker has noted the session, with the guest
    /// that the store has found, if it had any private pool.
    pub fn restore(&self, found: Option<Guest>, mut noted: SessionState) {
        let life = noted.life;
        let config = self.policy().config_of(&self.name, &noted);
        if found.is_none() && noted.is_known != 0 {
            // Its memory is damaged. Nobody is to believe that the pages are there.
            error!("{}: all that the guest has stored is lost", self.name);
            noted = SessionState::new(life, 0);
        }
        let guest = found.unwrap_or_else(|| self.store.register_guest(config));
        let record = self.ledger.session(self.number);
        let session = Session::restore(guest, self.policy().allow_shared.clone(), record, noted);
        *self.slot() = Some(Connection::new(life, session));
    }

    /// Gives the connection `life` its part of the store, unless it was taken over with it.
    #[must_use]
    pub fn connect(&self, life: u64) -> Connection {
        let mut slot = self.slot();
        match &*slot {
            Some(connection) if connection.life == life => connection.clone(),
            _ => {
                let record = self.ledger.session(self.number);
                let session = Session::new(self.register(), self.policy().allow_shared.clone(), record, life);
                // Nobody has had these queues on this connection.
                self.queues().iter().for_each(QueueLedger::forget);
                let connection = Connection::new(life, session);
                *slot = Some(connection.clone());
                connection
            }
        }
    }

    /// The connection has ended. What the guest had goes with its last user.
    pub fn disconnect(&self) {
        *self.slot() = None;
    }

    fn register(&self) -> Guest {
        self.store.register_guest(self.policy().config(&self.name))
    }

    fn policy(&self) -> MutexGuard<'_, GuestPolicy> {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self) -> MutexGuard<'_, Option<Connection>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    fn new(life: u64, session: Session) -> Self {
        Self {
            life,
            session: Arc::new(session),
            memory: GuestMemoryAtomic::new(Memory::new()),
            log: DirtyLog::default(),
        }
    }
}
