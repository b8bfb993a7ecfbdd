// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where room comes from when there is none: from holes, then from ephemeral pages of whoever has
//! more than the others.

use std::sync::atomic::Ordering::Relaxed;

use crate::accounting::Use;
use crate::engine::domain::Domain;
use crate::engine::guest_state::GuestState;
use crate::engine::{Engine, SHARD_OVERHEAD};
use crate::op::Refusal;
use crate::shard::Shard;
use crate::shard::compact::Threshold;

impl Engine {
    /// Whether a put should evict in its own shard: not while its guest, or its shard, has less
    /// than its share, because others then have more than theirs.
    pub(crate) fn may_evict(&self, guest: &GuestState, shard: &Shard, heap: usize) -> bool {
        let heap = shard.space.heap(heap);
        if heap.purpose == Use::Kept {
            return false;
        }
        let ephemeral = guest.account.own().ephemeral();
        if heap.total * 8 * self.common.shards as u64 * 2 < ephemeral {
            return false;
        }
        let own = guest.account.own();
        let at_own_limit = own.used() + SHARD_OVERHEAD > own.limit();
        at_own_limit || ephemeral * self.guest_count() >= self.budget.ephemeral()
    }

    fn guest_count(&self) -> u64 {
        u64::from(self.guest_count.load(Relaxed))
    }

    pub(crate) fn make_room(&self, guest: &GuestState, refusal: Refusal) -> bool {
        match refusal {
            Refusal::GuestLimit | Refusal::NoMemory => self.reclaim(guest),
            Refusal::StoreFull => self.reclaim_from_largest() || self.reclaim(guest),
        }
    }

    pub(crate) fn reclaim_from_largest(&self) -> bool {
        let guests = self.guests();
        let largest = guests.iter().max_by_key(|guest| guest.account.own().ephemeral());
        largest.is_some_and(|guest| self.reclaim(guest))
    }

    /// Frees some memory of a guest: what nothing was written to yet, then of holes if there are
    /// many, of ephemeral pages otherwise.
    pub(crate) fn reclaim(&self, guest: &GuestState) -> bool {
        let shared = guest.shared_pools();
        let own = guest.domain.get().into_iter();
        let domains: Vec<&Domain> = own.chain(shared.iter().map(|pool| &pool.domain)).collect();
        if domains.iter().any(|domain| domain.trim_ahead()) {
            return true;
        }
        let mut holes = (0, None);
        let mut pages = (0, None);
        for domain in domains {
            for number in 0..domain.len() {
                let shard = domain.lock(number);
                for (heap, state) in shard.space.heaps.iter().enumerate() {
                    let Some(state) = state else { continue };
                    if state.guest != guest.number {
                        continue;
                    }
                    if state.dead() > holes.0 && state.dead() > state.total / 8 {
                        holes = (state.dead(), Some((domain, number)));
                    }
                    if state.purpose == Use::Evictable && state.total > pages.0 {
                        pages = (state.total, Some((domain, number, heap)));
                    }
                }
            }
        }
        if let Some((domain, number)) = holes.1 {
            let freed = domain.lock(number).compact_segment(Threshold::AT_THE_LIMIT);
            if freed.is_some() {
                return true;
            }
        }
        let Some((domain, number, heap)) = pages.1 else { return false };
        let mut shard = domain.lock(number);
        let freed = shard.evict_segment(heap);
        shard.nodes.trim();
        drop(shard);
        freed.is_some()
    }
}
