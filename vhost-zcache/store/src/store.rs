// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The store as the daemon sees it: limits, guests, totals.

use std::fs::File;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;
use std::{io, mem};

use parking_lot::Mutex;
use thiserror::Error;

use crate::accounting::Reservation;
use crate::arena::header::Origin;
use crate::arena::memory::{Arena, SEGMENT_BYTES};
use crate::background;
use crate::background::cold::ColdConfig;
use crate::background::{Allowance, Upkeep};
use crate::engine::Engine;
use crate::engine::domain::Common;
use crate::engine::give_back::{Cause, GivenBack};
use crate::engine::recover::{Recovery, Unwatched, Watch};
use crate::fault::Faults;
use crate::guest::{Guest, GuestConfig};
use crate::stats::StoreStats;

/// Address space of the arena per byte of the limit: segments and blocks that are partly empty, and
/// room to raise the limit.
const ADDRESS_SPACE: u64 = 8;
/// Most bytes of the limit for each of a guest's shards, as far as there can be so many: the pages
/// of so much are found in some 100 ms. More shards would be shorter waits, and more memory that is
/// ahead of heaps that grow.
const SHARD_BYTES: u64 = 1 << 30;
/// Least address space of the arena.
const LEAST_ADDRESS_SPACE: u64 = 128 << 30;
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
    /// power of two of at most 256. The default is 4 for each CPU, or one for each GiB of the
    /// limit, between 8 and 64: what a guest has in one shard is what it waits for when the store
    /// is opened again.
    pub shards: usize,
    /// How cold pages are recompressed; `None` leaves them as they are.
    pub cold: Option<ColdConfig>,
    /// What each thread of the store does first, such as to give up what it does not need.
    pub thread_start: fn(),
    /// Failures on order, for tests.
    pub faults: Faults,
}

impl StoreConfig {
    /// A store of at most `memory_limit` physical bytes, everything else at its default.
    #[must_use]
    pub fn new(memory_limit: u64) -> Self {
        let cpus = available_parallelism().map_or(2, usize::from);
        // No limit says nothing of how much there will be.
        let limit = if memory_limit == u64::MAX { 0 } else { memory_limit };
        let by_limit = usize::try_from(limit / SHARD_BYTES).unwrap_or(usize::MAX);
        Self {
            memory_limit,
            background: Background::Thread,
            shards: (cpus * 4).max(by_limit).clamp(8, 64).next_power_of_two(),
            cold: Some(ColdConfig::default()),
            thread_start: || {},
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
    /// The index of a rebuilt store finds no memory.
    #[error("the host has no memory for the index of the store")]
    Rebuild,
    /// The host did not give random numbers.
    #[error("the host gives no random numbers")]
    Seed(#[source] io::Error),
    /// The host did not give the background thread.
    #[error("the background thread of the store cannot be started")]
    Thread(#[source] io::Error),
}

/// What [`Store::reopen`] found.
pub struct Reopened {
    /// The store.
    pub store: Store,
    /// The guests found, with all they had in private pools.
    pub guests: Vec<Guest>,
    /// Their pages, as far as nobody has asked for them.
    pub recovery: Recovery,
}

/// What [`Store::rebuild`] made.
pub struct Rebuilt {
    /// The store.
    pub store: Store,
    /// The guests found, with all they had in private pools.
    pub guests: Vec<Guest>,
    /// Records that were not taken over: damaged ones, and copies of pages that were being moved.
    pub dropped_records: u64,
}

fn shard_count(wanted: usize) -> usize {
    wanted.clamp(1, 256).next_power_of_two()
}

/// A secret that guests cannot guess: with it they could choose keys that are all in one place.
fn random_seed() -> Result<[u64; 2], StoreError> {
    let number = || getrandom::u64().map_err(|error| StoreError::Seed(error.into()));
    Ok([number()?, number()?])
}

/// A store; clones are handles of the same one.
#[derive(Clone)]
pub struct Store {
    engine: Arc<Engine>,
    /// The background, if the owner runs it.
    manual: Option<Arc<Mutex<Upkeep>>>,
}

/// Starts the background thread, or leaves the background to the owner.
fn start(engine: &Arc<Engine>, background: Background, first: fn()) -> Result<Option<Arc<Mutex<Upkeep>>>, StoreError> {
    match background {
        Background::Thread => background::start(engine, first).map(|()| None).map_err(StoreError::Thread),
        Background::Manual => Ok(Some(Arc::new(Mutex::new(Upkeep::new(engine.cold))))),
    }
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
        let common = Common {
            arena: Arc::new(arena),
            wake: Arc::default(),
            faults: config.faults,
            seed: random_seed()?,
            shards: shard_count(config.shards),
            domains: Arc::default(),
        };
        let engine = Arc::new(Engine::new(common, config.memory_limit, config.cold));
        let manual = start(&engine, config.background, config.thread_start)?;
        Ok(Self { engine, manual })
    }

    /// Makes a store of the memory file of another one, whose process has ended or will never
    /// touch it again. Everything is found in the file: guests under their numbers, private
    /// pools, and the pages. Pages of shared pools are dropped. `guests` names the guests that are
    /// found; those the caller has no use for it drops.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn rebuild(
        config: StoreConfig,
        file: File,
        mut guests: impl FnMut(u32) -> GuestConfig,
    ) -> Result<Rebuilt, StoreError> {
        let found = Self::reopen(config, file, |_, number| guests(number), Box::new(Unwatched))?;
        let Reopened { store, guests, recovery } = found;
        match recovery.finish() {
            Ok(dropped_records) => Ok(Rebuilt { store, guests, dropped_records }),
            Err(error) => {
                // What guests have that are dropped is nobody's any more, and this is the next
                // process's.
                mem::forget(guests);
                Err(error)
            }
        }
    }

    /// As [`Store::rebuild`], but the store serves at once: it looks for pages where somebody asks
    /// for them, and for the rest in [`Recovery::finish`], which is to be called. Guests are to
    /// have a part of the store set aside, as by [`Store::reserve`], and some may be more than the
    /// process can bear.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn reopen(
        config: StoreConfig,
        file: File,
        mut guests: impl FnMut(&dyn Fn(u64) -> Arc<Reservation>, u32) -> GuestConfig,
        watch: Box<dyn Watch>,
    ) -> Result<Reopened, StoreError> {
        let arena = Arena::reopen(file, config.faults.clone()).map_err(StoreError::Memory)?;
        let arena = Arc::new(arena);
        // Segments that cannot be made sense of are given back here.
        let segments = Origin::of_all(arena.adopt_all());
        let (seed, shards) = match segments.first() {
            Some((origin, _)) => (origin.label.seed, usize::from(origin.label.shards)),
            None => (random_seed()?, shard_count(config.shards)),
        };
        let common =
            Common { arena, wake: Arc::default(), faults: config.faults, seed, shards, domains: Arc::default() };
        let engine = Arc::new(Engine::new(common, config.memory_limit, config.cold));
        let reserve = |bytes| Arc::new(Reservation::new(&engine.budget, bytes));
        let guests = |number| guests(&reserve, number);
        let recovery = Recovery::begin(&engine, segments, guests, watch, config.thread_start)?;
        let manual = start(&engine, config.background, config.thread_start)?;
        // Nothing fails from here on: what guests have that are dropped is nobody's any more.
        let recovered = |state| Guest::recovered(Arc::clone(&engine), state);
        let guests = recovery.guests().iter().cloned().map(recovered).collect();
        Ok(Reopened { store: Self { engine, manual }, guests, recovery })
    }

    /// The memory file of the arena, from which [`Store::rebuild`] makes the store again in
    /// another process.
    ///
    /// # Errors
    /// When the host has no file descriptor left.
    pub fn memory_file(&self) -> io::Result<File> {
        self.engine.common.arena.file()
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

    /// Gives physical memory back to the host: garbage and holes first, then ephemeral pages of the
    /// guests with most of them for their weight; within reservations when no others are left.
    /// Persistent pages stay: for what is missing guests are asked to take some back that
    /// [ask](Guest::wanted) what they are to. Others are served meanwhile.
    pub fn give_back(&self, bytes: u64) -> GivenBack {
        self.engine.give_back(bytes, Cause::Order)
    }

    /// Gives a part of the ephemeral memory beyond reservations back to a host that is short of
    /// memory, as by [`Store::give_back`], but the pages go that are worth least. Once these are
    /// few, guests are asked for a part of the persistent ones beyond reservations.
    pub fn relieve_host(&self) -> GivenBack {
        self.engine.relieve_host()
    }

    /// One round of the background: gives back what is free, makes room ahead of what grows,
    /// compacts all there is to compact, and recompresses pages that are cold at `now`, the time
    /// since some start, until that took `budget`. For [`Background::Manual`]; `now` must not go
    /// back.
    pub fn maintain(&self, now: Duration, budget: Duration) {
        let Some(upkeep) = &self.manual else { return };
        let mut upkeep = upkeep.lock();
        while self.engine.release_garbage(None, usize::MAX).is_some() {}
        upkeep.round(&self.engine, now, &Allowance { tidying: None, recompression: budget });
    }

    /// Sets a part of the store aside for one guest's persistent pages, until the reservation and
    /// the guests that got it are dropped. More may be reserved than there is; then nobody gets
    /// more than that.
    #[must_use]
    pub fn reserve(&self, bytes: u64) -> Arc<Reservation> {
        Arc::new(Reservation::new(&self.engine.budget, bytes))
    }

    /// Checks everything that must hold between the parts of the store.
    ///
    /// # Errors
    /// A sentence on the first thing that does not hold.
    #[cfg(feature = "check")]
    pub fn check(&self) -> Result<(), String> {
        self.engine.check()
    }

    /// Most records that were removed, moved or spared in one hold of the lock of a shard that is
    /// there, so that tests can tell whether that is bounded.
    #[cfg(feature = "check")]
    #[must_use]
    pub fn longest_hold(&self) -> u64 {
        self.engine.longest_hold()
    }

    /// Totals of the store.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        self.engine.store_stats()
    }
}
