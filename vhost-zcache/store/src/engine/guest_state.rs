// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the store keeps for one guest, and what the guest's keys stand for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::accounting::{Account, Charge};
use crate::engine::domain::{Domain, Shared};
use crate::key::{Key, PoolId};
use crate::pool::{NoPool, PoolKind};
use crate::shard::{PageKey, PoolRef, Shard};

/// A guest's pool, as the guest knows it.
#[derive(Clone)]
pub(crate) enum Entry {
    Own { slot: usize, kind: PoolKind },
    Shared(Arc<Shared>),
}

impl Entry {
    pub(crate) fn kind(&self) -> PoolKind {
        match self {
            Self::Own { kind, .. } => *kind,
            Self::Shared(shared) => PoolKind::SharedEphemeral(shared.uuid),
        }
    }
}

/// A guest's pools, and what their bookkeeping costs.
pub(crate) struct Pools {
    pub(crate) entries: BTreeMap<PoolId, Entry>,
    pub(crate) base: Charge,
}

/// A guest's key and where in the guest's own domain it belongs.
pub(crate) struct Spot<'a> {
    key: &'a Key,
    domain: &'a Domain,
    hash: u64,
    shard: usize,
}

impl Spot<'_> {
    /// Asks for the memory that a new page will be written to.
    pub(crate) fn prefetch(&self) {
        self.domain.prefetch_tail(self.shard);
    }
}

pub(crate) struct GuestState {
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) account: Arc<Account>,
    pub(crate) pools: Mutex<Pools>,
    /// Made with the first pool.
    pub(crate) domain: OnceLock<Domain>,
}

impl GuestState {
    pub(crate) fn pools(&self) -> MutexGuard<'_, Pools> {
        // The map is whole whenever the lock is free.
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn domain(&self) -> Result<&Domain, NoPool> {
        self.domain.get().ok_or(NoPool)
    }

    /// The shared pools the guest is in; none while its pools are being made or destroyed, which
    /// another guest that needs memory must not wait for.
    pub(crate) fn shared_pools(&self) -> Vec<Arc<Shared>> {
        let Ok(pools) = self.pools.try_lock() else { return Vec::new() };
        let shared = |entry: &Entry| match entry {
            Entry::Shared(pool) => Some(Arc::clone(pool)),
            Entry::Own { .. } => None,
        };
        pools.entries.values().filter_map(shared).collect()
    }

    pub(crate) fn spot<'a>(&'a self, key: &'a Key) -> Result<Spot<'a>, NoPool> {
        let domain = self.domain()?;
        let hash = domain.hash(key.pool.0, &key.object);
        Ok(Spot { key, domain, hash, shard: domain.shard_of(hash, key.index) })
    }

    /// Does something with the shard, heap and key a guest's key stands for.
    pub(crate) fn at_page<R>(
        &self,
        key: &Key,
        work: impl FnOnce(&mut Shard, usize, &PageKey) -> R,
    ) -> Result<R, NoPool> {
        self.at_spot(&self.spot(key)?, work)
    }

    /// `at_page`, for those who looked for the spot before.
    pub(crate) fn at_spot<R>(
        &self,
        spot: &Spot,
        work: impl FnOnce(&mut Shard, usize, &PageKey) -> R,
    ) -> Result<R, NoPool> {
        let Spot { key, domain, hash, shard } = *spot;
        let mut shard = domain.lock(shard);
        let (shared, heap) = match shard.resolve(key.pool).ok_or(NoPool)? {
            PoolRef::Own { pool, heap } => {
                let (pool, heap) = (*pool, *heap);
                let key = PageKey { pool, hash, object: &key.object, index: key.index };
                return Ok(work(&mut shard, heap, &key));
            }
            PoolRef::Shared { pool, heap } => (Arc::clone(pool), *heap),
        };
        drop(shard);
        let domain = &shared.domain;
        let hash = domain.hash(0, &key.object);
        let mut shard = domain.lock(domain.shard_of(hash, key.index));
        self.check_member(&shard, heap)?;
        let key = PageKey { pool: 0, hash, object: &key.object, index: key.index };
        Ok(work(&mut shard, heap, &key))
    }

    /// Whether the guest is still a member of a shared pool where it had that heap.
    pub(crate) fn check_member(&self, shard: &Shard, heap: usize) -> Result<(), NoPool> {
        match shard.space.heaps.get(heap) {
            Some(Some(heap)) if heap.guest == self.number => Ok(()),
            _ => Err(NoPool),
        }
    }

    /// Does something with the domain and slot a pool number stands for.
    pub(crate) fn at_pool<R>(&self, pool: PoolId, work: impl FnOnce(&Domain, usize, u32) -> R) -> Result<R, NoPool> {
        let entry = self.pools().entries.get(&pool).cloned().ok_or(NoPool)?;
        match entry {
            Entry::Own { slot, .. } => Ok(work(self.domain()?, slot, pool.0)),
            Entry::Shared(shared) => Ok(work(&shared.domain, 0, 0)),
        }
    }
}
