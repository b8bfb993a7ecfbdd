// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which policy a heap follows: the one that would have hit more often of late.
//!
//! No policy is best for every guest. S3-FIFO gets the most from a few popular pages among many
//! others, and a scan or a long loop does not empty it; but when what a guest works on changes, it
//! takes the new for a scan. CLOCK follows at once. So both are played on a sample of the keys, a
//! few hundred of them, and a heap does what the better of both does. (A cache that lets two
//! policies compete on a part of itself: Qureshi et al., *Adaptive Insertion Policies for High
//! Performance Caching*, ISCA 2007. A sample of the keys with as small a part of the memory tells a
//! policy's hit ratio: Waldspurger et al., *Cache Modeling and Optimization using Miniature
//! Simulations*, ATC 2017.)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use parking_lot::Mutex;

use super::Policy;
use super::shadow::Shadow;
use crate::accounting::{Account, Charge, Use};

/// Pages from which on a heap plays; what the shadows take would be too much of a smaller one.
/// Tests use small stores.
const LEAST: u64 = if cfg!(feature = "check") { 64 } else { 4096 };
/// Sampled pages that a heap has at first, at least. With much fewer, chance decides.
const SAMPLE: u64 = 256;
/// Sampled pages from which on every other key is left out.
const MOST: u64 = 2 * SAMPLE;
/// Sampled pages below which twice as many keys are sampled.
const FEW: u64 = SAMPLE / 2;
/// What is charged for the shadows: four queues at their largest, with 32 bytes for an entry and 9
/// for each place of a table that is half full.
const BYTES: u64 = 4 * MOST * (32 + 2 * 9);
/// No key begins with so many zeros.
const NEVER: u32 = u32::MAX;
/// The lead by which a policy must win, as a part of the sampled pages: 2 % of the gets that are
/// remembered. On generated traces of 8192 pages this followed all changes, and chance almost none.
const MARGIN: i64 = 12;

/// The duel of one heap, over all shards of its domain.
pub(crate) struct Duel {
    account: Arc<Account>,
    shards: u64,
    /// Keys that begin with so many zeros are in the sample.
    zeros: AtomicU32,
    clock_is_better: AtomicBool,
    /// Whether the heap has evicted pages; before, there is room for all.
    evicting: AtomicBool,
    /// Looked into with a shard's lock held, so nobody waits for it: what meets another thread
    /// there is not sampled.
    played: Mutex<Option<Played>>,
}

struct Played {
    s3_fifo: Shadow,
    clock: Shadow,
    /// Sampled pages in the heap, in 256ths; the mean of what each shard's share of them lets
    /// expect.
    capacity: u64,
    /// Hits of CLOCK beyond those of S3-FIFO. An eighth of it is forgotten with each half of a heap
    /// that is asked for, so what counts are the last four times as many gets as there are pages.
    lead: i64,
    gets: i64,
    /// Dropped last: what the shadows take is paid for until then.
    _charge: Charge,
}

impl Duel {
    pub(crate) fn new(account: Arc<Account>, shards: usize) -> Self {
        Self {
            account,
            shards: shards as u64,
            zeros: AtomicU32::new(NEVER),
            clock_is_better: AtomicBool::new(false),
            evicting: AtomicBool::new(false),
            played: Mutex::new(None),
        }
    }

    pub(crate) fn policy(&self) -> Policy {
        if self.clock_is_better.load(Relaxed) { Policy::Clock } else { Policy::S3Fifo }
    }

    /// Called when the heap evicts a page: from then on, policies matter.
    pub(crate) fn evict(&self) {
        if !self.evicting.load(Relaxed) {
            self.evicting.store(true, Relaxed);
        }
    }

    /// Begins, when a heap has `pages` pages and there is memory for it.
    fn begin(&self, pages: u64) {
        let Some(mut played) = self.played.try_lock() else { return };
        let mut charge = Charge::none(Arc::clone(&self.account), Use::Kept);
        if played.is_some() || charge.grow(BYTES).is_err() {
            return;
        }
        let zeros = (pages / SAMPLE).max(1).ilog2();
        let (s3_fifo, clock) = (Shadow::new(Policy::S3Fifo), Shadow::new(Policy::Clock));
        let capacity = (pages << 8) >> zeros;
        *played = Some(Played { s3_fifo, clock, capacity, lead: 0, gets: 0, _charge: charge });
        self.zeros.store(zeros, Relaxed);
    }

    /// Does something with the shadows if a name is in the sample.
    fn play(&self, name: u64, work: impl FnOnce(&mut Played, u32)) {
        let key = (name >> 32 & 0xffff_ffff) as u32;
        if key.leading_zeros() >= self.zeros.load(Relaxed)
            && let Some(mut played) = self.played.try_lock()
            && let Some(played) = &mut *played
        {
            work(played, key);
        }
    }

    /// A page is put into a shard that has `pages` pages of the heap.
    pub(crate) fn put(&self, name: u64, pages: u64) {
        let pages = pages * self.shards;
        if pages >= LEAST && self.zeros.load(Relaxed) == NEVER {
            self.begin(pages);
        }
        self.play(name, |played, key| {
            let zeros = self.zeros.load(Relaxed);
            let evicting = self.evicting.load(Relaxed);
            played.capacity = if evicting {
                played.capacity - played.capacity / 64 + ((pages << 8) >> zeros) / 64
            } else {
                (played.clock.len() as u64 + 1) << 8
            };
            let sampled = played.capacity >> 8;
            let capacity = usize::try_from(sampled).unwrap_or(usize::MAX);
            played.s3_fifo.put(key, capacity);
            played.clock.put(key, capacity);
            if sampled >= MOST {
                played.thin_out(zeros + 1);
                self.zeros.store(zeros + 1, Relaxed);
            } else if evicting && sampled < FEW && zeros > 0 {
                played.capacity *= 2;
                self.zeros.store(zeros - 1, Relaxed);
            }
        });
    }

    /// A page is asked for.
    pub(crate) fn get(&self, name: u64, exclusive: bool) {
        self.play(name, |played, key| {
            let [s3_fifo, clock] =
                [&mut played.s3_fifo, &mut played.clock].map(|shadow| i64::from(shadow.get(key, exclusive)));
            played.lead += clock - s3_fifo;
            let sampled = (played.capacity >> 8).cast_signed();
            // The sample of a heap that has become very small says little.
            if played.lead.abs() * MARGIN > sampled.max(SAMPLE.cast_signed()) {
                self.clock_is_better.store(played.lead > 0, Relaxed);
            }
            played.gets += 1;
            if played.gets * 2 >= sampled {
                played.gets = 0;
                played.lead -= played.lead / 8;
            }
        });
    }

    /// A page became invalid.
    pub(crate) fn flush(&self, name: u64) {
        self.play(name, |played, key| {
            played.s3_fifo.flush(key);
            played.clock.flush(key);
        });
    }
}

impl Played {
    /// Leaves every other key out.
    fn thin_out(&mut self, zeros: u32) {
        self.capacity /= 2;
        for shadow in [&mut self.s3_fifo, &mut self.clock] {
            shadow.retain(|key| key.leading_zeros() >= zeros);
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use crate::shard::evict::learn::name;

    const PAGES: u64 = 16_384;

    /// A duel of a heap that always has `PAGES` pages, in one shard.
    fn duel() -> Duel {
        let duel = Duel::new(Account::unlimited_store(None), 1);
        duel.evict();
        duel
    }

    /// A guest uses a page: it asks for it, and evicts it again soon.
    fn use_page(duel: &Duel, page: u64) {
        let name = name(0x1234_5678, page);
        duel.get(name, true);
        duel.put(name, PAGES);
    }

    /// Reads one set of files twice, then another.
    fn work_that_changes(duel: &Duel, from: u64) {
        for set in from..from + 8 {
            for page in (0..PAGES / 2).chain(0..PAGES / 2) {
                use_page(duel, set * PAGES + page);
            }
        }
    }

    /// Reads popular files, and as many others only once.
    fn popular_pages_and_a_scan(duel: &Duel, from: u64) {
        for page in 0..PAGES * 16 {
            use_page(duel, page.wrapping_mul(7919) % (PAGES / 2));
            use_page(duel, from + page);
        }
    }

    #[test]
    fn the_policy_follows_what_the_guest_does() {
        let duel = duel();
        popular_pages_and_a_scan(&duel, 1 << 32);
        assert_eq!(duel.policy(), Policy::S3Fifo, "a scan makes recency look good");
        work_that_changes(&duel, 1 << 16);
        assert_eq!(duel.policy(), Policy::Clock, "work that changes goes unnoticed");
        popular_pages_and_a_scan(&duel, 1 << 34);
        assert_eq!(duel.policy(), Policy::S3Fifo, "a scan goes unnoticed after work that changed");
    }

    #[test]
    fn the_sample_of_a_heap_of_any_size_has_a_few_hundred_pages() {
        let duel = duel();
        let mut most = 0;
        for page in 0..2_000_000 {
            duel.put(name(0x1234_5678, page), page + 1);
            if let Some(played) = &*duel.played.lock() {
                most = most.max(played.s3_fifo.len() as u64).max(played.clock.len() as u64);
            }
        }
        assert!(most >= SAMPLE, "at most {most} pages are in a sample: it says nothing");
        assert!(most <= MOST, "{most} pages are in a sample, and {MOST} are paid for");
        for page in 0..2_000_000 {
            duel.put(name(0x1234_5678, page), PAGES);
        }
        let left = duel.played.lock().as_ref().map_or(0, |played| played.s3_fifo.len() as u64);
        assert!(left >= FEW, "{left} pages are in the sample of a heap that has become small");
    }

    #[test]
    fn without_memory_for_it_there_is_no_duel() {
        let duel = Duel::new(Account::unlimited_store(Some(BYTES - 1)), 1);
        work_that_changes(&duel, 0);
        assert_eq!(duel.policy(), Policy::S3Fifo);
        assert!(duel.played.lock().is_none(), "shadows that nobody pays for");
    }
}
