// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask bench evict`: hit ratios of the store and of textbook policies that hold as many
//! pages, on the same traces.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use zcache_store::{GetMode, Guest, GuestConfig, Key, PAGE_SIZE, Page, PoolKind, Scratch, Store, StoreConfig};

use super::policies::{self, Policy};
use super::random::Random;
use super::shape::{POOL, Shape};
use super::traces::{Event, Trace};

/// The store among the policies.
const OURS: &str = "store";
/// A guest's own page cache, in front of the store, is this part of the store's size.
const GUEST_CACHE: usize = 4;

/// Hit ratios of the store's eviction and of FIFO, LRU, CLOCK, SIEVE and S3-FIFO.
#[derive(Args)]
pub(crate) struct Arguments {
    /// A recorded trace: a line for each `get`, `put` or `flush` and the words that name the
    /// page, or for each use only these words. May be repeated; generated traces are always run.
    #[arg(long, value_name = "FILE")]
    trace: Vec<PathBuf>,
    /// Pages that the store has room for.
    #[arg(long, value_name = "N", default_value_t = 16_384)]
    pages: u64,
    /// Writes all figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Ratio {
    policy: &'static str,
    hit_ratio: f64,
}

#[derive(Serialize)]
struct Outcome {
    trace: String,
    /// Whether gets remove what they find, as a guest's page cache in front makes them do.
    exclusive: bool,
    /// Pages the store held on average once it was full, and what the policies were given.
    capacity: usize,
    footprint: usize,
    lookups: u64,
    ratios: Vec<Ratio>,
    best_other: f64,
    ahead_points: f64,
}

/// Runs all traces.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut traces = Trace::generated(arguments.pages);
    for path in &arguments.trace {
        traces.push(Trace::read(path)?);
    }
    let mut outcomes = Vec::new();
    for trace in &traces {
        // A recorded trace may be smaller than the store, which would tell nothing.
        let footprint = trace.footprint();
        let pages = usize::try_from(arguments.pages)?;
        let pages = if footprint < pages * 3 / 2 && !trace.generated { (footprint / 2).max(256) } else { pages };
        let recorded = trace.events.iter().any(|event| !matches!(event, Event::Use(_)));
        let modes: &[bool] = if recorded { &[true] } else { &[false, true] };
        for exclusive in modes {
            outcomes.push(compare(trace, *exclusive, pages, footprint)?);
        }
    }
    print(&outcomes);
    if let Some(path) = &arguments.json {
        fs::write(path, serde_json::to_string_pretty(&outcomes)?)
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

fn compare(trace: &Trace, exclusive: bool, pages: usize, footprint: usize) -> Result<Outcome> {
    let mut ours = RealStore::new(pages)?;
    let (hits, lookups) = replay(trace, exclusive, pages, &mut ours);
    let capacity = ours.capacity();
    let ratio = |hits: u64| hits as f64 / lookups.max(1) as f64;
    let own = ratio(hits);
    let mut ratios = vec![Ratio { policy: OURS, hit_ratio: own }];
    for (name, mut policy) in policies::all(capacity) {
        let (hits, _) = replay(trace, exclusive, pages, policy.as_mut());
        ratios.push(Ratio { policy: name, hit_ratio: ratio(hits) });
    }
    let best_other = ratios[1..].iter().map(|ratio| ratio.hit_ratio).fold(0.0, f64::max);
    Ok(Outcome {
        trace: trace.name.clone(),
        exclusive,
        capacity,
        footprint,
        lookups,
        ratios,
        best_other,
        ahead_points: (own - best_other) * 100.0,
    })
}

/// Lets a policy meet a trace; returns hits and lookups.
fn replay(trace: &Trace, exclusive: bool, pages: usize, policy: &mut dyn Policy) -> (u64, u64) {
    let mut guest = policies::lru(pages / GUEST_CACHE);
    let (mut hits, mut lookups) = (0, 0);
    let mut look = |policy: &mut dyn Policy, key, remove| {
        let hit = policy.get(key, remove);
        lookups += 1;
        hits += u64::from(hit);
        hit
    };
    for event in &trace.events {
        match *event {
            Event::Use(key) if exclusive => {
                // What the guest itself holds it does not ask for; what it drops it puts.
                if !guest.get(key, false) {
                    look(policy, key, true);
                    if let Some(dropped) = guest.put_dropping(key) {
                        policy.put(dropped);
                    }
                }
            }
            Event::Use(key) => {
                if !look(policy, key, false) {
                    policy.put(key);
                }
            }
            Event::Get(key) => {
                look(policy, key, true);
            }
            Event::Put(key) => {
                // Overwriting is removing and putting.
                policy.flush(key);
                policy.put(key);
            }
            Event::Flush(key) => policy.flush(key),
        }
    }
    (hits, lookups)
}

/// The store itself, with pages that do not compress.
struct RealStore {
    store: Store,
    guest: Guest,
    scratch: Scratch,
    page: Box<Page>,
    puts: u64,
    /// Pages held, every 256 puts.
    held: Vec<u64>,
}

impl RealStore {
    fn new(pages: usize) -> Result<Self> {
        // A page, its header and its part of the index; and what the empty store takes.
        let limit = pages as u64 * (PAGE_SIZE as u64 + 48) + (2 << 20);
        let store = Store::new(StoreConfig { cold: None, ..StoreConfig::new(limit) })?;
        let guest = store.register_guest(GuestConfig::new("bench"));
        guest.create_pool(POOL, PoolKind::Ephemeral)?;
        let mut page = Box::new([0; PAGE_SIZE]);
        let mut random = Random::new(5);
        for word in page.as_chunks_mut::<8>().0 {
            *word = random.next().to_le_bytes();
        }
        Ok(Self { store, guest, scratch: Scratch::new(), page, puts: 0, held: Vec::new() })
    }

    /// Mean of the pages held since the store was nearly as full as it ever was.
    fn capacity(&self) -> usize {
        let most = self.held.iter().max().copied().unwrap_or(0);
        let full: Vec<u64> = self.held.iter().copied().skip_while(|held| held * 100 < most * 95).collect();
        let mean = full.iter().sum::<u64>() / (full.len() as u64).max(1);
        usize::try_from(mean).unwrap_or(0)
    }

    fn key(key: u64) -> Key {
        let mut files = Shape::Swap.key(key & 0xff);
        files.object.0[..8].copy_from_slice(&(key >> 8).to_le_bytes());
        files
    }
}

impl Policy for RealStore {
    fn get(&mut self, key: u64, remove: bool) -> bool {
        let mode = if remove { GetMode::Exclusive } else { GetMode::Plain };
        self.guest.get(&mut self.scratch, &Self::key(key), mode, &mut self.page.clone()).is_ok()
    }

    fn put(&mut self, key: u64) {
        // A refused page is a miss later on, which is all that is counted here.
        let _ = self.guest.put(&mut self.scratch, &Self::key(key), &self.page);
        self.puts += 1;
        if self.puts.is_multiple_of(256) {
            self.held.push(self.store.stats().contents.pages);
        }
    }

    fn flush(&mut self, key: u64) {
        let _ = self.guest.flush_page(&Self::key(key));
    }
}

fn print(outcomes: &[Outcome]) {
    print!("{:<32} {:<10} {:>8}", "hit ratio in %", "gets", "pages");
    if let Some(first) = outcomes.first() {
        for ratio in &first.ratios {
            print!(" {:>8}", ratio.policy);
        }
    }
    println!("   ahead of the best other");
    for outcome in outcomes {
        let mode = if outcome.exclusive { "exclusive" } else { "plain" };
        print!("{:<32} {mode:<10} {:>8}", outcome.trace, outcome.capacity);
        for ratio in &outcome.ratios {
            print!(" {:>8.2}", ratio.hit_ratio * 100.0);
        }
        println!("   {:+.2}", outcome.ahead_points);
    }
}
