// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The store in figures.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::domain::Domain;
use super::guest_state::{Entry, GuestState};
use super::names::PoolRef;
use super::shared;
use super::{EPHEMERAL, Engine, PERSISTENT};
use crate::key::{PAGE_SIZE, PoolId};
use crate::shard::evict::Policy;
use crate::stats::{Contents, Counters, EndedPools, GuestStats, PoolStats, StoreStats};

impl Engine {
    pub(crate) fn guest_stats(&self, guest: &GuestState) -> GuestStats {
        let mut contents = Contents::default();
        if let Some(domain) = guest.domain.get() {
            contents.merge(&domain.heap_contents(PERSISTENT));
            contents.merge(&domain.heap_contents(EPHEMERAL));
        }
        let (entries, ended_pools): (Vec<(PoolId, Entry)>, EndedPools) = {
            let pools = guest.pools();
            (pools.entries.iter().map(|(id, entry)| (*id, entry.clone())).collect(), pools.ended)
        };
        for (_, entry) in &entries {
            if let Entry::Shared(shared) = entry {
                contents.merge(&shared.contents_of(guest.number));
            }
        }
        let pools = entries.into_iter().map(|(id, entry)| {
            let kind = entry.kind();
            let (contents, counters) = match (&entry, guest.domain.get()) {
                (Entry::Own { .. }, Some(domain)) => pool_figures(domain, id),
                (Entry::Own { .. }, None) => (Contents::default(), Counters::default()),
                (Entry::Shared(shared), _) => pool_figures(&shared.domain, shared::POOL),
            };
            PoolStats { id, kind, contents, counters }
        });
        let pools = pools.collect();
        let account = &guest.account;
        GuestStats {
            name: guest.name.clone(),
            physical_bytes: account.own().used(),
            memory_limit: Some(account.own().limit()).filter(|limit| *limit != u64::MAX),
            reserved_bytes: account.reserved(),
            weight: guest.weight.get(),
            frozen: guest.frozen.load(Relaxed),
            wanted_pages: guest.take_back.wanted(Instant::now()),
            taken_back_pages: guest.take_back.taken(),
            eviction: guest.domain.get().map_or_else(Policy::default, |domain| domain.policy(EPHEMERAL)),
            contents,
            pools,
            ended_pools,
        }
    }

    pub(crate) fn store_stats(&self) -> StoreStats {
        let guests = self.registry.guests();
        let mut contents = Contents::default();
        for guest in &guests {
            contents.merge(&self.guest_stats(guest).contents);
        }
        let mut index_bytes = 0;
        for domain in self.registry.domains() {
            index_bytes += domain.each().map(|stripe| stripe.shard.nodes.resident_bytes()).sum::<u64>();
        }
        let physical_bytes = self.budget.used();
        let raw_bytes = contents.pages * PAGE_SIZE as u64;
        let ratio = if physical_bytes == 0 { 0.0 } else { raw_bytes as f64 / physical_bytes as f64 };
        StoreStats {
            physical_bytes,
            memory_limit: self.budget.limit(),
            index_bytes,
            reserved_bytes: self.budget.reserved(),
            garbage_bytes: self.garbage.bytes(),
            background_failures: self.background_failures.load(Relaxed),
            background: self.work_done.stats(),
            guests: guests.len() as u64,
            contents,
            ratio,
        }
    }
}

/// Contents and counters of a pool over all shards.
fn pool_figures(domain: &Domain, id: PoolId) -> (Contents, Counters) {
    let mut contents = Contents::default();
    let mut counters = Counters::default();
    for stripe in domain.each() {
        if let Some(PoolRef::Own { pool, .. }) = stripe.names.resolve(id)
            && let Some(pool) = stripe.shard.pool(*pool)
        {
            contents.merge(&pool.contents);
            counters.merge(&pool.counters);
        }
    }
    (contents, counters)
}
