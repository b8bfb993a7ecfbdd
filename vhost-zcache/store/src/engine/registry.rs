// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Who is there: guests, and the pools they share.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use super::domain::Domain;
use super::guest_state::{GuestState, Pools};
use super::shared::{Shared, SharedName};
use super::take_back::TakeBack;
use super::victim::GuestWeight;
use super::{EPHEMERAL, Engine, PERSISTENT};
use crate::accounting::{Account, Charge, Reservation, Use};
use crate::guest::GuestConfig;
use crate::pool::PoolKind;

/// The guests of a store, and its shared pools.
pub(crate) struct Registry {
    guests: Mutex<BTreeMap<u32, Arc<GuestState>>>,
    next_guest: AtomicU32,
    shared: Mutex<HashMap<SharedName, Weak<Shared>>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { guests: Mutex::default(), next_guest: AtomicU32::new(1), shared: Mutex::default() }
    }
}

impl Registry {
    fn guests_map(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<GuestState>>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shared pools by name. Whoever joins or leaves one holds this, so that a pool cannot end
    /// while somebody joins.
    pub(super) fn shared(&self) -> MutexGuard<'_, HashMap<SharedName, Weak<Shared>>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All guests, in the order in which they came.
    pub(crate) fn guests(&self) -> Vec<Arc<GuestState>> {
        self.guests_map().values().cloned().collect()
    }

    /// A number that no guest has had.
    fn new_number(&self) -> u32 {
        self.next_guest.fetch_add(1, Relaxed)
    }

    /// Lets a guest in.
    pub(super) fn add(&self, guest: &Arc<GuestState>) {
        self.next_guest.fetch_max(guest.number.saturating_add(1), Relaxed);
        self.guests_map().insert(guest.number, Arc::clone(guest));
    }

    fn remove(&self, guest: &GuestState) {
        self.guests_map().remove(&guest.number);
    }

    /// Every domain of the store, shared ones once.
    pub(crate) fn domains(&self) -> Vec<Arc<Domain>> {
        let own = self.guests();
        let mut domains: Vec<Arc<Domain>> = own.iter().filter_map(|guest| guest.domain.get().cloned()).collect();
        let shared = self.shared();
        domains.extend(shared.values().filter_map(Weak::upgrade).map(|pool| Arc::clone(&pool.domain)));
        domains
    }
}

impl Engine {
    /// Lets a guest in, under a number that no other has.
    pub(crate) fn register(&self, config: GuestConfig) -> Arc<GuestState> {
        let guest = self.guest_state(self.registry.new_number(), config);
        self.registry.add(&guest);
        guest
    }

    /// A guest without pools; it has to be added to be found.
    pub(super) fn guest_state(&self, number: u32, config: GuestConfig) -> Arc<GuestState> {
        let reservation = config.reservation.unwrap_or_else(|| Arc::new(Reservation::none(&self.budget)));
        let account = Arc::new(Account::new(config.memory_limit, reservation));
        let base = Charge::none(Arc::clone(&account), Use::Kept);
        Arc::new(GuestState {
            number,
            name: config.name,
            account,
            weight: GuestWeight::new(config.weight),
            frozen: AtomicBool::new(config.frozen),
            take_back: TakeBack::default(),
            trust_domain: config.trust_domain,
            pools: Mutex::new(Pools::new(base)),
            domain: OnceLock::new(),
        })
    }

    /// The domain of a guest's own pools, with its two heaps.
    pub(super) fn own_domain(&self, guest: &GuestState) -> Arc<Domain> {
        let domain = Domain::new(&self.common, true);
        // In the order of their numbers.
        const { assert!(PERSISTENT == 0 && EPHEMERAL == 1) };
        domain.add_heap(&guest.account, Use::Kept, guest.number);
        domain.add_heap(&guest.account, Use::Evictable, guest.number);
        Arc::new(domain)
    }

    /// Lets a guest go. Nobody finds its pages from then on; their memory follows in the
    /// background.
    pub(crate) fn unregister(&self, guest: &GuestState) {
        self.destroy_pools(guest, PoolKind::is_shared);
        let mut pools = guest.pools();
        pools.entries.clear();
        if let Some(roster) = pools.roster.take() {
            roster.end();
        }
        if let Some(domain) = guest.domain.get() {
            self.garbage.add(guest.number, domain.detach());
        }
        let base = pools.base.bytes();
        pools.base.shrink(base);
        drop(pools);
        self.registry.remove(guest);
        self.common.wake.rouse();
    }
}
