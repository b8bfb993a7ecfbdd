// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The parts of the daemon's statistics that tests look at.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The document of the daemon's statistics socket.
#[derive(Debug, Clone, Deserialize)]
pub struct DaemonStats {
    /// All guests together.
    pub store: StoreStats,
    /// One entry for each socket, in the order of the command line.
    pub guests: Vec<GuestStats>,
}

/// The store as a whole.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct StoreStats {
    /// Host memory charged to the guests.
    pub physical_bytes: u64,
    /// The most that may be.
    pub memory_limit: u64,
    /// Pages held.
    pub pages: u64,
    /// Bytes of guest pages held per physical byte.
    pub ratio: f64,
}

/// One guest.
#[derive(Debug, Clone, Deserialize)]
pub struct GuestStats {
    /// A VMM is connected.
    pub connected: bool,
    /// The driver has opened a session.
    pub session: bool,
    /// Host memory charged to this guest.
    pub physical_bytes: u64,
    /// Pages held.
    pub pages: u64,
    /// Persistent pages that it is asked to take back.
    pub wanted_pages: u64,
    /// Persistent pages that it let go of while it was.
    pub taken_back_pages: u64,
    /// Answers by operation and status.
    pub requests: BTreeMap<String, BTreeMap<String, u64>>,
    /// Its pools.
    pub pools: Vec<PoolStats>,
}

/// One pool of one guest.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct PoolStats {
    /// The driver's number of it.
    pub id: u32,
    /// `ephemeral`, `persistent` or `shared`.
    pub kind: String,
    /// Of a shared pool.
    pub uuid: Option<String>,
    /// Pages held.
    pub pages: u64,
    /// Puts, refused ones included.
    pub puts: u64,
    /// Gets.
    pub gets: u64,
    /// Gets that delivered the page.
    pub hits: u64,
    /// Pages dropped to make room.
    pub evicted: u64,
}

impl GuestStats {
    /// How often `operation` was answered with `status`.
    #[must_use]
    pub fn answers(&self, operation: &str, status: &str) -> u64 {
        self.requests.get(operation).and_then(|row| row.get(status)).copied().unwrap_or(0)
    }

    /// How many pools of this kind there are.
    #[must_use]
    pub fn pools_of(&self, kind: &str) -> usize {
        self.pools.iter().filter(|pool| pool.kind == kind).count()
    }
}
