// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where room comes from when there is none: from holes, then from ephemeral pages of whoever has
//! more than the others.

use std::sync::Arc;

use crate::accounting::Use;
use crate::engine::domain::Domain;
use crate::engine::guest_state::GuestState;
use crate::engine::{Engine, SHARD_OVERHEAD};
use crate::op::Refusal;
use crate::shard::Shard;
use crate::shard::compact::Threshold;

/// Times that room is made for one thing that is not a put.
const ATTEMPTS: usize = 16;
/// Segments of garbage that are given back for one request.
const GARBAGE: usize = 8;

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
        at_own_limit || ephemeral * self.registry.guest_count() >= self.budget.ephemeral()
    }

    /// Tries something that needs memory, making room as often as that helps.
    pub(super) fn with_room<T>(
        &self,
        guest: &GuestState,
        mut work: impl FnMut() -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        for _ in 0..ATTEMPTS {
            match work() {
                Err(refusal) if self.make_room(guest, refusal) => {}
                outcome => return outcome,
            }
        }
        work()
    }

    /// Frees some memory for a guest that was refused; returns whether that may have helped.
    pub(super) fn make_room(&self, guest: &GuestState, refusal: Refusal) -> bool {
        let owner = if refusal == Refusal::StoreFull { None } else { Some(guest.number) };
        if self.garbage.release(owner, GARBAGE) {
            return true;
        }
        match refusal {
            Refusal::GuestLimit | Refusal::NoMemory | Refusal::Share => self.reclaim(guest),
            Refusal::StoreFull => self.reclaim_from_largest() || self.reclaim(guest),
        }
    }

    /// Frees memory of the guest that has most ephemeral pages beyond what is reserved for it.
    fn reclaim_from_largest(&self) -> bool {
        let guests = self.registry.guests();
        let largest = guests.iter().max_by_key(|guest| guest.account.surplus());
        largest.is_some_and(|guest| guest.account.surplus() > 0 && self.reclaim(guest))
    }

    /// Changes the store's limit, and drops ephemeral pages until it holds or none is left.
    pub(crate) fn set_memory_limit(&self, bytes: u64) {
        self.budget.set_limit(bytes);
        while self.budget.is_exceeded() && (self.garbage.release(None, GARBAGE) || self.reclaim_from_any()) {}
    }

    /// Changes a guest's limit, and drops its ephemeral pages until it holds or none is left.
    pub(crate) fn set_guest_limit(&self, guest: &GuestState, bytes: Option<u64>) {
        let own = guest.account.own();
        own.set_limit(bytes.unwrap_or(u64::MAX));
        while own.is_exceeded() && (self.garbage.release(Some(guest.number), GARBAGE) || self.reclaim(guest)) {}
    }

    /// Frees memory of a guest above its reservation, or else of any that has ephemeral pages.
    fn reclaim_from_any(&self) -> bool {
        let guests = self.registry.guests();
        let largest = guests.iter().max_by_key(|guest| guest.account.own().ephemeral());
        self.reclaim_from_largest() || largest.is_some_and(|guest| self.reclaim(guest))
    }

    /// Frees some memory of a guest: what nothing was written to yet, then of holes if there are
    /// many, of ephemeral pages otherwise.
    pub(crate) fn reclaim(&self, guest: &GuestState) -> bool {
        let shared = guest.shared_pools();
        let own = guest.domain.get().into_iter();
        let domains: Vec<&Arc<Domain>> = own.chain(shared.iter().map(|pool| &pool.domain)).collect();
        if domains.iter().any(|domain| domain.trim_ahead()) {
            return true;
        }
        let mut holes = (0, None);
        let mut pages = (0, None);
        for domain in domains {
            for number in 0..domain.len() {
                let stripe = domain.lock(number);
                for (heap, state) in stripe.shard.space.heaps.iter().enumerate() {
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
            let freed = domain.lock(number).shard.compact_segment(Threshold::AT_THE_LIMIT);
            if freed.is_some() {
                return true;
            }
        }
        let Some((domain, number, heap)) = pages.1 else { return false };
        let mut stripe = domain.lock(number);
        let freed = stripe.shard.evict_segment(heap);
        stripe.shard.nodes.trim();
        drop(stripe);
        freed.is_some()
    }
}
