// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What happens besides requests, by one thread for the whole store.
//!
//! A *round* does, in this order: segments made ready for heaps that grow; garbage given back;
//! domains tidied in which something has changed ([`tidy`]); cold pages recompressed within their
//! share of a CPU ([`cold`]). Domains take turns within each of these, so that a large guest does
//! not keep the background from a small one. When there is nothing to do the thread sleeps until
//! somebody changes something.

pub(crate) mod cold;
mod tidy;
pub(crate) mod work_done;

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use log::error;

use self::cold::{ColdConfig, ColdTier};
use self::tidy::Tidy;
use crate::engine::Engine;

/// Time from one round to the next while there is something to do.
const ROUND: Duration = Duration::from_millis(20);
/// Segments of garbage given back at a time, and times before anything else has its turn.
const GARBAGE: usize = 8;
const TIMES: usize = 8;
/// Time that tidying may take of a round; the next one then begins at once.
const TIDYING: Duration = Duration::from_millis(100);
/// Longest sleep, after which the thread looks whether the store is still there.
const LONGEST: Duration = Duration::from_secs(60);
/// Rest after a failure; it doubles with each that follows, as far as `MOST_REST`.
const LEAST_REST: Duration = Duration::from_millis(100);
const MOST_REST: Duration = Duration::from_secs(30);

/// What a round may take.
pub(crate) struct Allowance {
    /// Until when domains are tidied, `None` for as long as there is something to tidy.
    pub(crate) tidying: Option<Duration>,
    pub(crate) recompression: Duration,
}

/// Where the background goes on. It outlives a failure of a round, and does not go back to what the
/// round failed at.
pub(crate) struct Upkeep {
    tidy: Tidy,
    cold: Option<ColdTier>,
}

impl Upkeep {
    pub(crate) fn new(cold: Option<ColdConfig>) -> Self {
        Self { tidy: Tidy::default(), cold: cold.and_then(ColdTier::new) }
    }

    /// One round at `now`, the time since some start; returns how long it may be to the next,
    /// `None` if nothing is left to do before somebody changes something.
    pub(crate) fn round(&mut self, engine: &Engine, now: Duration, allowance: &Allowance) -> Option<Duration> {
        engine.common.faults.check_background();
        engine.make_ready();
        let garbage = (0..TIMES).take_while(|_| engine.release_garbage(None, GARBAGE).is_some()).count() > 0;
        let domains = engine.registry.domains();
        if let Some(cold) = &mut self.cold {
            engine.epoch.store(cold.set_time(now), Relaxed);
        }
        for domain in &domains {
            if domain.take_touched() {
                self.tidy.add(domain);
                if let Some(cold) = &mut self.cold {
                    cold.touch(domain);
                }
            }
        }
        let tidied = self.tidy.run(engine, allowance.tidying);
        let settling = domains.iter().filter(|domain| domain.settle()).count() > 0;
        let rest = self.cold.as_mut().and_then(|cold| {
            cold.run(&domains, allowance.recompression, &engine.work_done);
            cold.rest(now)
        });
        if !tidied || garbage {
            return Some(Duration::ZERO);
        }
        if settling { Some(ROUND) } else { rest.map(|rest| rest.max(ROUND)) }
    }
}

/// Starts the thread, which does `first` and ends when the engine does.
pub(crate) fn start(engine: &Arc<Engine>, first: fn()) -> std::io::Result<()> {
    let wake = Arc::clone(&engine.common.wake);
    let mut upkeep = Upkeep::new(engine.cold);
    let engine = Arc::downgrade(engine);
    let thread = thread::Builder::new().name("zcache-store".into()).spawn(move || {
        first();
        let started = Instant::now();
        let mut rest = LEAST_REST;
        while let Err(failure) = panic::catch_unwind(AssertUnwindSafe(|| run(&engine, &mut upkeep, started))) {
            let Some(engine) = engine.upgrade() else { return };
            engine.background_failures.fetch_add(1, Relaxed);
            error!("The background of the store failed and is started again in {rest:?}: {}", reason(&*failure));
            drop(engine);
            thread::sleep(rest);
            rest = (rest * 2).min(MOST_REST);
        }
    })?;
    wake.set_thread(thread.thread().clone());
    Ok(())
}

/// What a panic says.
fn reason(failure: &(dyn std::any::Any + Send)) -> &str {
    let text = failure.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| failure.downcast_ref::<&str>().copied()).unwrap_or("a panic")
}

fn run(engine: &Weak<Engine>, upkeep: &mut Upkeep, started: Instant) {
    let (mut last_round, mut next_round) = (Instant::now(), Instant::now());
    let mut idle = false;
    while let Some(engine) = engine.upgrade() {
        let wake = &engine.common.wake;
        if idle && !wake.is_idle() {
            // Not sooner than without the rest, however often it is roused.
            idle = false;
            next_round = next_round.min(last_round + ROUND);
        }
        if Instant::now() >= next_round {
            let cpu_percent = engine.cold.map_or(0, |cold| cold.cpu_percent.min(100));
            // Its share of the time since the last round, which may have been just now.
            let passed = last_round.elapsed().min(ROUND);
            last_round = Instant::now();
            let allowance = Allowance { tidying: Some(TIDYING), recompression: passed * cpu_percent / 100 };
            let rest = upkeep.round(&engine, started.elapsed(), &allowance);
            next_round = Instant::now() + rest.unwrap_or(Duration::MAX).min(LONGEST);
            idle = rest.is_none_or(|rest| rest > ROUND);
            wake.announce_idle(idle);
            // What was done before the announcement roused nobody.
            if idle && engine.has_work() {
                next_round = Instant::now() + ROUND;
            }
        }
        engine.make_ready();
        drop(engine);
        thread::park_timeout(next_round.saturating_duration_since(Instant::now()));
    }
}

impl Engine {
    /// Makes segments ready for heaps that asked for it.
    fn make_ready(&self) {
        if self.common.wake.asked() {
            let _in_hand = self.in_hand.hold();
            for domain in self.registry.domains() {
                domain.make_ready(&self.common.arena);
            }
        }
    }

    /// Whether there is anything for the background that it may not have seen.
    fn has_work(&self) -> bool {
        !self.garbage.is_empty() || self.registry.domains().iter().any(|domain| domain.is_touched())
    }
}
