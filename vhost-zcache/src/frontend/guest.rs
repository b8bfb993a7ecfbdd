// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One guest's place in the daemon, which outlives its connections.

use std::sync::{Arc, Mutex, PoisonError};

use zcache_protocol::ID_SIZE;
use zcache_store::{GuestConfig, Store};

use super::log_limit::LogLimit;

use crate::device::config_space::ConfigSpace;
use crate::device::counters::QueueCounters;
use crate::device::session::Session;

/// What all guests of a daemon have in common.
pub struct Host {
    /// The one store.
    pub store: Store,
    /// Queues of each guest's device, 1 to 64.
    pub num_queues: u16,
}

/// What the operator decided for one guest.
#[derive(Debug, Clone)]
pub struct GuestPolicy {
    /// Physical bytes the guest may use; `None` for the store's limit.
    pub memory_limit: Option<u64>,
    /// UUIDs of shared pools the guest may create.
    pub allow_shared: Vec<[u8; ID_SIZE]>,
}

/// One socket, and the guest that connects to it.
pub struct GuestSocket {
    name: String,
    host: Arc<Host>,
    policy: GuestPolicy,
    queues: Vec<Arc<QueueCounters>>,
    connected: Mutex<Option<Arc<Session>>>,
    log_limit: Arc<LogLimit>,
}

impl GuestSocket {
    /// A guest that is not connected.
    #[must_use]
    pub fn new(name: String, host: Arc<Host>, policy: GuestPolicy) -> Self {
        let queues = (0..host.num_queues).map(|_| Arc::default()).collect();
        Self { name, host, policy, queues, connected: Mutex::new(None), log_limit: Arc::default() }
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

    /// Limits what this guest can write to the log.
    #[must_use]
    pub fn log_limit(&self) -> &Arc<LogLimit> {
        &self.log_limit
    }

    /// The session of the connection there is.
    #[must_use]
    pub fn session(&self) -> Option<Arc<Session>> {
        self.slot().clone()
    }

    /// Gives a new connection its part of the store.
    #[must_use]
    pub fn connect(&self) -> Connected<'_> {
        let mut config = GuestConfig::new(self.name.as_str());
        config.memory_limit = self.policy.memory_limit;
        let guest = self.host.store.register_guest(config);
        let session = Arc::new(Session::new(guest, self.policy.allow_shared.clone()));
        *self.slot() = Some(Arc::clone(&session));
        Connected { socket: self, session }
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Arc<Session>>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A guest while it is connected.
pub struct Connected<'a> {
    socket: &'a GuestSocket,
    session: Arc<Session>,
}

impl Connected<'_> {
    /// The connection's session.
    #[must_use]
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        *self.socket.slot() = None;
    }
}
