// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask bench ring`: the data path through the daemon's real sockets and rings, beside what
//! a bare ring and the bare codec take in the same run.

mod allocations;
mod bare;
mod device;
mod latency;
mod load;
mod queue;
pub(super) mod save;
mod shared;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::{available_parallelism, sleep};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use procfs::process::Process;
use serde::Serialize;
use zcache_store::Page;
use zcache_tests::{Daemon, DaemonOptions, SocketOptions, fresh_folder};

use self::device::Device;
use self::load::Flood;
use super::corpus::Corpus;
use super::median::median;
use crate::build;

/// Most pages of a corpus that are stored.
const PAGES: usize = 4096;
/// How long each load lasts in a turn.
const LOAD: Duration = Duration::from_millis(300);
/// How long idle guests are watched.
const IDLE: Duration = Duration::from_secs(10);
/// Queues of each idle guest.
const QUEUES: u16 = 4;

/// Requests through real sockets and rings, beside bare rings and the bare codec.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Pages to store: 4 KiB pages one after the other, zstd-compressed if the name ends in .zst.
    /// Without it pages are sampled from this machine.
    #[arg(long, value_name = "FILE")]
    corpus: Option<PathBuf>,
    /// How often each is measured
    #[arg(long, value_name = "N", default_value_t = 9)]
    turns: usize,
    /// Write all figures to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What was measured. Ratios are of medians, or of quantiles of all turns.
#[derive(Debug, Serialize)]
struct Figures {
    cpus: usize,
    bare_p50_us: f64,
    qd1_get_p50_us: f64,
    qd1_get_p99_us: f64,
    qd1_put_p50_us: f64,
    /// To a bare round trip and the page's decompression.
    qd1_get_p50_ratio: f64,
    qd1_get_p99_ratio: f64,
    /// To a bare round trip and the page's compression.
    qd1_put_p50_ratio: f64,
    qd32_put_per_s: f64,
    qd32_get_per_s: f64,
    qd32_put_vs_codec: f64,
    qd32_get_vs_codec: f64,
    /// A round trip in which both sides sleep, to that of a bare ring.
    kick_ratio: f64,
    kicked_p50_us: f64,
    idle_cpu_percent_64: f64,
    idle_wakeups_per_s_64: f64,
    /// Gets of 32 guests together to those of one.
    guests32_vs_1: f64,
    /// Another guest's gets while four flood the daemon, to those while they do nothing; the worse
    /// of puts and flushes.
    flood_p99_ratio: f64,
    flood_max_ms: f64,
    /// Allocations of the device for a request.
    allocs_per_op: f64,
}

/// Measures, and prints the table.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let files: Vec<PathBuf> = arguments.corpus.iter().cloned().collect();
    let corpora = Corpus::load(&files)?;
    let corpus = corpora.first().context("there is no corpus")?;
    let pages = &corpus.pages[..corpus.pages.len().min(PAGES)];
    let binary = build::daemon()?;
    let dir = fresh_folder("bench-ring")?;
    println!("{} pages of {}", pages.len(), corpus.name);
    let figures = measure(&binary, &dir, pages, arguments.turns.max(1))?;
    let text = serde_json::to_string_pretty(&figures)?;
    println!("{text}");
    let Some(path) = &arguments.json else { return Ok(()) };
    fs::write(path, text + "\n").with_context(|| format!("{} cannot be written", path.display()))
}

fn daemon(binary: &Path, dir: &Path, guests: usize, queues: u16) -> Result<Daemon> {
    let options = DaemonOptions {
        binary: binary.to_owned(),
        sockets: vec![SocketOptions::default(); guests],
        memory_limit: Some("4G".to_owned()),
        queues,
        // One processor is for this program, which never sleeps.
        workers: u8::try_from(available_parallelism()?.get().saturating_sub(1).max(1)).ok(),
        die_at: None,
        arguments: Vec::new(),
    };
    Daemon::start(options, dir)
}

fn connect(daemon: &Daemon, guests: usize, queues: u16, pages: &[Page]) -> Result<Vec<Device>> {
    (0..guests)
        .map(|guest| {
            let mut device = Device::connect(&daemon.endpoint(guest)?.socket, queues.into())?;
            device.fill(pages)?;
            Ok(device)
        })
        .collect()
}

fn measure(binary: &Path, dir: &Path, pages: &[Page], turns: usize) -> Result<Figures> {
    let one = daemon(binary, dir, 1, 1)?;
    let mut device = connect(&one, 1, 1, pages)?.remove(0);
    let mut latency = latency::measure(&mut device, pages, turns)?;
    let (mut puts, mut gets, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..turns {
        let codec = load::codec(pages)?;
        let deep = load::deep(&mut device, pages, LOAD)?;
        puts.push(deep.put / codec.put);
        gets.push(deep.get / codec.get);
        rates.push(deep);
    }
    drop((device, one));

    let many = daemon(binary, dir, 32, 1)?;
    let mut devices = connect(&many, 32, 1, &pages[..pages.len().min(256)])?;
    let few = pages.len().min(256);
    let mut wide = Vec::new();
    let (mut p99, mut max) = (Vec::new(), 0.0f64);
    for _ in 0..turns {
        let alone = load::wide(&mut devices[..1], few, LOAD)?;
        wide.push(load::wide(&mut devices, few, LOAD)? / alone);
        let (victim, others) = devices.split_at_mut(1);
        let (victim, others) = (&mut victim[0].queues[0], &mut others[..4]);
        let pages = &pages[..few];
        let calm = load::flooded(victim, others, pages, Flood::Nothing, LOAD)?.quantile(0.99);
        for flood in [Flood::Puts, Flood::Flushes] {
            let mut times = load::flooded(victim, others, pages, flood, LOAD)?;
            p99.push(times.quantile(0.99) / calm);
            max = max.max(times.quantile(1.0) / 1e6);
        }
        for device in others {
            device.fill(pages)?;
        }
    }
    drop((devices, many));
    let (idle_cpu_percent_64, idle_wakeups_per_s_64) = idle(binary, dir)?;

    let bare = [latency.bare.quantile(0.5), latency.bare.quantile(0.99)];
    let least = [bare[0] + latency.decompress.quantile(0.5), bare[1] + latency.decompress.quantile(0.99)];
    let us = 1e-3;
    Ok(Figures {
        cpus: available_parallelism()?.get(),
        bare_p50_us: bare[0] * us,
        qd1_get_p50_us: latency.get.quantile(0.5) * us,
        qd1_get_p99_us: latency.get.quantile(0.99) * us,
        qd1_put_p50_us: latency.put.quantile(0.5) * us,
        qd1_get_p50_ratio: latency.get.quantile(0.5) / least[0],
        qd1_get_p99_ratio: latency.get.quantile(0.99) / least[1],
        qd1_put_p50_ratio: latency.put.quantile(0.5) / (bare[0] + latency.compress.quantile(0.5)),
        qd32_put_per_s: median(rates.iter().map(|rates| rates.put)),
        qd32_get_per_s: median(rates.iter().map(|rates| rates.get)),
        qd32_put_vs_codec: median(puts),
        qd32_get_vs_codec: median(gets),
        kick_ratio: latency.kicked.quantile(0.5) / latency.kicked_bare.quantile(0.5),
        kicked_p50_us: latency.kicked.quantile(0.5) * us,
        idle_cpu_percent_64,
        idle_wakeups_per_s_64,
        guests32_vs_1: median(wide),
        flood_p99_ratio: median(p99),
        flood_max_ms: max,
        allocs_per_op: allocations::per_request(pages)?,
    })
}

/// Processor time and wake-ups of a daemon with 64 guests that do nothing.
fn idle(binary: &Path, dir: &Path) -> Result<(f64, f64)> {
    let daemon = daemon(binary, dir, 64, QUEUES)?;
    let _devices = connect(&daemon, 64, QUEUES, &[])?;
    sleep(Duration::from_secs(2));
    let before = usage(&daemon)?;
    sleep(IDLE);
    let after = usage(&daemon)?;
    let seconds = IDLE.as_secs_f64();
    Ok(((after.0 - before.0) / seconds * 100.0, (after.1 - before.1) / seconds))
}

/// Processor seconds, and how often any thread went to sleep by itself.
fn usage(daemon: &Daemon) -> Result<(f64, f64)> {
    let keeper = daemon.pid().context("the daemon has ended")?;
    let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"))?;
    let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    let (mut seconds, mut sleeps) = (0.0, 0.0);
    for pid in children.chain([keeper]) {
        for task in Process::new(pid)?.tasks()? {
            let task = task?;
            sleeps += task.status()?.voluntary_ctxt_switches.unwrap_or_default() as f64;
            // Nanoseconds on a processor.
            let schedstat = fs::read_to_string(format!("/proc/{pid}/task/{}/schedstat", task.tid))?;
            let on: f64 = schedstat.split_whitespace().next().unwrap_or("0").parse()?;
            seconds += on * 1e-9;
        }
    }
    Ok((seconds, sleeps))
}
