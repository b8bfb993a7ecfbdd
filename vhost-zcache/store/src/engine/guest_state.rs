// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the store keeps for one guest, and the way from the guest's keys to shards.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::domain::{Domain, Stripe};
use super::names::PoolRef;
use super::roster::Roster;
use super::shared::{self, Shared};
use super::take_back::TakeBack;
use super::victim::GuestWeight;
use crate::accounting::{Account, Charge};
use crate::key::{Key, PoolId};
use crate::pool::{NoPool, PoolKind};
use crate::shard::space::record::Life;
use crate::shard::{PageKey, PoolSlot, Shard};
use crate::stats::EndedPools;

/// A guest's pool, as the guest knows it.
#[derive(Clone)]
pub(crate) enum Entry {
    Own { kind: PoolKind, life: Life },
    Shared(Arc<Shared>),
}

impl Entry {
    pub(crate) fn kind(&self) -> PoolKind {
        match self {
            Self::Own { kind, .. } => *kind,
            Self::Shared(shared) => PoolKind::SharedEphemeral(shared.name.uuid),
        }
    }
}

/// A guest's pools. Whoever creates, flushes or destroys one holds the lock, for a time that does
/// not depend on how many pages there are.
pub(crate) struct Pools {
    pub(crate) entries: BTreeMap<PoolId, Entry>,
    /// Made with the first private pool.
    pub(crate) roster: Option<Roster>,
    /// The life that began last.
    life: Life,
    /// What happened in private pools that have ended.
    pub(crate) ended: EndedPools,
    /// What bookkeeping costs.
    pub(crate) base: Charge,
}

impl Pools {
    pub(crate) fn new(base: Charge) -> Self {
        Self { entries: BTreeMap::new(), roster: None, life: Life::default(), ended: EndedPools::default(), base }
    }

    /// A life that no pool of the guest has had.
    pub(crate) fn new_life(&mut self) -> Life {
        self.life = self.life.next();
        self.life
    }

    /// Notes a life of an earlier process.
    pub(crate) fn note_life(&mut self, life: Life) {
        self.life = self.life.max(life);
    }
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

/// Whether a request leaves the background something to look after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It only reads.
    Read,
    /// It adds or removes pages.
    Change,
}

impl Access {
    fn end(self, domain: &Domain) {
        if self == Self::Change {
            domain.touch();
        }
    }
}

pub(crate) struct GuestState {
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) account: Arc<Account>,
    pub(crate) weight: GuestWeight,
    /// Puts are refused.
    pub(crate) frozen: AtomicBool,
    pub(crate) take_back: TakeBack,
    /// With whom it may share pools.
    pub(crate) trust_domain: Arc<str>,
    pub(crate) pools: Mutex<Pools>,
    /// Made with the first pool.
    pub(crate) domain: OnceLock<Arc<Domain>>,
}

impl GuestState {
    pub(crate) fn pools(&self) -> MutexGuard<'_, Pools> {
        // The map is whole whenever the lock is free.
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn domain(&self) -> Result<&Arc<Domain>, NoPool> {
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

    /// Finds out once which shard a key belongs to.
    pub(crate) fn spot<'a>(&'a self, key: &'a Key) -> Result<Spot<'a>, NoPool> {
        let domain: &Domain = self.domain()?;
        let hash = domain.hash(key.pool.0, &key.object);
        Ok(Spot { key, domain, hash, shard: domain.shard_of(hash, key.index) })
    }

    /// Does something with the shard, heap and key a guest's key stands for.
    pub(crate) fn at_page<R>(
        &self,
        key: &Key,
        access: Access,
        work: impl FnOnce(&mut Shard, usize, &PageKey) -> R,
    ) -> Result<R, NoPool> {
        self.at_spot(&self.spot(key)?, access, work)
    }

    /// `at_page`, for those who looked for the spot before.
    pub(crate) fn at_spot<R>(
        &self,
        spot: &Spot,
        access: Access,
        work: impl FnOnce(&mut Shard, usize, &PageKey) -> R,
    ) -> Result<R, NoPool> {
        let Spot { key, domain, hash, shard } = *spot;
        let mut stripe = domain.lock(shard);
        let (shared, heap) = match stripe.names.resolve(key.pool).ok_or(NoPool)? {
            PoolRef::Own { pool, heap } => {
                let (pool, heap) = (*pool, *heap);
                let key = PageKey { pool, hash, object: &key.object, index: key.index };
                let done = work(&mut stripe.shard, heap, &key);
                drop(stripe);
                access.end(domain);
                return Ok(done);
            }
            PoolRef::Shared { pool, heap } => (Arc::clone(pool), *heap),
        };
        drop(stripe);
        let domain = &shared.domain;
        let hash = domain.hash(shared::POOL.0, &key.object);
        let mut stripe = domain.lock(domain.shard_of(hash, key.index));
        let pool = self.member_pool(&stripe, heap)?;
        let key = PageKey { pool, hash, object: &key.object, index: key.index };
        let done = work(&mut stripe.shard, heap, &key);
        drop(stripe);
        access.end(domain);
        Ok(done)
    }

    /// The number of a shared pool in a shard, if the guest is still a member with that heap.
    fn member_pool(&self, stripe: &Stripe, heap: usize) -> Result<PoolSlot, NoPool> {
        let heap = stripe.shard.space.heaps.get(heap).and_then(Option::as_ref);
        let member = heap.is_some_and(|heap| heap.guest == self.number && !heap.leaving);
        match stripe.names.resolve(shared::POOL) {
            Some(PoolRef::Own { pool, .. }) if member => Ok(*pool),
            _ => Err(NoPool),
        }
    }

    /// The guest's pool of that number as it is now.
    pub(crate) fn entry(&self, pool: PoolId) -> Result<Entry, NoPool> {
        self.pools().entries.get(&pool).cloned().ok_or(NoPool)
    }
}
