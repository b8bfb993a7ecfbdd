// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask bench recover`: how long it takes to make a store again from its memory file.

use std::fs::{self, File};
use std::hint::black_box;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::ptr::null_mut;
use std::sync::Arc;
use std::thread::{self, available_parallelism};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use rustix::fs::{SeekFrom, seek};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use serde::Serialize;
use zcache_store::{
    Background, GetMode, GuestConfig, PAGE_SIZE, PoolKind, Reopened, Reservation, Scratch, Store, StoreConfig,
    Unwatched,
};

use super::corpus::Corpus;
use super::memory;
use super::shape::{POOL, Shape};

/// Pages between two looks at how large the store has become.
const STEP: u64 = 16_384;

/// Making a store again whose process was killed, beside merely reading as much.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Pages to store: 4 KiB pages one after the other, zstd-compressed if the name ends in .zst.
    /// Without it pages are sampled from this machine.
    #[arg(long, value_name = "FILE")]
    corpus: Option<PathBuf>,
    /// Sizes of stored pages, in GiB.
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 4, 8])]
    gib: Vec<u64>,
    /// Writes all figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What was measured at one size.
#[derive(Debug, Serialize)]
struct Recovery {
    gib: u64,
    pages: u64,
    cpus: usize,
    /// Reading one word of the memory file for each page in it, as far apart as pages are, through
    /// a new mapping and on all processors: less than any rebuild does.
    heads_ms: f64,
    /// From the memory file to the first page that is got, while all are being found.
    first_ms: f64,
    /// To all pages.
    rebuild_ms: f64,
}

/// Runs the measurement.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let files: Vec<PathBuf> = arguments.corpus.iter().cloned().collect();
    let corpora = Corpus::load(&files)?;
    let corpus = corpora.first().context("there is no corpus")?;
    let mut runs = Vec::new();
    for gib in &arguments.gib {
        let run = measure(corpus, *gib)?;
        println!(
            "{gib} GiB, {} pages, {} processors: {:.0} ms, the first page after {:.0} ms; reading heads takes {:.0} ms",
            run.pages, run.cpus, run.rebuild_ms, run.first_ms, run.heads_ms
        );
        runs.push(run);
    }
    let Some(path) = &arguments.json else { return Ok(()) };
    fs::write(path, serde_json::to_string_pretty(&runs)?)
        .with_context(|| format!("{} cannot be written", path.display()))
}

/// As many shards as a store has that may be twice as large.
fn config(bytes: u64) -> StoreConfig {
    StoreConfig { background: Background::Manual, memory_limit: u64::MAX, ..StoreConfig::new(bytes * 2) }
}

fn measure(corpus: &Corpus, gib: u64) -> Result<Recovery> {
    let bytes = gib << 30;
    ensure!(memory::available()? > bytes + bytes / 4, "the machine has not enough memory for {gib} GiB");
    let store = Store::new(config(bytes))?;
    let guest = store.register_guest(GuestConfig::new("bench"));
    guest.create_pool(POOL, PoolKind::Persistent)?;
    let mut scratch = Scratch::new();
    let (mut pages, started) = (0, Instant::now());
    while store.stats().contents.compressed_bytes < bytes {
        for page in pages..pages + STEP {
            let content = &corpus.pages[usize::try_from(page)? % corpus.pages.len()];
            guest.put(&mut scratch, &Shape::Swap.key(page), content)?;
        }
        pages += STEP;
        // As the daemon's background does, which lays heaps that grow on huge pages.
        store.maintain(started.elapsed(), Duration::ZERO);
    }
    let file = store.memory_file()?;
    // Dropping them would empty the file. What they keep of it outside the file, 9 bytes a page, is
    // not given back before the end.
    std::mem::forget((guest, store));
    let cpus = available_parallelism().map_or(1, usize::from);
    let heads_ms = read_heads(&file, bytes / pages, cpus)?;
    let started = Instant::now();
    let ms = || started.elapsed().as_secs_f64() * 1e3;
    let named = |_: &dyn Fn(u64) -> Arc<Reservation>, _| GuestConfig::new("bench");
    let Reopened { store, guests, recovery } = Store::reopen(config(bytes), file, named, Box::new(Unwatched))?;
    let guest = guests.first().context("the guest is lost")?;
    let (first_ms, rebuild_ms) = thread::scope(|scope| {
        let all = scope.spawn(|| recovery.finish().map(|_| ms()));
        guest.get(&mut scratch, &Shape::Swap.key(pages / 2), GetMode::Plain, &mut [0; PAGE_SIZE])?;
        let first = ms();
        anyhow::Ok((first, all.join().expect("it does not panic")?))
    })?;
    let found = store.stats().contents.pages;
    ensure!(found == pages, "{found} of {pages} pages were found again");
    Ok(Recovery { gib, pages, cpus, heads_ms, first_ms, rebuild_ms })
}

/// Reads one word in every `stride` bytes of what is in the file; milliseconds.
fn read_heads(file: &File, stride: u64, cpus: usize) -> Result<f64> {
    let started = Instant::now();
    let mut ranges = Vec::new();
    let mut end = 0;
    while let Ok(start) = seek(file, SeekFrom::Data(end)) {
        end = seek(file, SeekFrom::Hole(start))?;
        let mut from = start;
        while from < end {
            let to = end.min(from + (64 << 20));
            ranges.push(from..to);
            from = to;
        }
    }
    let read = |range: &std::ops::Range<u64>| -> Result<u64> {
        let length = usize::try_from(range.end - range.start)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe { mmap(null_mut(), length, ProtFlags::READ, MapFlags::SHARED, file.as_fd(), range.start) }?;
        let words = start.cast::<u64>();
        let mut sum = 0u64;
        for at in (0..length - 8).step_by(usize::try_from(stride)? & !7) {
            // SAFETY: `at` is a multiple of 8 within the mapping, which is of memory that exists
            // and that nobody writes.
            sum ^= unsafe { words.wrapping_byte_add(at).read_volatile() };
        }
        // SAFETY: the mapping was just made, and nothing refers to it any more.
        unsafe { munmap(start, length) }?;
        Ok(sum)
    };
    thread::scope(|scope| {
        let part = ranges.len().div_ceil(cpus).max(1);
        let readers: Vec<_> = ranges
            .chunks(part)
            .map(|ranges| scope.spawn(move || ranges.iter().try_fold(0, |sum, range| Ok(sum ^ read(range)?))))
            .collect();
        for reader in readers {
            let sum: Result<u64> = reader.join().expect("a reader does not panic");
            black_box(sum?);
        }
        Ok(started.elapsed().as_secs_f64() * 1e3)
    })
}
