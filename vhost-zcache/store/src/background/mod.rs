// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What happens besides requests: memory made resident ahead of puts, compaction in steps of
//! microseconds, and recompression of cold pages within its share of a CPU.

pub(crate) mod cold;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use crate::arena::host::HUGE_PAGE;
use crate::arena::page_run::PageRun;
use crate::background::cold::{ColdConfig, ColdWorker};
use crate::engine::Engine;
use crate::engine::domain::Domain;
use crate::shard::compact::{Step, Threshold};

/// Records moved while a shard is locked.
const RECORDS_PER_STEP: usize = 24;
/// One round of the thread: what there is to do, then rest.
const ROUND: Duration = Duration::from_millis(20);

impl Engine {
    /// Compacts until no shard is worth it.
    pub(crate) fn compact_all(&self) {
        self.each_domain(|domain| {
            for shard in 0..domain.len() {
                compact_shard(domain, shard);
            }
        });
    }

    /// Puts what has become large of the index on huge pages, which saves each operation half of what it waits for
    /// addresses to be translated.
    ///
    /// The kernel could do that by itself (`MADV_COLLAPSE`), but has everybody wait meanwhile who uses the memory,
    /// 5 ms on a virtual machine. Here it takes copying 2 MiB under the lock of a shard.
    pub(crate) fn move_index(&self) {
        self.each_domain(|domain| {
            for shard in 0..domain.len() {
                let full = domain.lock(shard).nodes.take_full();
                let Some((number, mut charge)) = full else { continue };
                // Both places are paid for as long as there are two.
                if charge.grow(HUGE_PAGE as u64).is_err() {
                    continue;
                }
                if let Ok(run) = PageRun::new_huge(self.common.faults.clone()) {
                    let old = domain.lock(shard).nodes.move_run(number, run);
                    drop(old);
                }
            }
        });
    }

    /// Makes segments ready for heaps that asked for it.
    pub(crate) fn make_ready(&self) {
        if self.common.wake.asked() {
            self.each_domain(|domain| domain.make_ready(&self.common.arena));
        }
    }

    /// Recompresses pages that are cold at `now`, for at most `budget`.
    pub(crate) fn recompress(&self, worker: &mut ColdWorker, now: Duration, mut budget: Duration) {
        let Some(config) = self.cold else { return };
        let epoch = config.epoch(now);
        self.epoch.store(epoch, Relaxed);
        self.each_domain(|domain| {
            for shard in 0..domain.len() {
                let started = Instant::now();
                worker.run(domain, shard, epoch, budget);
                budget = budget.saturating_sub(started.elapsed());
            }
        });
    }
}

fn compact_shard(domain: &Domain, shard: usize) {
    loop {
        let mut locked = domain.lock(shard);
        let step = locked.compact_step(Threshold::BACKGROUND, RECORDS_PER_STEP);
        // To who waits, if anybody does; otherwise this thread, which is not asleep, would have it again first,
        // for many steps.
        MutexGuard::unlock_fair(locked);
        match step {
            Step::Idle => return,
            Step::More => {}
            // The segment is given back here, without the lock.
            Step::Freed(slot) => drop(slot),
        }
    }
}

/// Time of a round that recompression may take.
fn share(config: ColdConfig) -> Duration {
    ROUND * config.cpu_percent.min(100) / 100
}

/// Starts the thread, which ends when the engine does.
pub(crate) fn start(engine: &Arc<Engine>) -> std::io::Result<()> {
    let started = Instant::now();
    let mut worker = ColdWorker::new();
    let wake = Arc::clone(&engine.common.wake);
    let engine = Arc::downgrade(engine);
    let thread = thread::Builder::new().name("zcache-store".into()).spawn(move || {
        let mut next_round = Instant::now();
        while let Some(engine) = engine.upgrade() {
            if Instant::now() >= next_round {
                engine.compact_all();
                engine.move_index();
                engine.each_domain(Domain::settle);
                if let (Some(worker), Some(config)) = (&mut worker, engine.cold) {
                    engine.recompress(worker, started.elapsed(), share(config));
                }
                next_round = Instant::now() + ROUND;
            }
            engine.make_ready();
            drop(engine);
            // Until then, or until a heap asks for segments.
            thread::park_timeout(next_round.saturating_duration_since(Instant::now()));
        }
    })?;
    wake.set_thread(thread.thread().clone());
    Ok(())
}
