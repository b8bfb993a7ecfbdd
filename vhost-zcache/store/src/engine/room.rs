// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where room comes from when there is none: from what waits to be given back, from holes, then
//! from ephemeral pages of the guest that gives first.

use std::sync::Arc;

use parking_lot::MutexGuard;

use super::domain::{Domain, Stripe};
use super::give_back::Cause;
use super::guest_state::GuestState;
use super::{Engine, SHARD_OVERHEAD};
use crate::accounting::Use;
use crate::op::Refusal;
use crate::shard::Shard;
use crate::shard::compact::{Step, Threshold};

/// Times that room is made for one thing that is not a put.
const ATTEMPTS: usize = 16;
/// Segments of garbage that are given back for one request.
const GARBAGE: usize = 8;
/// Records that are moved or evicted while a shard is locked.
const RECORDS_PER_STEP: usize = 256;
/// Steps that a put may take. Freeing a segment whose pages take the least, 4 words, is 36 steps of
/// evictions and at most 32 of moves, so a put is refused only if others take that room meanwhile;
/// and the next goes on where it stopped.
const STEPS_OF_A_PUT: usize = 80;
/// Of these, steps in which pages that are out of service are collected in one shard.
const STEPS_OF_COLLECTION: usize = 8;

const BOTH: [Use; 2] = [Use::Evictable, Use::Kept];

/// What an operation may still do to make room.
pub(super) struct Effort {
    steps: usize,
}

impl Effort {
    /// For a request, which must not take long.
    pub(super) const fn of_a_put() -> Self {
        Self { steps: STEPS_OF_A_PUT }
    }

    /// For who must have the room.
    pub(super) const fn unlimited() -> Self {
        Self { steps: usize::MAX }
    }

    fn step(&mut self) -> bool {
        let is_left = self.steps > 0;
        self.steps = self.steps.saturating_sub(1);
        is_left
    }

    /// Collects what is out of service in a shard, for a few steps.
    fn collect(&mut self, domain: &Domain, number: usize) {
        let collect = |stripe: &mut Stripe| stripe.shard.has_retired() && stripe.shard.collect(RECORDS_PER_STEP as u64);
        for _ in 0..STEPS_OF_COLLECTION {
            let mut stripe = domain.lock(number);
            let more = collect(&mut stripe);
            MutexGuard::unlock_fair(stripe);
            if !more || !self.step() {
                return;
            }
        }
    }

    /// Repeats a step of freeing a segment of a shard, which others can lock in between; returns
    /// how many bytes that freed.
    fn free_segment(&mut self, domain: &Domain, number: usize, mut step: impl FnMut(&mut Shard) -> Step) -> u64 {
        while self.step() {
            let mut stripe: MutexGuard<'_, Stripe> = domain.lock(number);
            let outcome = step(&mut stripe.shard);
            MutexGuard::unlock_fair(stripe);
            match outcome {
                Step::Idle => return 0,
                Step::More => {}
                // The segment is given back here, without the lock.
                Step::Freed(slot) => return slot.charge.bytes(),
            }
        }
        0
    }
}

/// Where a guest has most of something.
#[derive(Clone, Copy)]
struct Place<'a> {
    domain: &'a Arc<Domain>,
    shard: usize,
    heap: usize,
}

impl Engine {
    /// Whether a put should evict in its own shard: not while another guest gives first, or the
    /// shard has less than its share.
    pub(super) fn may_evict(&self, guest: &GuestState, shard: &Shard, heap: usize) -> bool {
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
        at_own_limit || self.is_first_to_give(guest)
    }

    /// Tries something that needs memory, making room as often as that helps.
    pub(super) fn with_room<T>(
        &self,
        guest: &GuestState,
        mut work: impl FnMut() -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut effort = Effort::of_a_put();
        for _ in 0..ATTEMPTS {
            match work() {
                Err(refusal) if self.make_room(guest, refusal, &mut effort) => {}
                outcome => return outcome,
            }
        }
        work()
    }

    /// Frees some memory for a guest that was refused; returns whether that may have helped.
    pub(super) fn make_room(&self, guest: &GuestState, refusal: Refusal, effort: &mut Effort) -> bool {
        let owner = if refusal == Refusal::StoreFull { None } else { Some(guest.number) };
        if self.release_garbage(owner, GARBAGE).is_some() {
            return true;
        }
        match refusal {
            // Evicting pages gives back nothing of what cannot be evicted.
            Refusal::Share => self.reclaim(guest, &[Use::Kept], effort) > 0,
            Refusal::GuestLimit | Refusal::NoMemory => self.reclaim(guest, &BOTH, effort) > 0,
            Refusal::StoreFull => self.reclaim_from_first(effort) || self.reclaim(guest, &BOTH, effort) > 0,
            Refusal::Frozen => false,
        }
    }

    /// Waits for what another thread has in hand, then gives about `most` segments of garbage back,
    /// of one guest if one is named; returns how many bytes, if there was any.
    pub(crate) fn release_garbage(&self, guest: Option<u32>, most: usize) -> Option<u64> {
        let _in_hand = self.in_hand.hold();
        self.garbage.release(guest, most)
    }

    /// Frees memory of the guest that gives first.
    fn reclaim_from_first(&self, effort: &mut Effort) -> bool {
        self.first_to_give().is_some_and(|guest| self.reclaim(&guest, &BOTH, effort) > 0)
    }

    /// Changes the store's limit, and drops ephemeral pages until it holds or none is left. For
    /// what is above it then guests are asked to take pages back.
    pub(crate) fn set_memory_limit(&self, bytes: u64) {
        self.budget.set_limit(bytes);
        self.keep_within_limit();
    }

    /// Drops ephemeral pages until the limit holds or none is left.
    pub(super) fn keep_within_limit(&self) {
        while self.budget.is_exceeded() && (self.release_garbage(None, GARBAGE).is_some() || self.reclaim_from_any()) {}
        // Of the rest guests are asked, as when an operator wants so much back.
        self.want_back(self.budget.used().saturating_sub(self.budget.limit()), Cause::Order);
    }

    /// Changes a guest's limit, and drops its ephemeral pages until it holds or none is left.
    pub(crate) fn set_guest_limit(&self, guest: &GuestState, bytes: Option<u64>) {
        guest.account.own().set_limit(bytes.unwrap_or(u64::MAX));
        self.keep_guest_within_limit(guest);
    }

    /// Drops a guest's ephemeral pages until its limit holds or none is left.
    pub(super) fn keep_guest_within_limit(&self, guest: &GuestState) {
        let own = guest.account.own();
        let reclaim = || {
            self.release_garbage(Some(guest.number), GARBAGE).is_some()
                || self.reclaim(guest, &BOTH, &mut Effort::unlimited()) > 0
        };
        while own.is_exceeded() && reclaim() {}
    }

    /// Frees memory of a guest above its reservation, or else of any that has ephemeral pages.
    fn reclaim_from_any(&self) -> bool {
        let effort = &mut Effort::unlimited();
        let guests = self.registry.guests();
        let largest = guests.iter().max_by_key(|guest| guest.account.own().ephemeral());
        self.reclaim_from_first(effort) || largest.is_some_and(|guest| self.reclaim(guest, &BOTH, effort) > 0)
    }

    /// Frees some memory of a guest in heaps of these purposes: what nothing was written to yet,
    /// then of holes if there are many, of ephemeral pages otherwise. When that takes more than
    /// `effort`, what was done so far is left for the next who needs memory. Returns how many bytes
    /// that freed.
    pub(super) fn reclaim(&self, guest: &GuestState, purposes: &[Use], effort: &mut Effort) -> u64 {
        let shared = guest.shared_pools();
        let own = guest.domain.get().into_iter();
        let domains: Vec<&Arc<Domain>> = own.chain(shared.iter().map(|pool| &pool.domain)).collect();
        if let Some(trimmed) = domains.iter().map(|domain| domain.trim_ahead()).find(|bytes| *bytes > 0) {
            return trimmed;
        }
        for domain in &domains {
            (0..domain.len()).for_each(|number| effort.collect(domain, number));
        }
        let mut holes = (0, None);
        let mut pages = (0, None);
        for domain in domains {
            for number in 0..domain.len() {
                let stripe = domain.lock(number);
                for (heap, state) in stripe.shard.space.heaps.iter().enumerate() {
                    let Some(state) = state else { continue };
                    if state.guest != guest.number || !purposes.contains(&state.purpose) {
                        continue;
                    }
                    let place = Some(Place { domain, shard: number, heap });
                    if state.dead() > holes.0 && state.dead() > state.total / 8 {
                        holes = (state.dead(), place);
                    }
                    if state.purpose == Use::Evictable && state.total > pages.0 {
                        pages = (state.total, place);
                    }
                }
            }
        }
        if let Some(Place { domain, shard, .. }) = holes.1 {
            let step = |shard: &mut Shard| shard.compact_step(Threshold::AT_THE_LIMIT, RECORDS_PER_STEP);
            let freed = effort.free_segment(domain, shard, step);
            if freed > 0 {
                return freed;
            }
        }
        let Some(Place { domain, shard, heap }) = pages.1 else { return 0 };
        effort.free_segment(domain, shard, |shard| {
            // In a shared pool, another guest may have got the number.
            let is_there = matches!(shard.space.heaps.get(heap), Some(Some(state)) if state.guest == guest.number);
            if !is_there {
                return Step::Idle;
            }
            let step = shard.evict_step(heap, RECORDS_PER_STEP);
            shard.nodes.trim();
            step
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::domain::Common;

    #[test]
    fn a_put_gives_up_after_so_many_steps_in_all() {
        let domain = Domain::new(&Common::small(1), false);
        let mut effort = Effort::of_a_put();
        let mut steps = 0;
        for _ in 0..4 {
            let freed = effort.free_segment(&domain, 0, |_| {
                steps += 1;
                Step::More
            });
            assert_eq!(freed, 0, "nothing was freed");
        }
        assert_eq!(steps, STEPS_OF_A_PUT);
    }
}
