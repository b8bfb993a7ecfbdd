// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The store as the daemon sees it: limits, guests, totals.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use thiserror::Error;

use crate::arena::memory::{Arena, SEGMENT_BYTES};
use crate::cold::{ColdConfig, ColdWorker};
use crate::domain::Common;
use crate::engine::Engine;
use crate::fault::Faults;
use crate::guest::{Guest, GuestConfig};
use crate::maintain;
use crate::stats::StoreStats;

/// Address space of the arena per byte of the limit: segments that are partly empty, and room
/// to raise the limit.
const ADDRESS_SPACE: u64 = 4;
/// Least address space of the arena.
const LEAST_ADDRESS_SPACE: u64 = 64 << 30;
/// Most address space of the arena, well inside the 128 TiB of a process.
const MOST_ADDRESS_SPACE: u64 = 16 << 40;

/// Who compacts and recompresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Background {
    /// A thread of the store.
    Thread,
    /// The owner, by calling [`Store::maintain`].
    Manual,
}

/// How a store is set up.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Most physical bytes the store may take, index and overhead included.
    pub memory_limit: u64,
    /// Who compacts and recompresses.
    pub background: Background,
    /// Parts that each guest's keys are spread over, each under its own lock; rounded up to a
    /// power of two of at most 256. The default is 4 for each CPU, between 8 and 64.
    pub shards: usize,
    /// How cold pages are recompressed; `None` leaves them as they are.
    pub cold: Option<ColdConfig>,
    /// Failures on order, for tests.
    pub faults: Faults,
}

impl StoreConfig {
    /// A store of at most `memory_limit` physical bytes, everything else at its default.
    #[must_use]
    pub fn new(memory_limit: u64) -> Self {
        let cpus = available_parallelism().map_or(2, usize::from);
        Self {
            memory_limit,
            background: Background::Thread,
            shards: (cpus * 4).next_power_of_two().clamp(8, 64),
            cold: Some(ColdConfig::default()),
            faults: Faults::default(),
        }
    }
}

/// Why a store could not be made.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The host did not give the memory file.
    #[error("the memory file of the store cannot be made")]
    Memory(#[source] io::Error),
    /// The host did not give the background thread.
    #[error("the background thread of the store cannot be started")]
    Thread(#[source] io::Error),
}

/// A store; clones are handles of the same one.
#[derive(Clone)]
pub struct Store {
    engine: Arc<Engine>,
}

impl Store {
    /// Makes an empty store.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn new(config: StoreConfig) -> Result<Self, StoreError> {
        let bytes = config.memory_limit.saturating_mul(ADDRESS_SPACE);
        let bytes = bytes.clamp(LEAST_ADDRESS_SPACE, MOST_ADDRESS_SPACE);
        let segments = u32::try_from(bytes / SEGMENT_BYTES as u64).unwrap_or(u32::MAX);
        let arena = Arena::new(segments, config.faults.clone()).map_err(StoreError::Memory)?;
        let random = RandomState::new();
        let common = Common {
            arena: Arc::new(arena),
            faults: config.faults,
            seed: [random.hash_one(0), random.hash_one(1)],
            shards: config.shards.clamp(1, 256).next_power_of_two(),
        };
        let engine = Arc::new(Engine::new(common, config.memory_limit, config.cold));
        if config.background == Background::Thread {
            maintain::start(Arc::downgrade(&engine)).map_err(StoreError::Thread)?;
        }
        Ok(Self { engine })
    }

    /// Admits a guest. Names are for statistics and need not be unique.
    #[must_use]
    pub fn register_guest(&self, config: GuestConfig) -> Guest {
        Guest::new(Arc::clone(&self.engine), config)
    }

    /// Changes the limit. A store above its new limit takes nothing until it is below; its
    /// ephemeral pages are dropped as far as needed at once.
    pub fn set_memory_limit(&self, bytes: u64) {
        self.engine.set_memory_limit(bytes);
    }

    /// Compacts all there is to compact, and recompresses pages that are cold at `now`, the time
    /// since some start, until that took `budget`. For [`Background::Manual`]; `now` must not go
    /// back.
    pub fn maintain(&self, now: Duration, budget: Duration) {
        self.engine.compact_all();
        if let Some(mut worker) = ColdWorker::new() {
            self.engine.recompress(&mut worker, now, budget);
        }
    }

    /// Checks everything that must hold between the parts of the store.
    ///
    /// # Errors
    /// A sentence on the first thing that does not hold.
    #[cfg(feature = "check")]
    pub fn check(&self) -> Result<(), String> {
        self.engine.check()
    }

    /// Totals of the store.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        self.engine.store_stats()
    }
}
