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
    /// Those of a configuration whose guests have numbers, with a store that never takes more than
    /// `most` bytes.
    #[must_use]
    pub fn new(config: &Config, number_of: impl Fn(&str) -> Option<usize>, most: u64) -> Self {
        let mut settings = Self {
            memory_limit: 0,
            most,
            workers: config.workers.unwrap_or_else(default_workers),
            log_level: config.log_level,
            stats_peers: config.stats_socket.as_ref().map(|socket| socket.peers.clone()).unwrap_or_default(),
            guests: BTreeMap::new(),
        };
        settings.become_of(config, number_of);
        settings
    }

    /// Takes what can change from another configuration. The store takes no more than it may, and
    /// what guests can count on becomes smaller as it does, in proportion to what the configuration
    /// says: otherwise all of it could be set aside, and nothing would be left for file pages that
    /// others can have.
    pub fn become_of(&mut self, config: &Config, number_of: impl Fn(&str) -> Option<usize>) {
        let wanted = config.memory_limit;
        self.memory_limit = wanted.min(self.most);
        self.log_level = config.log_level;
        let part = |bytes: u64| {
            let part = u128::from(bytes) * u128::from(self.memory_limit) / u128::from(wanted.max(1));
            u64::try_from(part).unwrap_or(u64::MAX)
        };
        let numbered = |guest: &GuestConfig| {
            let reservation = part(guest.reservation);
            Some((number_of(&guest.name)?, GuestSettings { reservation, ..guest.into() }))
        };
        self.guests = config.guests.iter().filter_map(numbered).collect();
    }
}

/// A thread for each processor, as far as a few cannot keep up with the memory of the host.
fn default_workers() -> NonZero<u8> {
    let processors = available_parallelism().map_or(1, NonZero::get).min(MOST_WORKERS);
    u8::try_from(processors).ok().and_then(NonZero::new).unwrap_or(NonZero::<u8>::MIN)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Args;
    use crate::config::load;

    /// A store and its guests' reservations, as the command line says.
    fn config(store: &str, reservations: &[&str]) -> Config {
        let guests = reservations.iter().enumerate();
        let guests = guests
            .flat_map(|(number, bytes)| ["--socket-path".to_owned(), format!("/run/{number},reservation={bytes}")]);
        let arguments = ["vhost-zcache", "--memory-limit", store].map(str::to_owned).into_iter().chain(guests);
        load(&Args::try_parse_from(arguments).expect("a command line")).expect("a configuration").0
    }

    /// The store, and what is set aside.
    fn bytes(settings: &Settings) -> (u64, Vec<u64>) {
        (settings.memory_limit, settings.guests.values().map(|guest| guest.reservation).collect())
    }

    #[test]
    fn of_a_store_that_may_take_less_as_much_is_set_aside_in_proportion() {
        let number_of = |name: &str| name.strip_prefix("/run/")?.parse().ok();
        let asked = config("1G", &["512M", "128M"]);
        let fits = Settings::new(&asked, number_of, 2 << 30);
        assert_eq!(bytes(&fits), (1 << 30, vec![512 << 20, 128 << 20]));
        let mut smaller = Settings::new(&asked, number_of, 64 << 20);
        let less = (64 << 20, vec![32 << 20, 8 << 20]);
        assert_eq!(bytes(&smaller), less);
        smaller.become_of(&asked, number_of);
        assert_eq!(bytes(&smaller), less, "it is of what was asked for, and not of what was left");
        smaller.become_of(&config("32M", &["16M", "8M"]), number_of);
        assert_eq!(bytes(&smaller), (32 << 20, vec![16 << 20, 8 << 20]), "a store that fits");
    }
}
