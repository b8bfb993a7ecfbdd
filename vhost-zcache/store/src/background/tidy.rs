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

/// One domain's place in the round.
struct Turn {
    domain: Arc<Domain>,
    shard: usize,
}

/// The domains that are to be tidied.
#[derive(Default)]
pub(super) struct Tidy(VecDeque<Turn>);

impl Tidy {
    /// Adds a domain in which something has changed. One that is being tidied is gone through again
    /// when its turn comes to an end: the change is found as it is noted anew, or in a later round.
    pub(super) fn add(&mut self, domain: &Arc<Domain>) {
        match self.0.iter_mut().find(|turn| turn.domain.number == domain.number) {
            Some(turn) => turn.shard = 0,
            None => self.0.push_back(Turn { domain: Arc::clone(domain), shard: 0 }),
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
    /// Goes on for one slice; returns whether the end of the domain was reached.
    fn run(&mut self, engine: &Engine) -> bool {
        let started = Instant::now();
        while self.shard < self.domain.len() {
            if !self.step() {
                move_index(engine, &self.domain, self.shard);
                self.shard += 1;
            }
            if started.elapsed() >= SLICE {
                break;
            }
        }
        self.shard >= self.domain.len()
    }

    /// One step in the shard; returns whether there is more to do there.
    fn step(&self) -> bool {
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
