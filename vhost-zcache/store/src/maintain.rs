// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What happens besides requests: compaction, in steps of microseconds.

use std::sync::Weak;
use std::thread;
use std::time::Duration;

use crate::compact::{Step, Threshold};
use crate::domain::Domain;
use crate::engine::Engine;

/// Records moved while a shard is locked.
const RECORDS_PER_STEP: usize = 24;
/// Pause when there is nothing to do.
const PAUSE: Duration = Duration::from_millis(20);

impl Engine {
    /// Compacts until no shard is worth it; returns whether any was.
    pub(crate) fn compact_all(&self) -> bool {
        let mut worked = false;
        self.each_domain(|domain| {
            for shard in 0..domain.len() {
                worked |= compact_shard(domain, shard);
            }
        });
        worked
    }
}

fn compact_shard(domain: &Domain, shard: usize) -> bool {
    let mut worked = false;
    loop {
        let step = domain.lock(shard).compact_step(Threshold::BACKGROUND, RECORDS_PER_STEP);
        match step {
            Step::Idle => return worked,
            Step::More => {}
            // The segment is given back here, without the lock.
            Step::Freed(slot) => drop(slot),
        }
        worked = true;
    }
}

/// Starts the thread, which ends when the engine does.
pub(crate) fn start(engine: Weak<Engine>) -> std::io::Result<()> {
    thread::Builder::new().name("zcache-store".into()).spawn(move || {
        while let Some(engine) = engine.upgrade() {
            engine.compact_all();
            drop(engine);
            thread::sleep(PAUSE);
        }
    })?;
    Ok(())
}
