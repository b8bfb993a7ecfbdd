// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether operations stay as fast while the store grows, and the longest of all.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::fs::{SeekFrom, seek};
use serde::Serialize;
use zcache_store::{GetMode, Guest, GuestConfig, PAGE_SIZE, PoolKind, Scratch, Store, StoreConfig};

use super::corpus::Corpus;
use super::median::median;
use super::memory;
use super::random::Random;
use super::shape::{POOL, Shape};
use super::watch::Watch;

/// Pages at which the first figures are taken.
const SMALL: u64 = 65_536;
/// Operations of each kind that a percentile is taken of.
const SAMPLES: usize = 40_000;
/// How often the percentiles are taken.
const PASSES: u64 = 15;

/// Latencies at one size.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Latency {
    pub(super) pages: u64,
    pub(super) put_p50_ns: u64,
    pub(super) put_p99_ns: u64,
    pub(super) get_p50_ns: u64,
    pub(super) get_p99_ns: u64,
    /// Reading one word of a random page of the store's memory file, a system call included.
    pub(super) touch_p50_ns: u64,
    pub(super) touch_p99_ns: u64,
}

/// A store of 64 thousand pages and one that grew beyond.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Growth {
    /// Medians of the passes.
    pub(super) small: Latency,
    /// Medians of the passes.
    pub(super) large: Latency,
    /// Each pass, of the small and the grown store.
    pub(super) passes: Vec<[Latency; 2]>,
    /// The longest operation, less the time that others had its CPU.
    pub(super) longest_op_ms: f64,
    /// The longest of all, waiting for a CPU included.
    pub(super) longest_wall_ms: f64,
    /// Operations above half a millisecond during which the CPU was taken away.
    pub(super) preempted: u64,
}

/// The resident pages of the store's arena, to touch them from outside.
struct Pages {
    file: File,
    at: Vec<u64>,
}

impl Pages {
    fn of(store: &Store) -> Result<Self> {
        let file = store.memory_file()?;
        let mut at = Vec::new();
        let mut from = 0;
        while let Ok(data) = seek(&file, SeekFrom::Data(from)) {
            from = seek(&file, SeekFrom::Hole(data))?;
            at.extend((data..from).step_by(PAGE_SIZE));
        }
        Ok(Self { file, at })
    }

    /// Reads a word of a page.
    fn touch(&self, at: u64) -> Result<()> {
        let mut word = [0; 8];
        self.file.read_exact_at(&mut word, at)?;
        black_box(word);
        Ok(())
    }

    fn touch_all(&self) -> Result<()> {
        self.at.iter().try_for_each(|at| self.touch(*at))
    }

    fn random(&self, random: &mut Random) -> Result<u64> {
        Ok(self.at[usize::try_from(random.next() % self.at.len() as u64)?])
    }
}

/// A store under measurement.
struct Run<'a> {
    store: Store,
    guest: Guest,
    /// Pages it holds.
    pages: u64,
    corpus: &'a Corpus,
    scratch: Scratch,
    watch: Watch,
}

impl<'a> Run<'a> {
    fn new(corpus: &'a Corpus) -> Result<Self> {
        let store = Store::new(StoreConfig { cold: None, ..StoreConfig::new(u64::MAX) })?;
        let guest = store.register_guest(GuestConfig::new("bench"));
        guest.create_pool(POOL, PoolKind::Persistent)?;
        Ok(Self { store, guest, pages: 0, corpus, scratch: Scratch::new(), watch: Watch::new()? })
    }

    /// Puts pages until there are `pages`, or as far as memory goes.
    fn grow(&mut self, pages: u64) -> Result<()> {
        // An eighth of the memory stays free: a machine that begins to swap measures nothing.
        let enough = memory::available()? / 8;
        while self.pages < pages && (!self.pages.is_multiple_of(SMALL) || memory::available()? > enough) {
            self.put(self.pages, usize::try_from(self.pages)?)?;
            self.pages += 1;
        }
        Ok(())
    }

    fn put(&mut self, key: u64, page: usize) -> Result<u64> {
        let page = &self.corpus.pages[page % self.corpus.pages.len()];
        let (guest, scratch) = (&self.guest, &mut self.scratch);
        self.watch.time(|| guest.put(scratch, &Shape::Files.key(key), page).context("a put was refused"))
    }

    fn get(&mut self, key: u64) -> Result<u64> {
        let mut out = [0; PAGE_SIZE];
        let (guest, scratch) = (&self.guest, &mut self.scratch);
        self.watch.time(|| Ok(guest.get(scratch, &Shape::Files.key(key), GetMode::Plain, &mut out)?))
    }

    /// Measures once, with keys that depend on `seed`.
    ///
    /// Before that, all of the store's memory is touched once. A virtual machine's hypervisor may
    /// have unmapped it, and then every page's next touch takes microseconds: the median of gets
    /// from a store of 12 GiB was a third longer without this, and the 99th percentile two thirds.
    fn latency(&mut self, seed: u64) -> Result<Latency> {
        let pages = self.pages;
        let memory = Pages::of(&self.store)?;
        memory.touch_all()?;
        self.watch.resume()?;
        let mut random = Random::new(seed);
        let mut puts = Vec::with_capacity(SAMPLES);
        let mut gets = Vec::with_capacity(SAMPLES);
        let mut touches = Vec::with_capacity(SAMPLES);
        for sample in 0..SAMPLES {
            let key = |random: &mut Random| random.next() % pages;
            let put = key(&mut random);
            puts.push(self.put(put, sample)?);
            let get = key(&mut random);
            gets.push(self.get(get)?);
            let at = memory.random(&mut random)?;
            let started = Instant::now();
            memory.touch(at)?;
            touches.push(u64::try_from(started.elapsed().as_nanos())?);
        }
        puts.sort_unstable();
        gets.sort_unstable();
        touches.sort_unstable();
        Ok(Latency {
            pages,
            put_p50_ns: puts[SAMPLES / 2],
            put_p99_ns: puts[SAMPLES * 99 / 100],
            get_p50_ns: gets[SAMPLES / 2],
            get_p99_ns: gets[SAMPLES * 99 / 100],
            touch_p50_ns: touches[SAMPLES / 2],
            touch_p99_ns: touches[SAMPLES * 99 / 100],
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
        touch_p50_ns: of(|pass| pass.touch_p50_ns),
        touch_p99_ns: of(|pass| pass.touch_p99_ns),
    }
}

/// Grows a store to `pages` pages, or as far as memory goes, and measures it in turns with one that
/// stays small: a processor does not keep its speed for minutes.
pub(super) fn measure(corpus: &Corpus, pages: u64) -> Result<Growth> {
    let (mut small, mut large) = (Run::new(corpus)?, Run::new(corpus)?);
    small.grow(SMALL)?;
    large.grow(pages)?;
    let mut passes = Vec::new();
    for pass in 0..PASSES {
        passes.push([small.latency(pass)?, large.latency(pass)?]);
    }
    let of = |which: usize| medians(&passes.iter().map(|pass| pass[which]).collect::<Vec<_>>());
    Ok(Growth {
        small: of(0),
        large: of(1),
        longest_op_ms: small.watch.longest.max(large.watch.longest).as_secs_f64() * 1e3,
        longest_wall_ms: small.watch.longest_wall.max(large.watch.longest_wall).as_secs_f64() * 1e3,
        preempted: small.watch.preempted + large.watch.preempted,
        passes,
    })
}
