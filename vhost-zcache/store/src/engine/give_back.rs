// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host wants memory back: garbage first, then what is resident and not used and segments that
//! are mostly holes, then ephemeral pages, of whose guests [`victim`](super::victim) decides.
//! Persistent pages stay; where all that is not enough guests are asked to take some back
//! ([`take_back`](super::take_back)).
//!
//! All of it is done in steps, between which others have their turn.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::domain::Domain;
use super::guest_state::GuestState;
use super::room::Effort;
use super::victim::{Claim, split};
use super::{EPHEMERAL, Engine};
use crate::accounting::Use;
use crate::arena::memory::{BLOCK, SEGMENT_BYTES, SEGMENT_WORDS};
use crate::shard::compact::{Step, Threshold};
use crate::shard::retire::Detached;
use crate::shard::space::Slot;
use crate::shard::space::segments::Place;

/// Segments that are given back in one step: some milliseconds' work of the kernel's.
const SEGMENTS_PER_STEP: usize = 64;
/// Records that are moved in one step.
const RECORDS_PER_STEP: usize = 256;
/// A heap of which more than a quarter is holes gives memory sooner by moving records than by
/// evicting them; the background seldom leaves one like that.
const MOSTLY_HOLES: Threshold = Threshold { slack: SEGMENT_WORDS as u64, share: 4 };
/// Time for that.
const MOVING: Duration = Duration::from_millis(10);
/// Less is evicted page by page in the order of the queues. Tests use small stores.
const LEAST_SHED: u64 = if cfg!(feature = "check") { 1 } else { 4 * SEGMENT_BYTES as u64 };

/// Part of the memory beyond reservations that a host gets which is short of memory, of ephemeral
/// pages or else of persistent ones, and the most it gets: it will say so again if that was too
/// little.
const STEP_PARTS: u64 = 16;
const MOST_OF_A_STEP: u64 = 256 << 20;

/// Why memory is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The operator wants so much, soon: guests give what is within their reservations too when
    /// all else is gone, and many pages leave at once.
    Order,
    /// The host is short of memory: ephemeral pages beyond reservations leave, those first that are
    /// worth least, and persistent ones are wanted when these are too few.
    Pressure,
}

/// What was given back to the host, where it came from, and how long that took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GivenBack {
    /// Bytes that were asked for.
    pub asked: u64,
    /// Bytes that were given: up to half a shard of a guest more, or less if there was no more.
    pub given: u64,
    /// Of these, what nobody had any more.
    pub garbage: u64,
    /// Of these, what was resident and not used, and holes.
    pub holes: u64,
    /// Of these, ephemeral pages, by the name of the guest.
    pub ephemeral: BTreeMap<String, u64>,
    /// Persistent pages that guests were asked to take back for what is missing, by the name of
    /// the guest. Nobody has waited for them.
    pub wanted: BTreeMap<String, u64>,
    /// Time until all of it was back with the host.
    pub milliseconds: f64,
}

/// What a host gets at a time which is short of memory, of so much that it could have.
fn step_of(excess: u64) -> u64 {
    // Less than a segment cannot be given.
    (excess / STEP_PARTS).clamp(SEGMENT_BYTES as u64, MOST_OF_A_STEP)
}

impl Engine {
    /// Gives physical memory back to the host.
    pub(crate) fn give_back(&self, bytes: u64, cause: Cause) -> GivenBack {
        let started = Instant::now();
        let garbage = self.give_garbage(bytes);
        let holes = self.give_holes(bytes.saturating_sub(garbage));
        let mut ephemeral = BTreeMap::new();
        let mut given = garbage + holes;
        // What a guest could not give, as it was just then changing its pools, others do.
        while given < bytes {
            let more = self.give_pages(bytes - given, cause, &mut ephemeral);
            if more == 0 {
                break;
            }
            given += more;
        }
        let missing = match cause {
            Cause::Order => bytes.saturating_sub(given),
            Cause::Pressure => self.missing_to_a_step(given),
        };
        let wanted = self.want_back(missing, cause);
        let milliseconds = started.elapsed().as_secs_f64() * 1e3;
        GivenBack { asked: bytes, given, garbage, holes, ephemeral, wanted, milliseconds }
    }

    /// A step of giving memory back to a host that is short of it.
    pub(crate) fn relieve_host(&self) -> GivenBack {
        let given = self.give_back(step_of(self.ephemeral_excess()), Cause::Pressure);
        self.work_done.count_relief(given.given);
        given
    }

    /// Bytes of persistent pages that a host wants which is short of memory, and has got so much.
    /// As long as ephemeral pages are left that do as well, these go first: nobody has to write
    /// them to a disk.
    fn missing_to_a_step(&self, given: u64) -> u64 {
        match self.takeable() {
            0 => 0,
            takeable => step_of(takeable).saturating_sub(given + self.ephemeral_excess()),
        }
    }

    fn ephemeral_excess(&self) -> u64 {
        self.registry.guests().iter().map(|guest| Claim::of(guest).excess).sum()
    }

    /// Gives garbage back, as much as is asked for or all; returns how much.
    fn give_garbage(&self, bytes: u64) -> u64 {
        let mut given = 0;
        while given < bytes
            && let Some(more) = self.release_garbage(None, SEGMENTS_PER_STEP)
        {
            given += more;
        }
        given
    }

    /// Gives back what is resident and not used, then moves records together where much is holes.
    fn give_holes(&self, bytes: u64) -> u64 {
        let started = Instant::now();
        let mut given = 0;
        let domains = self.registry.domains();
        for domain in &domains {
            if given < bytes {
                given += domain.trim_all_ahead();
            }
        }
        for domain in &domains {
            for number in 0..domain.len() {
                while given < bytes && started.elapsed() < MOVING {
                    match self.compact(domain, number) {
                        Some(more) => given += more,
                        None => break,
                    }
                }
            }
        }
        given
    }

    /// One step of moving a shard's records together; `None` if that is not worth it.
    fn compact(&self, domain: &Domain, number: usize) -> Option<u64> {
        let _in_hand = self.in_hand.hold();
        let mut stripe = domain.lock(number);
        let step = stripe.shard.compact_step(MOSTLY_HOLES, RECORDS_PER_STEP);
        MutexGuard::unlock_fair(stripe);
        match step {
            Step::Idle => None,
            Step::More => Some(0),
            // Given back without the lock.
            Step::Freed(slot) => Some(slot.charge.bytes()),
        }
    }

    /// Has guests give ephemeral memory, each its part; returns how much.
    fn give_pages(&self, bytes: u64, cause: Cause, by_guest: &mut BTreeMap<String, u64>) -> u64 {
        let guests = self.registry.guests();
        let excess: Vec<Claim> = guests.iter().map(|guest| Claim::of(guest)).collect();
        let all = || guests.iter().map(|guest| Claim { excess: guest.account.own().ephemeral(), ..Claim::of(guest) });
        let is_any = excess.iter().any(|claim| claim.excess > 0);
        let claims = if cause == Cause::Pressure || is_any { excess } else { all().collect() };
        let shares = split(&claims, bytes);
        let mut given = vec![0; guests.len()];
        if cause == Cause::Order {
            // What one gives too much or too little, as shards go whole, the next makes up for.
            let (mut wanted, mut total): (u64, u64) = (0, 0);
            for (n, guest) in guests.iter().enumerate() {
                wanted += shares[n];
                given[n] = self.shed(guest, wanted.saturating_sub(total), claims[n].excess);
                total += given[n];
            }
        }
        for (n, guest) in guests.iter().enumerate() {
            let rest = bytes.saturating_sub(given.iter().sum());
            given[n] += self.give_some(guest, shares[n].saturating_sub(given[n]).min(rest), cause);
        }
        for (guest, given) in guests.iter().zip(&given).filter(|(_, given)| **given > 0) {
            *by_guest.entry(guest.name.clone()).or_default() += given;
        }
        given.iter().sum()
    }

    /// Has a guest give ephemeral memory, less than half a shard as a rule; returns how much.
    fn give_some(&self, guest: &GuestState, bytes: u64, cause: Cause) -> u64 {
        let mut given = if cause == Cause::Order { self.clear(guest, bytes) } else { 0 };
        while given < bytes {
            match self.reclaim(guest, &[Use::Evictable], &mut Effort::unlimited()) {
                0 => break,
                more => given += more,
            }
        }
        given
    }

    /// Takes whole shards of a guest's ephemeral pages away and gives their memory back, as long as
    /// they are most of what is left of `share` and no more than `most` in all. Returns how much
    /// that was.
    fn shed(&self, guest: &GuestState, share: u64, most: u64) -> u64 {
        let Some(domain) = guest.domain.get() else { return 0 };
        let shards = by_size(domain);
        let in_hand = self.in_hand.hold();
        let (mut given, mut segments) = (0, Vec::new());
        for (bytes, number) in shards {
            if bytes < LEAST_SHED || share.saturating_sub(given) < bytes / 2 || given + bytes > most {
                continue;
            }
            let mut stripe = domain.lock(number);
            let shed = stripe.shed(EPHEMERAL);
            MutexGuard::unlock_fair(stripe);
            for slot in shed.into_iter().flatten() {
                given += slot.charge.bytes();
                segments.push(slot);
            }
        }
        if segments.is_empty() {
            return 0;
        }
        // The parts of a huge page are in several shards.
        self.garbage.add(guest.number, [Detached::of(segments)]);
        drop(in_hand);
        domain.touch();
        while self.release_garbage(Some(guest.number), SEGMENTS_PER_STEP).is_some() {}
        given
    }

    /// Lets ephemeral pages of a guest go with the segments that they are in, block by block, until
    /// so much is free; returns how much. A page takes a fraction of the time it takes in the order
    /// of the queues, which leaves holes in all segments, so that what stays has to move.
    fn clear(&self, guest: &GuestState, bytes: u64) -> u64 {
        let Some(domain) = guest.domain.get() else { return 0 };
        let mut given = 0;
        for (size, number) in by_size(domain) {
            if size < LEAST_SHED || bytes - given < LEAST_SHED {
                break;
            }
            let places = domain.lock(number).shard.space.places(EPHEMERAL);
            for block in places.chunk_by(Place::is_beside) {
                let in_hand = self.in_hand.hold();
                let mut segments = Vec::new();
                for place in block {
                    if given < bytes
                        && let Some(slot) = clear(domain, number, *place)
                    {
                        given += slot.charge.bytes();
                        segments.push(slot);
                    }
                }
                Detached::of(segments).release(BLOCK);
                drop(in_hand);
                if given >= bytes {
                    return given;
                }
            }
        }
        given
    }
}

/// A guest's shards by their ephemeral bytes, the largest first.
fn by_size(domain: &Domain) -> Vec<(u64, usize)> {
    let size = |number: usize| domain.lock(number).shard.space.heap(EPHEMERAL).total * size_of::<u64>() as u64;
    let mut shards: Vec<(u64, usize)> = (0..domain.len()).map(|number| (size(number), number)).collect();
    shards.sort_unstable_by(|a, b| b.cmp(a));
    shards
}

/// Empties a segment of a guest's ephemeral pages in steps, if it is still there.
fn clear(domain: &Domain, number: usize, place: Place) -> Option<Slot> {
    loop {
        let mut stripe = domain.lock(number);
        let step = stripe.shard.clear_step(EPHEMERAL, place, RECORDS_PER_STEP);
        stripe.shard.nodes.trim();
        MutexGuard::unlock_fair(stripe);
        match step {
            Step::Idle => return None,
            Step::More => {}
            Step::Freed(slot) => return Some(slot),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::header::Origin;
    use crate::engine::domain::Common;
    use crate::{GuestConfig, Key, ObjectId, PAGE_SIZE, PoolId, PoolKind, Scratch};

    /// The process may end before the memory is back: then nobody must find the pages, as others
    /// may have been put or flushed in their place.
    #[test]
    fn a_later_process_cannot_tell_what_was_in_segments_that_were_shed() {
        let engine = Engine::new(Common::small(1), 1 << 20, None);
        let guest = engine.register(GuestConfig::new("a"));
        engine.create_pool(&guest, PoolId(0), PoolKind::Ephemeral).expect("a pool is made");
        let key = Key { pool: PoolId(0), object: ObjectId([0; 24]), index: 0 };
        engine.put(&guest, &mut Scratch::new(), &key, &[1; PAGE_SIZE]).expect("there is room");
        let domain = guest.domain.get().expect("the guest has a pool");
        let is_known = |slots: &[Slot]| slots.iter().any(|slot| Origin::of(&slot.segment).is_some());
        let shed = domain.lock(0).shed(EPHEMERAL).expect("nothing waits to be collected");
        assert!(!shed.is_empty(), "no segment was shed");
        assert!(!is_known(&shed), "a segment says whose it is");
    }
}
