// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where room comes from when there is none: from holes, then from ephemeral pages of whoever has
//! more than the others.

use std::sync::atomic::Ordering::Relaxed;

use parking_lot::MutexGuard;

use crate::accounting::Use;
use crate::compact::{Step, Threshold};
use crate::domain::Domain;
use crate::engine::{Engine, SHARD_OVERHEAD};
use crate::op::Refusal;
use crate::shard::Shard;
use crate::state::GuestState;

/// Records that are moved or evicted while a shard is locked.
const RECORDS_PER_STEP: usize = 256;
/// Steps that a put may take. Freeing a segment whose pages take the least, 4 words, is 36 steps of evictions and
/// at most 32 of moves, so a put is refused only if others take that room meanwhile; and the next goes on where it
/// stopped.
const STEPS_OF_A_PUT: usize = 80;

/// What an operation may still do to make room.
pub(crate) struct Effort {
    steps: usize,
}

impl Effort {
    /// For a request, which must not take long.
    pub(crate) const fn of_a_put() -> Self {
        Self { steps: STEPS_OF_A_PUT }
    }

    /// For who must have the room.
    pub(crate) const fn unlimited() -> Self {
        Self { steps: usize::MAX }
    }

    fn step(&mut self) -> bool {
        let is_left = self.steps > 0;
        self.steps = self.steps.saturating_sub(1);
        is_left
    }

    /// Repeats a step of freeing a segment of a shard, which others can lock in between; returns whether
    /// that freed one.
    fn free_segment(&mut self, domain: &Domain, number: usize, mut step: impl FnMut(&mut Shard) -> Step) -> bool {
        while self.step() {
            let mut shard = domain.lock(number);
            let outcome = step(&mut shard);
            MutexGuard::unlock_fair(shard);
            match outcome {
                Step::Idle => return false,
                Step::More => {}
                // The segment is given back here, without the lock.
                Step::Freed(slot) => {
                    drop(slot);
                    return true;
                }
            }
        }
        false
    }
}

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

    pub(crate) fn make_room(&self, guest: &GuestState, refusal: Refusal, effort: &mut Effort) -> bool {
        match refusal {
            Refusal::GuestLimit | Refusal::NoMemory => self.reclaim(guest, effort),
            Refusal::StoreFull => self.reclaim_from_largest(effort) || self.reclaim(guest, effort),
        }
    }

    pub(crate) fn reclaim_from_largest(&self, effort: &mut Effort) -> bool {
        let guests = self.guests();
        let largest = guests.iter().max_by_key(|guest| guest.account.own().ephemeral());
        largest.is_some_and(|guest| self.reclaim(guest, effort))
    }

    /// Frees some memory of a guest: what nothing was written to yet, then of holes if there are
    /// many, of ephemeral pages otherwise. When that takes more than `effort`, what was done so far is left for
    /// the next who needs memory.
    pub(crate) fn reclaim(&self, guest: &GuestState, effort: &mut Effort) -> bool {
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
        if let Some((domain, number)) = holes.1
            && effort
                .free_segment(domain, number, |shard| shard.compact_step(Threshold::AT_THE_LIMIT, RECORDS_PER_STEP))
        {
            return true;
        }
        let Some((domain, number, heap)) = pages.1 else { return false };
        effort.free_segment(domain, number, |shard| {
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
    use std::sync::Arc;

    use super::*;
    use crate::arena::memory::Arena;
    use crate::domain::Common;
    use crate::fault::Faults;

    #[test]
    fn a_put_gives_up_after_so_many_steps_in_all() {
        let faults = Faults::default();
        let arena = Arc::new(Arena::new(4, faults.clone()).expect("there is memory"));
        let common = Common { arena, wake: Arc::default(), faults, seed: [0; 2], shards: 1 };
        let domain = Domain::new(&common, false);
        let mut effort = Effort::of_a_put();
        let mut steps = 0;
        for _ in 0..4 {
            let freed = effort.free_segment(&domain, 0, |_| {
                steps += 1;
                Step::More
            });
            assert!(!freed, "nothing was freed");
        }
        assert_eq!(steps, STEPS_OF_A_PUT);
    }
}
