// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How much memory the store takes beyond the compressed bytes: after filling, after
//! overwriting at random, after discarding most.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use zcache_store::{Guest, GuestConfig, PoolKind, Scratch, Store, StoreConfig};

use super::corpus::Corpus;
use super::memory;
use super::random::Random;
use super::shape::Shape;

/// After a discard, memory must be back within this time.
const SETTLE: Duration = Duration::from_secs(5);

/// Resident growth divided by compressed bytes, and what it was computed from.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Overhead {
    pub(super) ratio: f64,
    pub(super) resident_bytes: u64,
    pub(super) compressed_bytes: u64,
    pub(super) charged_bytes: u64,
    pub(super) pages: u64,
}

/// One corpus, one shape of keys.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Density {
    pub(super) corpus: String,
    pub(super) shape: &'static str,
    pub(super) fill: Overhead,
    pub(super) steady: Overhead,
    pub(super) discard80: Overhead,
    /// Until the overhead after the discard was below 1.15, if it was within 5 s.
    pub(super) discard80_settled_s: Option<f64>,
}

struct Run<'a> {
    store: Store,
    guest: Guest,
    /// Anonymous memory before there was a store.
    before: u64,
    corpus: &'a Corpus,
    shape: Shape,
}

impl Run<'_> {
    fn measure(&self) -> Result<Overhead> {
        let stats = self.store.stats();
        let resident_bytes = memory::anonymous()?.saturating_sub(self.before) + memory::in_file(&self.store)?;
        let compressed_bytes = stats.contents.compressed_bytes;
        Ok(Overhead {
            ratio: resident_bytes as f64 / compressed_bytes as f64,
            resident_bytes,
            compressed_bytes,
            charged_bytes: stats.physical_bytes,
            pages: stats.contents.pages,
        })
    }

    fn put(&self, scratch: &mut Scratch, key: u64, page: usize) -> Result<()> {
        let page = &self.corpus.pages[page % self.corpus.pages.len()];
        self.guest.put(scratch, &self.shape.key(key), page).context("a put was refused")
    }
}

/// Measures one corpus with keys of one shape.
pub(super) fn measure(corpus: &Corpus, shape: Shape, pages: u64) -> Result<Density> {
    let mut scratch = Scratch::new();
    let mut order: Vec<u64> = (0..pages).collect();
    let mut random = Random::new(3);
    let before = memory::anonymous()?;
    let store = Store::new(StoreConfig::new(u64::MAX))?;
    let guest = store.register_guest(GuestConfig::new("bench"));
    guest.create_pool(super::shape::POOL, PoolKind::Persistent)?;
    let run = Run { store, guest, before, corpus, shape };

    for key in 0..pages {
        run.put(&mut scratch, key, usize::try_from(key)?)?;
    }
    let fill = run.measure()?;
    for _ in 0..2 * pages {
        let key = order[random.below(order.len())];
        run.put(&mut scratch, key, random.below(corpus.pages.len()))?;
    }
    let steady = run.measure()?;
    random.shuffle(&mut order);
    let discarded = order.len() / 5 * 4;
    for key in &order[..discarded] {
        run.guest.flush_page(&run.shape.key(*key))?;
    }
    let started = Instant::now();
    let mut settled = None;
    while started.elapsed() < SETTLE {
        thread::sleep(Duration::from_millis(100));
        if settled.is_none() && run.measure()?.ratio <= 1.15 {
            settled = Some(started.elapsed().as_secs_f64());
        }
    }
    Ok(Density {
        corpus: corpus.name.clone(),
        shape: shape.name(),
        fill,
        steady,
        discard80: run.measure()?,
        discard80_settled_s: settled,
    })
}
