// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The index by shape of keys, the cold tier, and making the index again.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;
use zcache_store::{Background, GetMode, GuestConfig, PAGE_SIZE, PoolKind, Scratch, Store, StoreConfig};

use super::corpus::Corpus;
use super::memory;
use super::shape::{POOL, Shape};

/// Bytes of an object's name in the arena, where the index has it.
const NAME_BYTES: f64 = 40.0;

/// Index memory per page.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Index {
    pub(super) shape: &'static str,
    pub(super) pages: u64,
    /// Growth of anonymous resident memory, names of objects included.
    pub(super) bytes_per_page: f64,
    pub(super) flush_ns_per_page: f64,
}

/// Fills an index with pages that take no room themselves.
pub(super) fn index(shape: Shape, pages: u64) -> Result<Index> {
    let mut scratch = Scratch::new();
    let zero = [0; PAGE_SIZE];
    let before = memory::anonymous()?;
    let store = Store::new(StoreConfig { cold: None, ..StoreConfig::new(u64::MAX) })?;
    let guest = store.register_guest(GuestConfig::new("bench"));
    guest.create_pool(POOL, PoolKind::Persistent)?;
    for page in 0..pages {
        guest.put(&mut scratch, &shape.key(page), &zero)?;
    }
    let grown = memory::anonymous()?.saturating_sub(before);
    let names = if shape == Shape::Tiny { NAME_BYTES } else { 0.0 };
    let started = Instant::now();
    let flushed = guest.flush_pool(POOL)?;
    let flush = started.elapsed();
    ensure!(flushed == pages, "{flushed} of {pages} pages were flushed");
    Ok(Index {
        shape: shape.name(),
        pages,
        bytes_per_page: grown as f64 / pages as f64 + names,
        flush_ns_per_page: flush.as_secs_f64() * 1e9 / pages as f64,
    })
}

/// The cold tier against the bytes of the first one.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Cold {
    pub(super) corpus: String,
    pub(super) bytes: u64,
    pub(super) cold_bytes: u64,
    pub(super) cold_vs_lz4: f64,
    pub(super) recompress_us_per_page: f64,
    pub(super) get_ns: f64,
}

/// Lets a corpus become cold, and verifies each page.
pub(super) fn cold(corpus: &Corpus) -> Result<Cold> {
    let config = StoreConfig { background: Background::Manual, ..StoreConfig::new(u64::MAX) };
    let store = Store::new(config)?;
    let guest = store.register_guest(GuestConfig::new("bench"));
    guest.create_pool(POOL, PoolKind::Persistent)?;
    let mut scratch = Scratch::new();
    for (page, number) in corpus.pages.iter().zip(0..) {
        guest.put(&mut scratch, &Shape::Swap.key(number), page)?;
    }
    let bytes = store.stats().contents.compressed_bytes;
    let started = Instant::now();
    store.maintain(Duration::from_secs(3600), Duration::from_secs(600));
    let recompressed = started.elapsed();
    let cold_bytes = store.stats().contents.compressed_bytes;
    let mut out = [0; PAGE_SIZE];
    let started = Instant::now();
    for (page, number) in corpus.pages.iter().zip(0..) {
        guest.get(&mut scratch, &Shape::Swap.key(number), GetMode::Plain, &mut out)?;
        ensure!(out == *page, "a page came back from the cold tier changed");
    }
    let pages = corpus.pages.len() as f64;
    Ok(Cold {
        corpus: corpus.name.clone(),
        bytes,
        cold_bytes,
        cold_vs_lz4: cold_bytes as f64 / bytes as f64,
        recompress_us_per_page: recompressed.as_secs_f64() * 1e6 / pages,
        get_ns: started.elapsed().as_secs_f64() * 1e9 / pages,
    })
}

/// Making the index again from the arena.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Rebuild {
    pub(super) pages: u64,
    pub(super) arena_bytes: u64,
    pub(super) seconds: f64,
    pub(super) gib_per_s: f64,
}

/// Fills a store, abandons it as a killed process would, and makes it again.
pub(super) fn rebuild(corpus: &Corpus, pages: u64) -> Result<Rebuild> {
    let config = || StoreConfig { background: Background::Manual, ..StoreConfig::new(u64::MAX) };
    let store = Store::new(config())?;
    let guest = store.register_guest(GuestConfig::new("bench"));
    guest.create_pool(POOL, PoolKind::Persistent)?;
    let mut scratch = Scratch::new();
    for page in 0..pages {
        let content = &corpus.pages[usize::try_from(page)? % corpus.pages.len()];
        guest.put(&mut scratch, &Shape::Files.key(page), content)?;
    }
    let stats = store.stats();
    let arena_bytes = stats.physical_bytes - stats.index_bytes;
    let file = store.memory_file()?;
    // Dropping them would empty the file.
    std::mem::forget((guest, store));
    let started = Instant::now();
    let rebuilt = Store::rebuild(config(), file, |_| GuestConfig::new("bench"))?;
    let elapsed = started.elapsed().as_secs_f64();
    let found = rebuilt.store.stats().contents.pages;
    ensure!(found == pages, "{found} of {pages} pages were found again");
    let gib_per_s = arena_bytes as f64 / f64::from(1u32 << 30) / elapsed;
    Ok(Rebuild { pages, arena_bytes, seconds: elapsed, gib_per_s })
}
