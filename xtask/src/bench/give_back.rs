// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask bench give-back`: how soon ephemeral memory is back with the host, and how long
//! gets take meanwhile.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use rustix::fs::fstat;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use zcache_store::{
    Background, GetMode, GivenBack, Guest, GuestConfig, PAGE_SIZE, PoolKind, Scratch, Store, StoreConfig,
};

use super::corpus::Corpus;
use super::memory;
use super::random::Random;
use super::shape::{POOL, Shape};

/// Pages between two looks at how large the store has become.
const STEP: u64 = 4096;
/// How long gets are measured for comparison.
const ALONE: Duration = Duration::from_millis(200);

/// Memory given back to the host, of a store that was just filled and of one that has turned over.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Pages to store: 4 KiB pages one after the other, zstd-compressed if the name ends in .zst.
    /// Without it pages are sampled from this machine.
    #[arg(long, value_name = "FILE")]
    corpus: Option<PathBuf>,
    /// Ephemeral memory of the store, in MiB.
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1024, 2048])]
    mib: Vec<u64>,
    /// What is asked for, in MiB.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    asked: u64,
    /// Writes all figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What was measured in one case.
#[derive(Debug, Serialize)]
struct Run {
    /// Ephemeral memory before.
    mib: u64,
    /// Whether as many pages as it holds had been evicted before.
    turned_over: bool,
    pages: u64,
    asked_bytes: u64,
    given_bytes: u64,
    /// By how much the memory file has become smaller.
    resident_bytes: u64,
    ms: f64,
    /// Processor time of that: what it takes on a machine that does nothing else.
    cpu_ms: f64,
    /// Of the pages' gets by another thread, with nothing else to do and during that.
    gets_alone: Gets,
    gets_meanwhile: Gets,
}

/// Latencies of gets.
#[derive(Debug, Serialize)]
struct Gets {
    count: usize,
    p50_us: f64,
    p99_us: f64,
    longest_us: f64,
}

/// Runs the measurement.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let files: Vec<PathBuf> = arguments.corpus.iter().cloned().collect();
    let corpora = Corpus::load(&files)?;
    let corpus = corpora.first().context("there is no corpus")?;
    let mut runs = Vec::new();
    for mib in &arguments.mib {
        for turned_over in [false, true] {
            let run = measure(corpus, *mib, arguments.asked << 20, turned_over)?;
            println!(
                "{mib} MiB, {}, {} MiB asked for: {} MiB in {:.1} ms ({:.1} ms of a processor); gets, p99: {:.1} us, \
                 {:.1} us before",
                if turned_over { "turned over" } else { "just filled" },
                arguments.asked,
                run.given_bytes >> 20,
                run.ms,
                run.cpu_ms,
                run.gets_meanwhile.p99_us,
                run.gets_alone.p99_us
            );
            runs.push(run);
        }
    }
    let Some(path) = &arguments.json else { return Ok(()) };
    fs::write(path, serde_json::to_string_pretty(&runs)?)
        .with_context(|| format!("{} cannot be written", path.display()))
}

/// Puts pages until `is_enough`; the number of the page that comes next.
fn fill(guest: &Guest, corpus: &Corpus, from: u64, mut is_enough: impl FnMut(u64) -> bool) -> Result<u64> {
    let mut scratch = Scratch::new();
    let mut next = from;
    while !is_enough(next) {
        for page in next..next + STEP {
            let content = &corpus.pages[usize::try_from(page)? % corpus.pages.len()];
            // A full store evicts, so that nearly nothing is refused.
            let _ = guest.put(&mut scratch, &Shape::Files.key(page), content);
        }
        next += STEP;
    }
    Ok(next)
}

/// Processor time of this thread, which does all of it.
fn processor_ms() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// Gets pages at random, of so many, until it is to stop.
fn get(guest: &Guest, pages: u64, stop: &AtomicBool) -> Gets {
    let (mut scratch, mut out, mut random) = (Scratch::new(), [0; PAGE_SIZE], Random::new(1));
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let key = Shape::Files.key(random.next() % pages);
        let started = Instant::now();
        // Of what was given back, misses.
        let _ = guest.get(&mut scratch, &key, GetMode::Plain, &mut out);
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_unstable_by(f64::total_cmp);
    let at = |per_mille: usize| times.get(times.len() * per_mille / 1000).copied().unwrap_or_default();
    Gets { count: times.len(), p50_us: at(500), p99_us: at(990), longest_us: times.last().copied().unwrap_or_default() }
}

/// Does some work while another thread gets pages.
fn beside_gets<T>(guest: &Guest, pages: u64, work: impl FnOnce() -> T) -> (T, Gets) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let gets = scope.spawn(|| get(guest, pages, &stop));
        let done = work();
        stop.store(true, Ordering::Relaxed);
        (done, gets.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn measure(corpus: &Corpus, mib: u64, asked: u64, turned_over: bool) -> Result<Run> {
    let bytes = mib << 20;
    ensure!(memory::available()? > bytes + bytes / 4, "the machine has not enough memory for {mib} MiB");
    // The index comes on top, and what is asked for is not to include the holes of a full store.
    let limit = if turned_over { bytes + bytes / 32 } else { 2 * bytes };
    let config = StoreConfig { background: Background::Thread, cold: None, ..StoreConfig::new(limit) };
    let store = Store::new(config)?;
    let guest = store.register_guest(GuestConfig::new("bench"));
    guest.create_pool(POOL, PoolKind::Ephemeral)?;
    let filled = fill(&guest, corpus, 0, |_| store.stats().physical_bytes >= bytes)?;
    let names = if turned_over { fill(&guest, corpus, filled, |next| next >= 2 * filled)? } else { filled };
    // What was made ready ahead goes back.
    thread::sleep(Duration::from_secs(1));
    let file = store.memory_file()?;
    let resident = || -> Result<u64> { Ok(u64::try_from(fstat(&file)?.st_blocks)? * 512) };
    let (pages, before) = (store.stats().contents.pages, resident()?);
    let ((), gets_alone) = beside_gets(&guest, names, || thread::sleep(ALONE));
    let ((given, ms, cpu_ms), gets_meanwhile) = beside_gets(&guest, names, || {
        let started = processor_ms();
        let GivenBack { given, milliseconds, .. } = store.give_back(asked);
        (given, milliseconds, processor_ms() - started)
    });
    let resident_bytes = before.saturating_sub(resident()?);
    ensure!(resident_bytes >= given / 10 * 9, "{given} bytes are said to be given, and {resident_bytes} were");
    Ok(Run {
        mib,
        turned_over,
        pages,
        asked_bytes: asked,
        given_bytes: given,
        resident_bytes,
        ms,
        cpu_ms,
        gets_alone,
        gets_meanwhile,
    })
}
