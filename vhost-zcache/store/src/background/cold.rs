// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The cold tier: pages not used for a while are stored again, smaller, by a slower codec.
//!
//! Time is coarse: each record keeps the epoch of its last use, a count of an eighth of the
//! configured age. One page at a time is copied out under the shard's lock, recompressed without
//! it, and put in place of the old record if that is still the one that was copied.
//!
//! Domains take turns of [`SLICE`] each, and go on where they stopped. A domain that was gone
//! through is left alone until a page of it can have become cold.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::work_done::WorkDone;
use crate::codec::{ColdEncoder, Scratch};
use crate::engine::domain::Domain;
use crate::key::{PAGE_SIZE, Page};
use crate::shard::cold::{ColdPage, EPOCHS, Search};
use crate::shard::space::record::PayloadSum;

/// A cold copy must be smaller than 15/16 of the page's bytes to be worth a slower get.
const WORTH: (usize, usize) = (15, 16);
/// Time of a domain's turn.
const SLICE: Duration = Duration::from_micros(200);

/// How cold pages are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColdConfig {
    /// Pages not used for this long are cold, give or take an eighth.
    pub after: Duration,
    /// Share of one CPU that recompression may take, in percent.
    pub cpu_percent: u32,
}

impl Default for ColdConfig {
    /// Cold after a minute, a tenth of a CPU.
    fn default() -> Self {
        Self { after: Duration::from_secs(60), cpu_percent: 10 }
    }
}

impl ColdConfig {
    fn epoch_length(&self) -> Duration {
        (self.after / EPOCHS).max(Duration::from_millis(1))
    }

    /// Epochs that have passed at a time since the start.
    fn epoch(&self, now: Duration) -> u64 {
        u64::try_from(now.as_millis() / self.epoch_length().as_millis()).unwrap_or(u64::MAX)
    }

    /// When an epoch begins.
    fn begin(&self, epoch: u64) -> Duration {
        let epoch = u32::try_from(epoch).unwrap_or(u32::MAX);
        self.epoch_length().saturating_mul(epoch)
    }
}

/// The part of an epoch that records keep.
fn low_byte(epoch: u64) -> u8 {
    (epoch & 0xff) as u8
}

/// One domain's place in the round.
struct Turn {
    domain: Arc<Domain>,
    shard: usize,
    /// The search of the shard has begun.
    begun: bool,
    /// The first epoch in which a page can become cold that was passed by.
    next: Option<u64>,
}

/// Recompresses cold pages of all domains, each in its turn.
pub(crate) struct ColdTier {
    config: ColdConfig,
    worker: Worker,
    turns: VecDeque<Turn>,
    /// By number of the domain: the epoch in which there may be a cold page. Those without one are
    /// left out.
    due: HashMap<u64, u64>,
    /// The epochs of this round and of the one before.
    epoch: u64,
    before: u64,
}

impl ColdTier {
    /// A tier that has nothing to do yet; `None` if there is no memory for its encoder.
    pub(crate) fn new(config: ColdConfig) -> Option<Self> {
        let worker = Worker::new()?;
        Some(Self { config, worker, turns: VecDeque::new(), due: HashMap::new(), epoch: 0, before: 0 })
    }

    /// The epoch at a time since the start, as records keep it.
    pub(crate) fn set_time(&mut self, now: Duration) -> u8 {
        self.before = self.epoch;
        self.epoch = self.config.epoch(now);
        low_byte(self.epoch)
    }

    /// Notes that pages were put into a domain since the round before.
    pub(crate) fn touch(&mut self, domain: &Domain) {
        let cold = self.before + u64::from(EPOCHS);
        self.due.entry(domain.number).and_modify(|due| *due = cold.min(*due)).or_insert(cold);
    }

    /// Time until there may be something to do, `None` if there never may.
    pub(crate) fn rest(&self, now: Duration) -> Option<Duration> {
        if !self.turns.is_empty() {
            return Some(Duration::ZERO);
        }
        let due = self.due.values().min()?;
        Some(self.config.begin(*due).saturating_sub(now))
    }

    /// Recompresses for about `budget`, one step at least unless it is zero.
    pub(crate) fn run(&mut self, domains: &[Arc<Domain>], budget: Duration, done: &WorkDone) {
        self.queue_due(domains);
        let started = Instant::now();
        let mut begun = false;
        while (!begun && !budget.is_zero()) || started.elapsed() < budget {
            begun = true;
            // Taken out while it is worked on: one that fails does not come again at once.
            let Some(mut turn) = self.turns.pop_front() else { return };
            let slice = SLICE.min(budget.saturating_sub(started.elapsed()));
            if self.worker.run(&mut turn, self.epoch, slice, done) {
                if let Some(next) = turn.next {
                    let due = self.due.entry(turn.domain.number).or_insert(next);
                    *due = next.min(*due);
                }
            } else {
                self.turns.push_back(turn);
            }
        }
    }

    /// Gives a turn to every domain that may have a cold page, and forgets those that are gone.
    fn queue_due(&mut self, domains: &[Arc<Domain>]) {
        let epoch = self.epoch;
        for domain in domains {
            let due = self.due.get(&domain.number).is_some_and(|due| *due <= epoch);
            if due && self.turns.iter().all(|turn| turn.domain.number != domain.number) {
                self.due.remove(&domain.number);
                self.turns.push_back(Turn { domain: Arc::clone(domain), shard: 0, begun: false, next: None });
            }
        }
        if self.due.len() > domains.len() {
            self.due.retain(|number, _| domains.iter().any(|domain| domain.number == *number));
        }
    }
}

/// The codecs of the cold tier.
struct Worker {
    encoder: ColdEncoder,
    scratch: Scratch,
    page: Box<Page>,
}

impl Worker {
    fn new() -> Option<Self> {
        let encoder = ColdEncoder::new()?;
        Some(Self { encoder, scratch: Scratch::new(), page: Box::new([0; PAGE_SIZE]) })
    }

    /// Goes on with a domain for one slice; returns whether its end was reached.
    fn run(&mut self, turn: &mut Turn, epoch: u64, slice: Duration, done: &WorkDone) -> bool {
        let started = Instant::now();
        while turn.shard < turn.domain.len() {
            let mut stripe = turn.domain.lock(turn.shard);
            if !turn.begun {
                stripe.shard.begin_cold();
                turn.begun = true;
            }
            let next = &mut turn.next;
            let young = |age: u32| {
                let cold = epoch + u64::from(EPOCHS - age);
                *next = Some(next.map_or(cold, |next| cold.min(next)));
            };
            let found = stripe.shard.next_cold(low_byte(epoch), &mut self.scratch.stored, young);
            drop(stripe);
            match found {
                Search::Found(page) => done.count_cold(self.recompress(&turn.domain, turn.shard, &page)),
                Search::Paused => {}
                Search::Done => {
                    turn.shard += 1;
                    turn.begun = false;
                }
            }
            if started.elapsed() >= slice {
                return turn.shard >= turn.domain.len();
            }
        }
        true
    }

    /// Tries to make a page smaller; whether its record is to be replaced.
    fn recompress(&mut self, domain: &Domain, shard: usize, page: &ColdPage) -> bool {
        let ColdPage { head, name, .. } = *page;
        let stored = self.scratch.stored.get(..head.length()).unwrap_or_default();
        let intact = PayloadSum::new(stored).finish(head, name) == head.checksum()
            && self.scratch.decode(head.codec(), head.length(), &mut self.page).is_ok();
        let most = head.length() * WORTH.0 / WORTH.1;
        let smaller = if intact { self.encoder.encode(&self.page, most) } else { None };
        domain.lock(shard).shard.settle(page, smaller);
        smaller.is_some()
    }
}
