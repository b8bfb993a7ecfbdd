// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Domains in which something has changed: what was retired is collected, segments with many holes
//! are emptied, and what has become large of the index gets huge pages.
//!
//! Domains take turns of [`SLICE`] each, and go on where they stopped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use crate::arena::host::HUGE_PAGE;
use crate::arena::page_run::PageRun;
use crate::engine::Engine;
use crate::engine::domain::Domain;
use crate::shard::compact::{Step, Threshold};

/// Time of a domain's turn.
const SLICE: Duration = Duration::from_millis(1);
/// Records moved, or pages collected, while a shard is locked.
const RECORDS_PER_STEP: usize = 24;

/// One domain's place in the round. Its shards are gone through in a circle.
struct Turn {
    domain: Arc<Domain>,
    shard: usize,
    /// Shards to go through, this one included.
    left: usize,
}

/// The domains that are to be tidied.
#[derive(Default)]
pub(super) struct Tidy(VecDeque<Turn>);

impl Tidy {
    /// Adds a domain in which something has changed. One that is being tidied goes on where it is,
    /// for once around: were it sent back to its first shard, a guest that changes something all
    /// the time would never have the last ones tidied.
    pub(super) fn add(&mut self, domain: &Arc<Domain>) {
        let left = domain.len();
        match self.0.iter_mut().find(|turn| turn.domain.number == domain.number) {
            Some(turn) => turn.left = left,
            None => self.0.push_back(Turn { domain: Arc::clone(domain), shard: 0, left }),
        }
    }

    /// Tidies until nothing is left to do or the time is over; returns whether nothing is left.
    pub(super) fn run(&mut self, engine: &Engine, limit: Option<Duration>) -> bool {
        let started = Instant::now();
        // Taken out while it is worked on: one that fails does not come again at once.
        while let Some(mut turn) = self.0.pop_front() {
            if !turn.run(engine) {
                self.0.push_back(turn);
            }
            // Puts that grow wait for this.
            engine.make_ready();
            if limit.is_some_and(|limit| started.elapsed() >= limit) {
                return self.0.is_empty();
            }
        }
        true
    }
}

impl Turn {
    /// Goes on for one slice; returns whether all shards were gone through.
    fn run(&mut self, engine: &Engine) -> bool {
        let started = Instant::now();
        while self.left > 0 {
            if !self.step(engine) {
                move_index(engine, &self.domain, self.shard);
                self.next_shard();
            }
            if started.elapsed() >= SLICE {
                break;
            }
        }
        self.left == 0
    }

    fn next_shard(&mut self) {
        self.shard = (self.shard + 1) % self.domain.len();
        self.left -= 1;
    }

    /// One step in the shard; returns whether there is more to do there.
    fn step(&self, engine: &Engine) -> bool {
        let _in_hand = engine.in_hand.hold();
        let mut stripe = self.domain.lock(self.shard);
        let shard = &mut stripe.shard;
        let step = if shard.has_retired() {
            shard.collect(RECORDS_PER_STEP as u64);
            Step::More
        } else {
            shard.compact_step(Threshold::BACKGROUND, RECORDS_PER_STEP)
        };
        // To who waits, if anybody does; otherwise this thread, which is not asleep, would have it
        // again first, for many steps.
        MutexGuard::unlock_fair(stripe);
        match step {
            Step::Idle => false,
            Step::More => true,
            Step::Freed(slot) => {
                // Given back without the lock.
                drop(slot);
                engine.work_done.count_segment();
                true
            }
        }
    }
}

/// Puts what has become large of a shard's index on huge pages, which saves each operation half of
/// what it waits for addresses to be translated.
///
/// The kernel could do that by itself (`MADV_COLLAPSE`), but has everybody wait meanwhile who uses
/// the memory, 5 ms on a virtual machine. Here it takes copying 2 MiB under the lock of a shard.
fn move_index(engine: &Engine, domain: &Domain, shard: usize) {
    let _in_hand = engine.in_hand.hold();
    let full = domain.lock(shard).shard.nodes.take_full();
    let Some((number, mut charge)) = full else { return };
    // Both places are paid for as long as there are two.
    if charge.grow(HUGE_PAGE as u64).is_err() {
        return;
    }
    if let Ok(run) = PageRun::new_huge(engine.common.faults.clone()) {
        let old = domain.lock(shard).shard.nodes.move_run(number, run);
        drop(old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::domain::Common;

    #[test]
    fn a_domain_that_changes_all_the_time_is_tidied_to_its_last_shard() {
        let domain = Arc::new(Domain::new(&Common::small(4), false));
        let mut tidy = Tidy::default();
        let mut visited = [false; 4];
        for _ in 0..4 {
            tidy.add(&domain);
            // A round in which there is time for one shard.
            let turn = &mut tidy.0[0];
            visited[turn.shard] = true;
            turn.next_shard();
        }
        assert_eq!(visited, [true; 4], "shards that had their turn");
        for _ in 0..3 {
            tidy.0[0].next_shard();
        }
        assert_eq!(tidy.0[0].left, 0, "once around after the last change");
    }
}
