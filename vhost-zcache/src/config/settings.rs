// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The worker's part of a configuration. It gets all of it at its start, and again when something
//! has changed.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::thread::available_parallelism;

use log::LevelFilter;
use serde::{Deserialize, Serialize};

use super::{Config, GuestConfig};
use crate::access::Peers;
use crate::args::{GuestWeight, PoolUuid, TrustDomain};

/// Most threads that serve queues, if the operator does not say.
const MOST_WORKERS: usize = 16;

/// What a worker goes by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Physical bytes of the store.
    pub memory_limit: u64,
    /// The most that may be, whatever the configuration says.
    most: u64,
    /// Threads that serve queues. It stays.
    pub workers: NonZero<u8>,
    /// How much is logged.
    pub log_level: LevelFilter,
    /// Who may read statistics. It stays.
    pub stats_peers: Peers,
    /// The guests, by their numbers.
    pub guests: BTreeMap<usize, GuestSettings>,
}

/// What it goes by for one guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestSettings {
    /// By what it is known.
    pub name: String,
    /// Physical bytes it may use, if that is less than the store's.
    pub memory_limit: Option<u64>,
    /// Bytes it can count on for its persistent pages.
    pub reservation: u64,
    /// Its part of the memory for ephemeral pages, beside others'.
    #[serde(default)]
    pub weight: GuestWeight,
    /// Nothing new is stored for it.
    #[serde(default)]
    pub frozen: bool,
    /// Shared pools it may join.
    pub allow_shared: Vec<PoolUuid>,
    /// With whom it shares these.
    #[serde(default)]
    pub trust_domain: TrustDomain,
}

impl From<&GuestConfig> for GuestSettings {
    fn from(guest: &GuestConfig) -> Self {
        Self {
            name: guest.name.clone(),
            memory_limit: guest.memory_limit,
            reservation: guest.reservation,
            weight: guest.weight,
            frozen: guest.frozen,
            allow_shared: guest.allow_shared.clone(),
            trust_domain: guest.trust_domain.clone(),
        }
    }
}

impl Settings {
    /// Those of a configuration whose guests have numbers.
    #[must_use]
    pub fn new(config: &Config, number_of: impl Fn(&str) -> Option<usize>) -> Self {
        let mut settings = Self {
            memory_limit: config.memory_limit,
            most: u64::MAX,
            workers: config.workers.unwrap_or_else(default_workers),
            log_level: config.log_level,
            stats_peers: config.stats_socket.as_ref().map(|socket| socket.peers.clone()).unwrap_or_default(),
            guests: BTreeMap::new(),
        };
        settings.become_of(config, number_of);
        settings
    }

    /// The same, with a store that never takes more than so many bytes.
    #[must_use]
    pub fn within(self, most: u64) -> Self {
        Self { memory_limit: self.memory_limit.min(most), most, ..self }
    }

    /// Takes what can change from another configuration.
    pub fn become_of(&mut self, config: &Config, number_of: impl Fn(&str) -> Option<usize>) {
        let numbered = |guest: &GuestConfig| Some((number_of(&guest.name)?, guest.into()));
        self.guests = config.guests.iter().filter_map(numbered).collect();
        self.memory_limit = config.memory_limit.min(self.most);
        self.log_level = config.log_level;
    }
}

/// A thread for each processor, as far as a few cannot keep up with the memory of the host.
fn default_workers() -> NonZero<u8> {
    let processors = available_parallelism().map_or(1, NonZero::get).min(MOST_WORKERS);
    u8::try_from(processors).ok().and_then(NonZero::new).unwrap_or(NonZero::<u8>::MIN)
}
