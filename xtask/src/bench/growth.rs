// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether operations stay as fast while the store grows, and the longest of all.

use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use zcache_store::{GetMode, GuestConfig, PAGE_SIZE, Page, PoolKind, Scratch, Store, StoreConfig};

use super::corpus::Corpus;
use super::median::median;
use super::memory;
use super::random::Random;
use super::shape::{POOL, Shape};

/// Pages at which the first figures are taken.
const SMALL: u64 = 65_536;
/// Operations of each kind that a percentile is taken of.
const SAMPLES: usize = 40_000;
/// How often the percentiles are taken.
const PASSES: u64 = 15;
/// Most pages of bare memory beside the store.
const RAW: u64 = 1 << 19;

/// Latencies at one size.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Latency {
    pub(super) pages: u64,
    pub(super) put_p50_ns: u64,
    pub(super) put_p99_ns: u64,
    pub(super) get_p50_ns: u64,
    pub(super) get_p99_ns: u64,
    /// Copying a page out of bare memory, of which as many pages are used, but no more than fit beside the store.
    pub(super) raw_p50_ns: u64,
    pub(super) raw_p99_ns: u64,
}

/// Growth from 64 thousand pages.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Growth {
    /// Medians of the passes.
    pub(super) small: Latency,
    /// Medians of the passes.
    pub(super) large: Latency,
    /// Each pass over the grown store. In a virtual machine it meets the hypervisor's own page faults, where
    /// that maps memory anew: 10 us and more each, of which the thread counts neither a fault nor a wait.
    /// Then copies from bare memory take as long, now and then.
    pub(super) large_passes: Vec<Latency>,
    /// The longest operation during which the thread had its CPU all the time.
    pub(super) longest_op_ms: f64,
    /// The longest of all, waiting for a CPU included.
    pub(super) longest_wall_ms: f64,
    /// Operations above half a millisecond during which the CPU was taken away.
    pub(super) preempted: u64,
}

/// Times operations and tells long ones from those that lost their CPU.
struct Watch {
    losses: u64,
    since_check: u32,
    longest: Duration,
    longest_wall: Duration,
    preempted: u64,
}

/// How often this thread was preempted, plus the ticks that the hypervisor gave to others (steal time,
/// proc(5); of all CPUs, since the thread moves).
fn losses() -> Result<u64> {
    let status = fs::read_to_string("/proc/thread-self/status")?;
    let count = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"));
    let switches: u64 = count.context("/proc/thread-self/status has no nonvoluntary_ctxt_switches")?.trim().parse()?;
    let stat = fs::read_to_string("/proc/stat")?;
    let stolen: u64 = stat.split_ascii_whitespace().nth(8).context("/proc/stat has no steal time")?.parse()?;
    Ok(switches + stolen)
}

impl Watch {
    fn new() -> Result<Self> {
        let losses = losses()?;
        let longest = Duration::ZERO;
        Ok(Self { losses, since_check: 0, longest, longest_wall: longest, preempted: 0 })
    }

    fn time(&mut self, work: impl FnOnce() -> Result<()>) -> Result<u64> {
        let started = Instant::now();
        work()?;
        let elapsed = started.elapsed();
        self.longest_wall = self.longest_wall.max(elapsed);
        self.since_check += 1;
        if elapsed > Duration::from_micros(500) || self.since_check == 64 {
            let now = losses()?;
            if elapsed > Duration::from_micros(500) && now != self.losses {
                self.preempted += 1;
            } else {
                self.longest = self.longest.max(elapsed);
            }
            self.losses = now;
            self.since_check = 0;
        }
        Ok(u64::try_from(elapsed.as_nanos())?)
    }
}

struct Run<'a> {
    guest: &'a zcache_store::Guest,
    corpus: &'a Corpus,
    raw: &'a [Page],
    scratch: Scratch,
    watch: Watch,
}

impl Run<'_> {
    fn put(&mut self, key: u64, page: usize) -> Result<u64> {
        let page = &self.corpus.pages[page % self.corpus.pages.len()];
        let (guest, scratch) = (self.guest, &mut self.scratch);
        self.watch.time(|| guest.put(scratch, &Shape::Files.key(key), page).context("a put was refused"))
    }

    fn get(&mut self, key: u64) -> Result<u64> {
        let mut out = [0; PAGE_SIZE];
        let (guest, scratch) = (self.guest, &mut self.scratch);
        self.watch.time(|| Ok(guest.get(scratch, &Shape::Files.key(key), GetMode::Plain, &mut out)?))
    }

    /// Measures `PASSES` times, other keys each time.
    fn passes(&mut self, pages: u64) -> Result<Vec<Latency>> {
        (0..PASSES).map(|pass| self.latency(pages, pass)).collect()
    }

    fn latency(&mut self, pages: u64, seed: u64) -> Result<Latency> {
        let mut random = Random::new(seed);
        let mut puts = Vec::with_capacity(SAMPLES);
        let mut gets = Vec::with_capacity(SAMPLES);
        let mut raws = Vec::with_capacity(SAMPLES);
        let mut out = [0; PAGE_SIZE];
        for sample in 0..SAMPLES {
            let key = |random: &mut Random| random.next() % pages;
            let put = key(&mut random);
            puts.push(self.put(put, sample)?);
            let get = key(&mut random);
            gets.push(self.get(get)?);
            let raw = usize::try_from(key(&mut random))? % self.raw.len();
            let started = Instant::now();
            out.copy_from_slice(&self.raw[raw]);
            black_box(&out);
            raws.push(u64::try_from(started.elapsed().as_nanos())?);
        }
        puts.sort_unstable();
        gets.sort_unstable();
        raws.sort_unstable();
        Ok(Latency {
            pages,
            put_p50_ns: puts[SAMPLES / 2],
            put_p99_ns: puts[SAMPLES * 99 / 100],
            get_p50_ns: gets[SAMPLES / 2],
            get_p99_ns: gets[SAMPLES * 99 / 100],
            raw_p50_ns: raws[SAMPLES / 2],
            raw_p99_ns: raws[SAMPLES * 99 / 100],
        })
    }
}

/// The median of each figure.
fn medians(passes: &[Latency]) -> Latency {
    let of = |figure: fn(&Latency) -> u64| median(passes.iter().map(figure));
    Latency {
        pages: of(|pass| pass.pages),
        put_p50_ns: of(|pass| pass.put_p50_ns),
        put_p99_ns: of(|pass| pass.put_p99_ns),
        get_p50_ns: of(|pass| pass.get_p50_ns),
        get_p99_ns: of(|pass| pass.get_p99_ns),
        raw_p50_ns: of(|pass| pass.raw_p50_ns),
        raw_p99_ns: of(|pass| pass.raw_p99_ns),
    }
}

/// Grows a store to `pages` pages, or as far as memory goes.
pub(super) fn measure(corpus: &Corpus, pages: u64) -> Result<Growth> {
    let store = Store::new(StoreConfig { cold: None, ..StoreConfig::new(u64::MAX) })?;
    let guest = store.register_guest(GuestConfig::new("bench"));
    guest.create_pool(POOL, PoolKind::Persistent)?;
    let raw_pages = usize::try_from(RAW.min(memory::available()? / 12 / PAGE_SIZE as u64))?;
    let raw: Vec<Page> = corpus.pages.iter().cycle().take(raw_pages).copied().collect();
    let mut run = Run { guest: &guest, corpus, raw: &raw, scratch: Scratch::new(), watch: Watch::new()? };
    for key in 0..SMALL {
        run.put(key, usize::try_from(key)?)?;
    }
    let small = medians(&run.passes(SMALL)?);
    // An eighth of the memory stays free: a machine that begins to swap measures nothing.
    let enough = memory::available()? / 8;
    let mut reached = SMALL;
    while reached < pages && (!reached.is_multiple_of(SMALL) || memory::available()? > enough) {
        run.put(reached, usize::try_from(reached)?)?;
        reached += 1;
    }
    let large_passes = run.passes(reached)?;
    Ok(Growth {
        small,
        large: medians(&large_passes),
        large_passes,
        longest_op_ms: run.watch.longest.as_secs_f64() * 1e3,
        longest_wall_ms: run.watch.longest_wall.as_secs_f64() * 1e3,
        preempted: run.watch.preempted,
    })
}
