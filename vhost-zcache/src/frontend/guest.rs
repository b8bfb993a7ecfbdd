// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One guest's place in the daemon, which outlives its connections.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use vm_memory::GuestMemoryAtomic;
use zcache_protocol::ID_SIZE;
use zcache_store::{GuestConfig, Reservation, Store};

use super::budget::MemoryBudget;
use super::log_limit::{LogLimit, Occasion, SocketLog};
use super::memory_table::lost_regions;
use crate::device::config_space::ConfigSpace;
use crate::device::counters::QueueCounters;
use crate::device::guest_memory::Memory;
use crate::device::session::Session;

/// What all guests of a daemon have in common.
pub struct Host {
    /// The one store.
    pub store: Store,
    /// Queues of each guest's device, 1 to 64.
    pub num_queues: u16,
    /// What each guest may share.
    pub memory_budget: MemoryBudget,
}

/// What the operator decided for one guest.
#[derive(Debug, Clone)]
pub struct GuestPolicy {
    /// Physical bytes the guest may use; `None` for the store's limit.
    pub memory_limit: Option<u64>,
    /// What the guest can count on for its persistent pages, connected or not.
    pub reservation: Arc<Reservation>,
    /// UUIDs of shared pools the guest may create.
    pub allow_shared: Vec<[u8; ID_SIZE]>,
}

/// One socket, and the guest that connects to it.
pub struct GuestSocket {
    name: String,
    host: Arc<Host>,
    policy: GuestPolicy,
    queues: Vec<Arc<QueueCounters>>,
    connected: Mutex<Option<Connection>>,
    log: SocketLog,
    log_limit: Arc<LogLimit>,
}

/// What is there of a guest while a VMM is connected.
#[derive(Clone)]
struct Connection {
    session: Arc<Session>,
    memory: GuestMemoryAtomic<Memory>,
}

impl GuestSocket {
    /// A guest that is not connected.
    #[must_use]
    pub fn new(name: String, host: Arc<Host>, policy: GuestPolicy) -> Self {
        let queues = (0..host.num_queues).map(|_| Arc::default()).collect();
        let (log, log_limit) = (SocketLog::default(), Arc::default());
        Self { name, host, policy, queues, connected: Mutex::new(None), log, log_limit }
    }

    /// Path or descriptor of the socket.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Physical bytes it may use, if it has a limit of its own.
    #[must_use]
    pub fn memory_limit(&self) -> Option<u64> {
        self.policy.memory_limit
    }

    /// Bytes it can count on for its persistent pages.
    #[must_use]
    pub fn reserved_bytes(&self) -> u64 {
        self.policy.reservation.bytes()
    }

    /// The configuration space of its device.
    #[must_use]
    pub fn config_space(&self) -> ConfigSpace {
        ConfigSpace::new(self.host.num_queues)
    }

    /// Counters of its queues, over all connections.
    #[must_use]
    pub fn queues(&self) -> &[Arc<QueueCounters>] {
        &self.queues
    }

    /// What it may share.
    #[must_use]
    pub fn memory_budget(&self) -> MemoryBudget {
        self.host.memory_budget
    }

    /// Logs a line about its socket, unless there were too many of late.
    pub fn log(&self, occasion: Occasion, text: fmt::Arguments<'_>) {
        self.log.say(&self.name, occasion, text);
    }

    /// Limits what its rings can write to the log.
    #[must_use]
    pub fn log_limit(&self) -> &Arc<LogLimit> {
        &self.log_limit
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

    /// Gives a new connection its part of the store.
    #[must_use]
    pub fn connect(&self) -> Connected<'_> {
        let mut config = GuestConfig::new(self.name.as_str());
        config.memory_limit = self.policy.memory_limit;
        config.reservation = Some(Arc::clone(&self.policy.reservation));
        let guest = self.host.store.register_guest(config);
        let session = Arc::new(Session::new(guest, self.policy.allow_shared.clone()));
        let connection = Connection { session, memory: GuestMemoryAtomic::new(Memory::new()) };
        *self.slot() = Some(connection.clone());
        Connected { socket: self, connection }
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Connection>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A guest while it is connected.
pub struct Connected<'a> {
    socket: &'a GuestSocket,
    connection: Connection,
}

impl Connected<'_> {
    /// The connection's session.
    #[must_use]
    pub fn session(&self) -> &Arc<Session> {
        &self.connection.session
    }

    /// The guest's memory, which is none until the VMM shares some.
    #[must_use]
    pub fn memory(&self) -> &GuestMemoryAtomic<Memory> {
        &self.connection.memory
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        *self.socket.slot() = None;
    }
}
