// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest's capability to the store.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::accounting::Reservation;
use crate::codec::{Scratch, StoredPage};
use crate::engine::Engine;
use crate::engine::export::Export;
use crate::engine::guest_state::GuestState;
use crate::engine::import::ImportError;
use crate::engine::take_back::Wanted;
use crate::engine::victim::Weight;
use crate::key::{Key, ObjectId, Page, PoolId};
use crate::op::{GetError, GetMode, PutError};
use crate::pool::{Creation, NoPool, PoolError, PoolKind};
use crate::stats::GuestStats;

/// How a guest is registered.
#[derive(Clone, Debug)]
pub struct GuestConfig {
    /// Name for statistics.
    pub name: String,
    /// Most physical bytes charged to the guest, index and overhead included; `None` leaves
    /// only the store's limit.
    pub memory_limit: Option<u64>,
    /// What it can count on for its persistent pages, from
    /// [`Store::reserve`](crate::Store::reserve).
    pub reservation: Option<Arc<Reservation>>,
    /// How much ephemeral memory it is to have beside others.
    pub weight: Weight,
    /// Nothing new is stored for it.
    pub frozen: bool,
    /// The shared pools that it may share are those of guests with the same name here.
    pub trust_domain: Arc<str>,
}

impl GuestConfig {
    /// A guest without a limit of its own.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            memory_limit: None,
            reservation: None,
            weight: Weight::default(),
            frozen: false,
            trust_domain: "default".into(),
        }
    }
}

/// One guest's access to the store. Dropping it removes everything it had, at once; the memory
/// follows in the background. Share it between threads in an `Arc`.
pub struct Guest {
    engine: Arc<Engine>,
    state: Arc<GuestState>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.engine.unregister(&self.state);
    }
}

impl Guest {
    pub(crate) fn new(engine: Arc<Engine>, config: GuestConfig) -> Self {
        let state = engine.register(config);
        Self { engine, state }
    }

    pub(crate) fn recovered(engine: Arc<Engine>, state: Arc<GuestState>) -> Self {
        Self { engine, state }
    }

    /// The guest's number within the store, under which [`Store::rebuild`](crate::Store::rebuild)
    /// finds it again.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.state.number
    }

    /// With whom it shares pools.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.state.trust_domain
    }

    /// Makes a pool, or joins a shared one.
    ///
    /// # Errors
    /// See [`PoolError`].
    pub fn create_pool(&self, pool: PoolId, kind: PoolKind) -> Result<Creation, PoolError> {
        self.engine.create_pool(&self.state, pool, kind)
    }

    /// Removes a pool and returns the number of pages freed. From a shared pool only this
    /// guest and its pages leave; the pool goes with its last member.
    ///
    /// # Errors
    /// [`NoPool`] when there is none.
    pub fn destroy_pool(&self, pool: PoolId) -> Result<u64, NoPool> {
        self.engine.destroy_pool(&self.state, pool)
    }

    /// Removes all pools but the persistent ones, and returns the number of pages freed.
    pub fn destroy_ephemeral_pools(&self) -> u64 {
        self.engine.destroy_pools(&self.state, PoolKind::is_ephemeral)
    }

    /// Removes all pools, and returns the number of pages freed.
    pub fn reset(&self) -> u64 {
        self.engine.destroy_pools(&self.state, |_| true)
    }

    /// Whether the guest has a pool of that number.
    #[must_use]
    pub fn has_pool(&self, pool: PoolId) -> bool {
        self.state.entry(pool).is_ok()
    }

    /// The guest's pools.
    #[must_use]
    pub fn pools(&self) -> Vec<(PoolId, PoolKind)> {
        self.state.pools().entries.iter().map(|(id, entry)| (*id, entry.kind())).collect()
    }

    /// Goes through the pages of one of the guest's own pools, as they are stored.
    ///
    /// # Errors
    /// [`NoPool`] when the guest has no such pool of its own.
    pub fn export(&self, pool: PoolId) -> Result<Export, NoPool> {
        Export::new(&self.state, pool)
    }

    /// Stores a page as another store has exported it, replacing an older one of that key.
    ///
    /// # Errors
    /// See [`ImportError`].
    pub fn import(&self, scratch: &mut Scratch, key: &Key, page: StoredPage<'_>) -> Result<(), ImportError> {
        self.engine.import(&self.state, scratch, key, page)
    }

    /// Changes the guest's limit. A guest above its new limit gets nothing stored until it is
    /// below; its ephemeral pages are dropped as far as needed at once.
    pub fn set_memory_limit(&self, bytes: Option<u64>) {
        self.engine.set_guest_limit(&self.state, bytes);
    }

    /// Changes what the guest can count on for its persistent pages, in place of what it was
    /// registered with. What it keeps already stays.
    pub fn set_reservation(&self, reservation: Arc<Reservation>) {
        self.state.account.set_reservation(reservation);
    }

    /// Changes how much ephemeral memory the guest is to have beside others, from the next time on
    /// that memory is short.
    pub fn set_weight(&self, weight: Weight) {
        self.state.weight.set(weight);
    }

    /// Whether nothing new is stored for the guest. What it has, it can get and flush as ever; a
    /// put is refused, and the key holds nothing.
    pub fn set_frozen(&self, frozen: bool) {
        self.state.frozen.store(frozen, Relaxed);
    }

    /// Stores a page, replacing an older one of that key.
    ///
    /// # Errors
    /// See [`PutError`]. After a refusal the key holds nothing.
    pub fn put(&self, scratch: &mut Scratch, key: &Key, page: &Page) -> Result<(), PutError> {
        self.engine.put(&self.state, scratch, key, page)
    }

    /// Fetches a page.
    ///
    /// # Errors
    /// See [`GetError`].
    pub fn get(&self, scratch: &mut Scratch, key: &Key, mode: GetMode, page: &mut Page) -> Result<(), GetError> {
        self.engine.get(&self.state, scratch, key, mode, page)
    }

    /// Removes one page; returns how many there were, 0 or 1.
    ///
    /// # Errors
    /// [`NoPool`] when the guest has no such pool; so for all flushes.
    pub fn flush_page(&self, key: &Key) -> Result<u64, NoPool> {
        self.engine.flush_page(&self.state, key)
    }

    /// Removes the pages `first..first + count` of an object, and returns how many there were.
    /// A range past the last index ends there. Costs by the pages held, not by `count`.
    ///
    /// # Errors
    /// [`NoPool`] when the guest has no such pool.
    pub fn flush_range(&self, pool: PoolId, object: &ObjectId, first: u64, count: u64) -> Result<u64, NoPool> {
        let Some(more) = count.checked_sub(1) else {
            return self.state.entry(pool).map(|_| 0);
        };
        self.engine.flush_range(&self.state, pool, object, first, first.saturating_add(more))
    }

    /// Removes all pages of an object, and returns how many there were.
    ///
    /// # Errors
    /// [`NoPool`] when the guest has no such pool.
    pub fn flush_object(&self, pool: PoolId, object: &ObjectId) -> Result<u64, NoPool> {
        self.engine.flush_range(&self.state, pool, object, 0, u64::MAX)
    }

    /// Removes all pages of a pool (of a shared one: everybody's), and returns how many there
    /// were. The pool stays.
    ///
    /// # Errors
    /// [`NoPool`] when the guest has no such pool.
    pub fn flush_pool(&self, pool: PoolId) -> Result<u64, NoPool> {
        self.engine.flush_pool(&self.state, pool)
    }

    /// What the guest is to take back of its persistent pages, and when it is to ask again. From
    /// the first time on it counts as one that does, for as long as it asks.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        self.engine.wanted_of(&self.state)
    }

    /// What the guest has and did.
    #[must_use]
    pub fn stats(&self) -> GuestStats {
        self.engine.guest_stats(&self.state)
    }
}
