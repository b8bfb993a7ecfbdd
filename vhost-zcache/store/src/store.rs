// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The store as the daemon sees it: limits, guests, totals.

use std::io;
use std::sync::Arc;

use thiserror::Error;

use crate::guest::{Guest, GuestConfig};
use crate::simple::Engine;
use crate::stats::StoreStats;

/// How a store is set up.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Most physical bytes the store may take, index and overhead included.
    pub memory_limit: u64,
}

impl StoreConfig {
    /// A store of at most `memory_limit` physical bytes, everything else at its default.
    #[must_use]
    pub fn new(memory_limit: u64) -> Self {
        Self { memory_limit }
    }
}

/// Why a store could not be made.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The host did not give the memory file.
    #[error("the memory file of the store cannot be made")]
    Memory(#[from] io::Error),
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
    /// [`StoreError::Memory`] when the host does not give the memory file.
    pub fn new(config: StoreConfig) -> Result<Self, StoreError> {
        Ok(Self { engine: Arc::new(Engine::new(config.memory_limit)) })
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

    /// Totals of the store.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        self.engine.store_stats()
    }
}
