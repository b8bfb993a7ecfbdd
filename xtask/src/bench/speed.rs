// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Puts and gets against the bare codec on the same pages, in turns so that noise of the machine
//! meets both, and two threads against one.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lz4_flex::block::decompress_into;
use serde::Serialize;
use zcache_store::{GetMode, Guest, GuestConfig, Key, PAGE_SIZE, PoolKind, Scratch, Store, StoreConfig};

use super::codec::Codec;
use super::corpus::Corpus;
use super::median::median;
use super::shape::{POOL, Shape};

/// Pages per turn.
const TURN: u64 = 1024;
/// Turns of each kind.
const TURNS: u64 = 48;

/// Medians over all turns.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Speed {
    pub(super) corpus: String,
    pub(super) codec_put_ns: f64,
    pub(super) put_ns: f64,
    pub(super) overwrite_ns: f64,
    pub(super) codec_get_ns: f64,
    pub(super) get_ns: f64,
    /// Medians of the ratios within one turn, not ratios of the medians.
    pub(super) put_vs_codec: f64,
    pub(super) overwrite_vs_codec: f64,
    pub(super) get_vs_codec: f64,
}

fn per_page(elapsed: Duration) -> f64 {
    elapsed.as_secs_f64() * 1e9 / TURN as f64
}

/// Pages `first..first + TURN` of the corpus, again from its start at its end.
fn turn(corpus: &Corpus, first: u64) -> impl Iterator<Item = (u64, usize)> {
    let length = corpus.pages.len() as u64;
    (first..first + TURN).map(move |page| (page, usize::try_from(page % length).unwrap_or(0)))
}

/// Fills and drops a store, so that the memory the measured one gets was used before: on a virtual
/// machine, the first touch of memory ever made costs the hypervisor more than the put.
fn warm_up(corpus: &Corpus) -> Result<()> {
    let store = Store::new(StoreConfig { cold: None, ..StoreConfig::new(u64::MAX) })?;
    let guest = store.register_guest(GuestConfig::new("bench"));
    guest.create_pool(POOL, PoolKind::Persistent)?;
    let mut scratch = Scratch::new();
    for (key, page) in (0..TURNS).flat_map(|number| turn(corpus, number * TURN)) {
        guest.put(&mut scratch, &Shape::Swap.key(key), &corpus.pages[page])?;
    }
    Ok(())
}

/// Measures one thread.
pub(super) fn measure(corpus: &Corpus) -> Result<Speed> {
    warm_up(corpus)?;
    let store = Store::new(StoreConfig { cold: None, ..StoreConfig::new(u64::MAX) })?;
    let guest = store.register_guest(GuestConfig::new("bench"));
    guest.create_pool(POOL, PoolKind::Persistent)?;
    let mut scratch = Scratch::new();
    let mut codec = Codec::new();
    // One for each key, written and overwritten in the same order: both read from as much memory,
    // as scattered.
    let mut kept = Vec::new();
    for (_, page) in (0..TURNS).flat_map(|number| turn(corpus, number * TURN)) {
        kept.push(codec.keep(&corpus.pages[page])?);
    }
    let mut out = [0; PAGE_SIZE];

    let mut put = Vec::new();
    let mut codec_put = Vec::new();
    let mut overwrite = Vec::new();
    for number in 0..TURNS {
        let started = Instant::now();
        for (_, page) in turn(corpus, number * TURN) {
            black_box(codec.encode(black_box(&corpus.pages[page]))?);
        }
        codec_put.push(per_page(started.elapsed()));
        let started = Instant::now();
        for (key, page) in turn(corpus, number * TURN) {
            guest.put(&mut scratch, &Shape::Swap.key(key), &corpus.pages[page])?;
        }
        put.push(per_page(started.elapsed()));
    }
    for number in 0..TURNS {
        // Another page than the key had, and another key than the page had.
        let again = |(key, page)| ((key * 7 + 3) % (TURNS * TURN), page);
        let started = Instant::now();
        for (key, page) in turn(corpus, number * TURN).map(again) {
            guest.put(&mut scratch, &Shape::Swap.key(key), &corpus.pages[page])?;
        }
        overwrite.push(per_page(started.elapsed()));
        for (key, page) in turn(corpus, number * TURN).map(again) {
            kept[usize::try_from(key)?] = codec.keep(&corpus.pages[page])?;
        }
    }
    let mut get = Vec::new();
    let mut codec_get = Vec::new();
    for number in 0..TURNS {
        let started = Instant::now();
        for (key, _) in turn(corpus, number * TURN) {
            black_box(&kept[usize::try_from(key)?]).decode(&mut out)?;
            black_box(&out);
        }
        codec_get.push(per_page(started.elapsed()));
        let started = Instant::now();
        for (key, _) in turn(corpus, number * TURN) {
            guest.get(&mut scratch, &Shape::Swap.key(key), GetMode::Plain, &mut out)?;
            black_box(&out);
        }
        get.push(per_page(started.elapsed()));
    }
    let ratios = |codec: &[f64], own: &[f64]| median(codec.iter().zip(own).map(|(c, o)| c / o));
    Ok(Speed {
        corpus: corpus.name.clone(),
        put_vs_codec: ratios(&codec_put, &put),
        overwrite_vs_codec: ratios(&codec_put, &overwrite),
        get_vs_codec: ratios(&codec_get, &get),
        codec_put_ns: median(codec_put),
        put_ns: median(put),
        overwrite_ns: median(overwrite),
        codec_get_ns: median(codec_get),
        get_ns: median(get),
    })
}

/// Throughput of two threads over that of one; the codec alone tells what the machine allows.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Scale {
    pub(super) store: f64,
    pub(super) codec: f64,
    /// Ratio of each round.
    pub(super) rounds: Vec<[f64; 2]>,
}

const ROUNDS: usize = 7;
const SCALE_PAGES: u64 = 8192;

/// Measures puts and gets of two threads, each on an object of its own.
pub(super) fn scale(corpus: &Corpus) -> Result<Scale> {
    let store = Store::new(StoreConfig { cold: None, ..StoreConfig::new(u64::MAX) })?;
    let guest = store.register_guest(GuestConfig::new("bench"));
    guest.create_pool(POOL, PoolKind::Persistent)?;
    let work = |thread: u64| store_work(&guest, corpus, thread);
    let bare = |_| codec_work(corpus);
    let mut rounds = Vec::new();
    // The first round only warms up.
    for round in 0..=ROUNDS {
        let alone = in_parallel(1, &work)?;
        let both = in_parallel(2, &work)?;
        let codec_alone = in_parallel(1, &bare)?;
        let codec_both = in_parallel(2, &bare)?;
        if round > 0 {
            rounds.push([2.0 * alone / both, 2.0 * codec_alone / codec_both]);
        }
    }
    let of = |which: usize| median(rounds.iter().map(|round| round[which]));
    Ok(Scale { store: of(0), codec: of(1), rounds })
}

fn store_work(guest: &Guest, corpus: &Corpus, thread: u64) -> Result<()> {
    let mut scratch = Scratch::new();
    let mut out = [0; PAGE_SIZE];
    let key = |page: u64| {
        let mut key: Key = Shape::Swap.key(page);
        key.object.0[8..16].copy_from_slice(&(thread + 1).to_le_bytes());
        key
    };
    for page in 0..SCALE_PAGES {
        let content = &corpus.pages[usize::try_from(page)? % corpus.pages.len()];
        guest.put(&mut scratch, &key(page), content)?;
        guest.get(&mut scratch, &key(page / 2), GetMode::Plain, &mut out)?;
    }
    Ok(())
}

fn codec_work(corpus: &Corpus) -> Result<()> {
    let mut codec = Codec::new();
    let mut out = [0; PAGE_SIZE];
    for page in 0..SCALE_PAGES {
        let content = &corpus.pages[usize::try_from(page)? % corpus.pages.len()];
        let bytes = codec.encode(content)?;
        decompress_into(bytes, &mut out)?;
        black_box(&out);
    }
    Ok(())
}

/// Seconds until all of `threads` threads have done the work.
fn in_parallel(threads: u64, work: &(impl Fn(u64) -> Result<()> + Sync)) -> Result<f64> {
    let barrier = Barrier::new(usize::try_from(threads)? + 1);
    thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|number| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    work(number)
                })
            })
            .collect();
        barrier.wait();
        let started = Instant::now();
        for handle in handles {
            handle.join().ok().context("a worker panicked")??;
        }
        Ok(started.elapsed().as_secs_f64())
    })
}
