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
    pub fn within(mut self, most: u64) -> Self {
        self.most = most;
        self.fit();
        self
    }

    /// Has the store take no more than it may. What guests can count on becomes smaller as the
    /// store does: otherwise all of it could be set aside, and nothing would be left for file pages
    /// that others can have.
    fn fit(&mut self) {
        let wanted = self.memory_limit;
        self.memory_limit = wanted.min(self.most);
        for guest in self.guests.values_mut() {
            let part = u128::from(guest.reservation) * u128::from(self.memory_limit) / u128::from(wanted.max(1));
            guest.reservation = u64::try_from(part).unwrap_or(u64::MAX);
        }
    }

    /// Takes what can change from another configuration.
    pub fn become_of(&mut self, config: &Config, number_of: impl Fn(&str) -> Option<usize>) {
        let numbered = |guest: &GuestConfig| Some((number_of(&guest.name)?, guest.into()));
        self.guests = config.guests.iter().filter_map(numbered).collect();
        self.memory_limit = config.memory_limit;
        self.log_level = config.log_level;
        self.fit();
    }
}

/// A thread for each processor, as far as a few cannot keep up with the memory of the host.
fn default_workers() -> NonZero<u8> {
    let processors = available_parallelism().map_or(1, NonZero::get).min(MOST_WORKERS);
    u8::try_from(processors).ok().and_then(NonZero::new).unwrap_or(NonZero::<u8>::MIN)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_store_that_may_take_less_as_much_is_set_aside_in_proportion() {
        let guest = |reservation: u64| -> GuestSettings {
            let guest = json!({ "name": "", "memory_limit": null, "reservation": reservation, "allow_shared": [] });
            serde_json::from_value(guest).expect("these are settings")
        };
        let settings = Settings {
            memory_limit: 1 << 30,
            most: u64::MAX,
            workers: NonZero::<u8>::MIN,
            log_level: LevelFilter::Info,
            stats_peers: Peers::default(),
            guests: BTreeMap::from([(0, guest(512 << 20)), (1, guest(0))]),
        };
        let fits = settings.clone().within(2 << 30);
        assert_eq!((fits.memory_limit, fits.guests[&0].reservation), (1 << 30, 512 << 20));
        let smaller = settings.within(64 << 20);
        assert_eq!((smaller.memory_limit, smaller.guests[&0].reservation), (64 << 20, 32 << 20));
        assert_eq!(smaller.guests[&1].reservation, 0);
    }
}
