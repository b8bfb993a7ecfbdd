// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pools come and go. None of it takes longer for many pages than for few: what goes is taken out
//! of service at once, and its memory follows in the background.

use std::sync::{Arc, Weak};

use super::domain::Domain;
use super::guest_state::{Entry, GuestState, Pools};
use super::names::PoolRef;
use super::roster::Roster;
use super::shared::{self, Shared, SharedName};
use super::{EPHEMERAL, Engine, PERSISTENT, SHARD_OVERHEAD};
use crate::key::PoolId;
use crate::op::Refusal;
use crate::pool::{Creation, MAX_POOLS_PER_GUEST, NoPool, PoolError, PoolKind};
use crate::shard::space::record::Life;

impl Engine {
    /// Creates a pool, or joins the shared one of that UUID.
    pub(crate) fn create_pool(&self, guest: &GuestState, id: PoolId, kind: PoolKind) -> Result<Creation, PoolError> {
        let mut pools = guest.pools();
        if let Some(entry) = pools.entries.get(&id) {
            let same = entry.kind() == kind;
            return if same { Ok(Creation::AlreadySame) } else { Err(PoolError::Exists) };
        }
        // Two ids for one pool would let a flush through one be missed by a put through the other.
        if kind.is_shared() && pools.entries.values().any(|entry| entry.kind() == kind) {
            return Err(PoolError::Exists);
        }
        if pools.entries.len() >= MAX_POOLS_PER_GUEST {
            return Err(PoolError::TooMany);
        }
        let shards_cost = self.common.shards as u64 * SHARD_OVERHEAD;
        let is_new = guest.domain.get().is_none();
        let cost = shards_cost * (u64::from(is_new) + u64::from(kind.is_shared()));
        self.with_room(guest, || pools.base.grow(cost)).map_err(|_| PoolError::NoMemory)?;
        let domain = guest.domain.get_or_init(|| self.own_domain(guest));
        let life = pools.new_life();
        let entry = match kind {
            PoolKind::SharedEphemeral(uuid) => {
                let (pool, heap) = self.join(uuid, guest);
                for mut stripe in domain.each_as_is() {
                    stripe.names.set(id, life, PoolRef::Shared { pool: Arc::clone(&pool), heap });
                }
                Entry::Shared(pool)
            }
            PoolKind::Ephemeral | PoolKind::Persistent => {
                let roster = self.roster(guest, &mut pools).map_err(|_| PoolError::NoMemory)?;
                roster.set(id, life, kind);
                add_own(domain, id, life, kind);
                Entry::Own { kind, life }
            }
        };
        pools.entries.insert(id, entry);
        Ok(Creation::Created)
    }

    /// The guest's roster, made with its first own pool.
    fn roster<'a>(&self, guest: &GuestState, pools: &'a mut Pools) -> Result<&'a mut Roster, Refusal> {
        if pools.roster.is_none() {
            let charge = pools.base.another();
            let roster = self.with_room(guest, || {
                let segment = self.common.arena.take().map_err(|_| Refusal::NoMemory)?;
                Roster::new(segment, charge.another(), self.common.label(guest.number, 0, true))
            });
            pools.roster = Some(roster?);
        }
        pools.roster.as_mut().ok_or(Refusal::NoMemory)
    }

    /// Makes the guest a member of a shared pool; the pool, and the guest's heap in it.
    fn join(&self, uuid: [u8; 16], guest: &GuestState) -> (Arc<Shared>, usize) {
        let mut known = self.registry.shared();
        let name = SharedName { trust_domain: Arc::clone(&guest.trust_domain), uuid };
        let pool = known.get(&name).and_then(Weak::upgrade).unwrap_or_else(|| {
            let pool = Arc::new(Shared::new(&self.common, name.clone()));
            known.insert(name, Arc::downgrade(&pool));
            pool
        });
        let heap = pool.join(guest.number, &guest.account);
        (pool, heap)
    }

    /// Ends a pool, or leaves a shared one; returns how many pages went out of service.
    pub(crate) fn destroy_pool(&self, guest: &GuestState, id: PoolId) -> Result<u64, NoPool> {
        let mut pools = guest.pools();
        let entry = pools.entries.remove(&id).ok_or(NoPool)?;
        let domain = guest.domain()?;
        match entry {
            Entry::Own { kind, .. } => {
                if let Some(roster) = &mut pools.roster {
                    roster.clear(id);
                }
                let ended = if kind.is_ephemeral() { &mut pools.ended.ephemeral } else { &mut pools.ended.persistent };
                let (mut pages, mut detached) = (0, Vec::new());
                for mut stripe in domain.each() {
                    if let Some(PoolRef::Own { pool, .. }) = stripe.names.remove(id) {
                        if let Some(pool) = stripe.shard.pool(pool) {
                            ended.merge(&pool.counters);
                        }
                        pages += stripe.shard.retire_pool(pool);
                        detached.extend(stripe.shard.detach_idle());
                    }
                }
                self.garbage.add(guest.number, detached);
                domain.touch();
                if !kind.is_ephemeral() {
                    guest.take_back.count_gone(pages);
                }
                Ok(pages)
            }
            Entry::Shared(shared) => {
                for mut stripe in domain.each_as_is() {
                    stripe.names.remove(id);
                }
                let mut known = self.registry.shared();
                let (pages, last) = shared.leave(guest.number);
                if last {
                    known.remove(&shared.name);
                    self.garbage.add(guest.number, shared.domain.detach());
                }
                pools.base.shrink(self.common.shards as u64 * SHARD_OVERHEAD);
                Ok(pages)
            }
        }
    }

    /// Ends all pools of some kinds; returns how many pages went out of service.
    pub(crate) fn destroy_pools(&self, guest: &GuestState, which: impl Fn(PoolKind) -> bool) -> u64 {
        let ids: Vec<PoolId> = {
            let pools = guest.pools();
            pools.entries.iter().filter(|(_, e)| which(e.kind())).map(|(id, _)| *id).collect()
        };
        ids.into_iter().filter_map(|id| self.destroy_pool(guest, id).ok()).sum()
    }

    /// Empties a pool, in a shared one for all members; returns how many pages went.
    pub(crate) fn flush_pool(&self, guest: &GuestState, id: PoolId) -> Result<u64, NoPool> {
        let mut pools = guest.pools();
        let (pages, detached) = match pools.entries.get(&id).cloned().ok_or(NoPool)? {
            Entry::Own { kind, life } => {
                let new = pools.new_life();
                if let Some(roster) = &mut pools.roster {
                    roster.set(id, new, kind);
                }
                pools.entries.insert(id, Entry::Own { kind, life: new });
                let flushed = shared::flush(guest.domain()?, id, life, new);
                if !kind.is_ephemeral() {
                    guest.take_back.count_gone(flushed.0);
                }
                flushed
            }
            Entry::Shared(shared) => {
                // Its members do not wait for each other.
                drop(pools);
                shared.flush()
            }
        };
        self.garbage.add(guest.number, detached);
        Ok(pages)
    }
}

/// Adds a private pool to all shards of its guest.
pub(super) fn add_own(domain: &Domain, id: PoolId, life: Life, kind: PoolKind) {
    let heap = if kind.is_ephemeral() { EPHEMERAL } else { PERSISTENT };
    for mut stripe in domain.each_as_is() {
        let pool = stripe.shard.add_pool(id.0, life);
        stripe.names.set(id, life, PoolRef::Own { pool, heap });
    }
}
