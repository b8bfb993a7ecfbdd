// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guests and their pools over the shards, and where room comes from when there is none.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use crate::accounting::{Account, Budget, Charge, Use};
use crate::arena::memory::HOST_PAGE;
use crate::arena::record::PayloadSum;
use crate::codec::Scratch;
use crate::cold::ColdConfig;
use crate::domain::{Common, Domain, Shared};
use crate::evict::Policy;
use crate::key::{Key, ObjectId, PAGE_SIZE, Page, PoolId};
use crate::op::{GetError, GetMode, PutError};
use crate::pool::{Creation, MAX_POOLS_PER_GUEST, NoPool, PoolError, PoolKind};
use crate::room::Effort;
use crate::shard::{NewPage, PageKey, PoolRef, PoolShard};
use crate::state::{Entry, GuestState, Pools};
use crate::stats::{Contents, Counters, GuestStats, PoolStats, StoreStats};

/// Charged for each shard of each domain a guest uses: lock, tables and list heads.
pub(crate) const SHARD_OVERHEAD: u64 = HOST_PAGE as u64;
/// Times that room is made for one put before it is refused.
const ATTEMPTS: usize = 4;
/// Heap number of a guest's persistent pages in its own domain.
pub(crate) const PERSISTENT: usize = 0;
/// Heap number of a guest's ephemeral pages in its own domain.
pub(crate) const EPHEMERAL: usize = 1;

pub(crate) struct Engine {
    pub(crate) common: Common,
    pub(crate) budget: Arc<Budget>,
    pub(crate) guests: Mutex<BTreeMap<u32, Arc<GuestState>>>,
    pub(crate) next_guest: AtomicU32,
    pub(crate) guest_count: AtomicU32,
    pub(crate) shared: Mutex<HashMap<[u8; 16], Weak<Shared>>>,
    /// Coarse time, for finding cold pages.
    pub(crate) epoch: AtomicU8,
    pub(crate) cold: Option<ColdConfig>,
}

impl Engine {
    pub(crate) fn new(common: Common, memory_limit: u64, cold: Option<ColdConfig>) -> Self {
        Self {
            common,
            budget: Arc::new(Budget::new(memory_limit)),
            guests: Mutex::default(),
            next_guest: AtomicU32::new(1),
            guest_count: AtomicU32::new(0),
            shared: Mutex::default(),
            epoch: AtomicU8::new(0),
            cold,
        }
    }

    pub(crate) fn guests_map(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<GuestState>>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn guests(&self) -> Vec<Arc<GuestState>> {
        self.guests_map().values().cloned().collect()
    }

    pub(crate) fn register(&self, name: String, limit: Option<u64>) -> Arc<GuestState> {
        let number = self.next_guest.fetch_add(1, Relaxed);
        let guest = self.guest_state(number, name, limit);
        self.guests_map().insert(number, Arc::clone(&guest));
        self.guest_count.fetch_add(1, Relaxed);
        guest
    }

    pub(crate) fn guest_state(&self, number: u32, name: String, limit: Option<u64>) -> Arc<GuestState> {
        let account = Arc::new(Account::new(limit, Arc::clone(&self.budget)));
        let base = Charge::none(Arc::clone(&account), Use::Kept);
        Arc::new(GuestState {
            number,
            name,
            account,
            pools: Mutex::new(Pools { entries: BTreeMap::new(), base }),
            domain: OnceLock::new(),
        })
    }

    pub(crate) fn own_domain(&self, guest: &GuestState) -> Domain {
        let domain = Domain::new(&self.common, true);
        // PERSISTENT and EPHEMERAL, in this order.
        domain.add_heap(&guest.account, Use::Kept, guest.number);
        domain.add_heap(&guest.account, Use::Evictable, guest.number);
        domain
    }

    pub(crate) fn unregister(&self, guest: &GuestState) {
        self.destroy_pools(guest, |_| true);
        self.guests_map().remove(&guest.number);
        self.guest_count.fetch_sub(1, Relaxed);
        // The maintenance thread may hold the guest a little longer; its memory goes now.
        if let Some(domain) = guest.domain.get() {
            domain.clear(&self.common);
        }
        let mut pools = guest.pools();
        let bytes = pools.base.bytes();
        pools.base.shrink(bytes);
    }

    pub(crate) fn set_memory_limit(&self, bytes: u64) {
        self.budget.set_limit(bytes);
        while self.budget.is_exceeded() && self.reclaim_from_largest(&mut Effort::unlimited()) {}
    }

    pub(crate) fn set_guest_limit(&self, guest: &GuestState, bytes: Option<u64>) {
        guest.account.own().set_limit(bytes.unwrap_or(u64::MAX));
        while guest.account.own().is_exceeded() && self.reclaim(guest, &mut Effort::unlimited()) {}
    }

    pub(crate) fn create_pool(&self, guest: &GuestState, id: PoolId, kind: PoolKind) -> Result<Creation, PoolError> {
        let mut pools = guest.pools();
        if let Some(entry) = pools.entries.get(&id) {
            let same = entry.kind() == kind;
            return if same { Ok(Creation::AlreadySame) } else { Err(PoolError::Exists) };
        }
        // Two ids for one pool would let a flush through one be missed by a put through the other.
        let shared = matches!(kind, PoolKind::SharedEphemeral(_));
        if shared && pools.entries.values().any(|entry| entry.kind() == kind) {
            return Err(PoolError::Exists);
        }
        if pools.entries.len() >= MAX_POOLS_PER_GUEST {
            return Err(PoolError::TooMany);
        }
        let shards_cost = self.common.shards as u64 * SHARD_OVERHEAD;
        let is_new = guest.domain.get().is_none();
        let cost = shards_cost * (u64::from(is_new) + u64::from(shared));
        pools.base.grow(cost).map_err(|_| PoolError::NoMemory)?;
        let domain = guest.domain.get_or_init(|| self.own_domain(guest));
        let (entry, reference) = match kind {
            PoolKind::SharedEphemeral(uuid) => {
                let (pool, heap) = self.join(uuid, guest);
                (Entry::Shared(Arc::clone(&pool)), PoolRef::Shared { pool, heap })
            }
            PoolKind::Ephemeral | PoolKind::Persistent => {
                let used = |slot: &usize| {
                    pools.entries.values().any(|entry| matches!(entry, Entry::Own { slot: other, .. } if other == slot))
                };
                let slot = (0..MAX_POOLS_PER_GUEST).find(|slot| !used(slot));
                let slot = slot.ok_or(PoolError::TooMany)?;
                domain.add_pool(slot, id.0);
                let heap = if kind.is_ephemeral() { EPHEMERAL } else { PERSISTENT };
                (Entry::Own { slot, kind }, PoolRef::Own { pool: slot, heap })
            }
        };
        domain.name_pool(id, &reference);
        pools.entries.insert(id, entry);
        Ok(Creation::Created)
    }

    fn join(&self, uuid: [u8; 16], guest: &GuestState) -> (Arc<Shared>, usize) {
        // Held until the guest is a member, so that the pool cannot end in between.
        let mut known = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = known.get(&uuid).and_then(Weak::upgrade).unwrap_or_else(|| {
            let pool = Arc::new(Shared::new(&self.common, uuid));
            known.insert(uuid, Arc::downgrade(&pool));
            pool
        });
        let heap = pool.join(guest.number, &guest.account);
        (pool, heap)
    }

    pub(crate) fn destroy_pool(&self, guest: &GuestState, id: PoolId) -> Result<u64, NoPool> {
        let mut pools = guest.pools();
        let entry = pools.entries.remove(&id).ok_or(NoPool)?;
        let domain = guest.domain()?;
        for mut shard in domain.each() {
            if let Ok(at) = shard.names.binary_search_by_key(&id, |(id, _)| *id) {
                shard.names.remove(at);
            }
        }
        match entry {
            Entry::Own { slot, .. } => {
                let pages = domain.clear_pool(slot, |_, _| {});
                for mut shard in domain.each() {
                    shard.pools[slot] = None;
                }
                Ok(pages)
            }
            Entry::Shared(shared) => {
                let mut known = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
                let (pages, last) = shared.leave(guest.number);
                if last {
                    known.remove(&shared.uuid);
                }
                pools.base.shrink(self.common.shards as u64 * SHARD_OVERHEAD);
                Ok(pages)
            }
        }
    }

    pub(crate) fn destroy_pools(&self, guest: &GuestState, which: impl Fn(PoolKind) -> bool) -> u64 {
        let ids: Vec<PoolId> = {
            let pools = guest.pools();
            pools.entries.iter().filter(|(_, e)| which(e.kind())).map(|(id, _)| *id).collect()
        };
        ids.into_iter().filter_map(|id| self.destroy_pool(guest, id).ok()).sum()
    }

    pub(crate) fn put(
        &self,
        guest: &GuestState,
        scratch: &mut Scratch,
        key: &Key,
        page: &Page,
    ) -> Result<(), PutError> {
        let spot = guest.spot(key)?;
        // Encoding takes longer than the memory to come.
        spot.prefetch();
        let (codec, bytes) = scratch.encode(page);
        let sum = PayloadSum::new(bytes);
        let epoch = self.epoch.load(Relaxed);
        let mut new = NewPage { codec, bytes, sum, epoch, proven: false, may_evict: false };
        let mut attempt = 0;
        let mut effort = Effort::of_a_put();
        loop {
            attempt += 1;
            let last = attempt == ATTEMPTS;
            let outcome = guest.at_spot(&spot, |shard, heap, key| {
                new.may_evict = last || self.may_evict(guest, shard, heap);
                let outcome = shard.put(heap, key, &mut new);
                let counters = &mut shard.pool_mut(key.pool).counters;
                counters.puts += u64::from(attempt == 1);
                if let (Err(refusal), true) = (outcome, last) {
                    counters.refused.count(refusal);
                }
                outcome
            })?;
            let Err(refusal) = outcome else { return Ok(()) };
            if last {
                return Err(PutError::Refused(refusal));
            }
            if !self.make_room(guest, refusal, &mut effort) {
                // Straight to the last attempt, which counts the refusal.
                attempt = ATTEMPTS - 1;
            }
        }
    }

    pub(crate) fn get(
        &self,
        guest: &GuestState,
        scratch: &mut Scratch,
        key: &Key,
        mode: GetMode,
        page: &mut Page,
    ) -> Result<(), GetError> {
        let epoch = self.epoch.load(Relaxed);
        let (found, evictable) = guest.at_page(key, |shard, heap, key| {
            let evictable = shard.space.heap(heap).purpose == Use::Evictable;
            if mode == GetMode::Exclusive && !evictable {
                return Err(GetError::ExclusivePersistent);
            }
            let found = shard.get(heap, key, mode, epoch, &mut scratch.stored);
            let counters = &mut shard.pool_mut(key.pool).counters;
            counters.gets += 1;
            counters.hits += u64::from(found.is_some());
            Ok((found, evictable))
        })??;
        let (head, name) = found.ok_or(GetError::Miss)?;
        let length = head.length();
        let stored = scratch.stored.get(..length).unwrap_or_default();
        let intact = PayloadSum::new(stored).finish(head, name) == head.checksum()
            && scratch.decode(head.codec(), length, page).is_ok();
        if intact {
            return Ok(());
        }
        guest.at_page(key, |shard, _, key| {
            let counters = &mut shard.pool_mut(key.pool).counters;
            counters.hits -= 1;
            counters.corrupt += 1;
            if evictable {
                shard.remove_exact(key, name);
            }
        })?;
        if evictable { Err(GetError::Miss) } else { Err(GetError::Corrupt) }
    }

    pub(crate) fn flush_range(
        &self,
        guest: &GuestState,
        id: PoolId,
        object: &ObjectId,
        first: u64,
        last: u64,
    ) -> Result<u64, NoPool> {
        const BATCH: u64 = 512;
        guest.at_pool(id, |domain, pool, hashed| {
            let hash = domain.hash(hashed, object);
            let mut total = 0;
            for number in domain.shards_of(hash, first, last) {
                let mut from = Some(first);
                while let Some(index) = from {
                    let key = PageKey { pool, hash, object, index };
                    let mut shard = domain.lock(number);
                    let (removed, next) = shard.remove_range(&key, last, BATCH);
                    if let Some(Some(pool)) = shard.pools.get_mut(pool) {
                        pool.counters.flushed += removed;
                    }
                    total += removed;
                    from = next;
                }
            }
            total
        })
    }

    pub(crate) fn flush_page(&self, guest: &GuestState, key: &Key) -> Result<u64, NoPool> {
        guest.at_page(key, |shard, _, key| {
            let (removed, _) = shard.remove_range(key, key.index, 1);
            shard.pool_mut(key.pool).counters.flushed += removed;
            removed
        })
    }

    pub(crate) fn flush_pool(&self, guest: &GuestState, id: PoolId) -> Result<u64, NoPool> {
        let count = |pool: &mut PoolShard, pages| pool.counters.flushed += pages;
        guest.at_pool(id, |domain, pool, _| domain.clear_pool(pool, count))
    }

    pub(crate) fn has_pool(&self, guest: &GuestState, id: PoolId) -> Result<(), NoPool> {
        guest.at_pool(id, |_, _, _| ())
    }

    pub(crate) fn guest_stats(&self, guest: &GuestState) -> GuestStats {
        let pools = guest.pools();
        let mut contents = Contents::default();
        if let Some(domain) = guest.domain.get() {
            contents.merge(&domain.heap_contents(PERSISTENT));
            contents.merge(&domain.heap_contents(EPHEMERAL));
        }
        let entries: Vec<(PoolId, Entry)> = pools.entries.iter().map(|(id, entry)| (*id, entry.clone())).collect();
        drop(pools);
        for (_, entry) in &entries {
            if let Entry::Shared(shared) = entry {
                contents.merge(&shared.contents_of(guest.number));
            }
        }
        let pools = entries.into_iter().map(|(id, entry)| {
            let kind = entry.kind();
            let (contents, counters) = match (&entry, guest.domain.get()) {
                (Entry::Own { slot, .. }, Some(domain)) => domain.pool_stats(*slot),
                (Entry::Own { .. }, None) => (Contents::default(), Counters::default()),
                (Entry::Shared(shared), _) => shared.domain.pool_stats(0),
            };
            PoolStats { id, kind, contents, counters }
        });
        GuestStats {
            name: guest.name.clone(),
            physical_bytes: guest.account.own().used(),
            memory_limit: Some(guest.account.own().limit()).filter(|limit| *limit != u64::MAX),
            eviction: guest.domain.get().map_or_else(Policy::default, |domain| domain.policy(EPHEMERAL)),
            contents,
            pools: pools.collect(),
        }
    }

    pub(crate) fn store_stats(&self) -> StoreStats {
        let guests = self.guests();
        let mut contents = Contents::default();
        for guest in &guests {
            contents.merge(&self.guest_stats(guest).contents);
        }
        let mut index_bytes = 0;
        self.each_domain(|domain| {
            index_bytes += domain.each().map(|shard| shard.nodes.resident_bytes()).sum::<u64>();
        });
        let physical_bytes = self.budget.used();
        let raw_bytes = contents.pages * PAGE_SIZE as u64;
        let ratio = if physical_bytes == 0 { 0.0 } else { raw_bytes as f64 / physical_bytes as f64 };
        StoreStats {
            physical_bytes,
            memory_limit: self.budget.limit(),
            index_bytes,
            guests: guests.len() as u64,
            contents,
            ratio,
        }
    }

    /// Does something with every domain of the store, shared ones once.
    pub(crate) fn each_domain(&self, mut work: impl FnMut(&Domain)) {
        for guest in self.guests() {
            if let Some(domain) = guest.domain.get() {
                work(domain);
            }
        }
        let shared: Vec<Arc<Shared>> = {
            let known = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            known.values().filter_map(Weak::upgrade).collect()
        };
        for pool in shared {
            work(&pool.domain);
        }
    }
}
