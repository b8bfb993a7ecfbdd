// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask bench store`: every figure the store is held to, in one run.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use super::corpus::Corpus;
use super::density::{self, Density};
use super::growth::{self, Growth};
use super::shape::Shape;
use super::speed::{self, Scale, Speed};
use super::tiers::{self, Cold, Index, Rebuild};

/// Density, index, speed, growth, cold tier and rebuild of the page store.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Pages to measure with: 4 KiB pages one after the other, zstd-compressed if the name ends
    /// in .zst. May be repeated; without it pages are sampled from this machine.
    #[arg(long, value_name = "FILE")]
    corpus: Vec<PathBuf>,
    /// Pages of the density test; the growth test uses up to sixteen times as many, as far as
    /// memory allows.
    #[arg(long, value_name = "N", default_value_t = 524_288)]
    pages: u64,
    /// Measures only puts and gets against the bare codec, and two threads against one.
    #[arg(long)]
    speed: bool,
    /// Writes all figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The figures of `--speed`.
#[derive(Serialize)]
struct SpeedReport {
    conditions: Conditions,
    speed: Vec<Speed>,
    scale: Scale,
}

/// The figures, the worst of all corpora and shapes where there are several.
#[derive(Serialize)]
struct Report {
    overhead_fill: f64,
    overhead_steady: f64,
    overhead_discard80: f64,
    index_bytes_file: f64,
    index_bytes_swap: f64,
    index_bytes_random: f64,
    index_bytes_tiny: f64,
    put_vs_codec: f64,
    get_vs_codec: f64,
    scale_2_threads: f64,
    growth_put_p50: f64,
    growth_get_p50: f64,
    growth_put_p99: f64,
    growth_get_p99: f64,
    growth_touch_p50: f64,
    growth_touch_p99: f64,
    longest_op_ms: f64,
    /// Of the corpus that gains most.
    cold_vs_lz4_bytes: f64,
    rebuild_gib_per_s: f64,
    conditions: Conditions,
    density: Vec<Density>,
    index: Vec<Index>,
    speed: Vec<Speed>,
    scale: Scale,
    growth: Growth,
    cold: Vec<Cold>,
    rebuild: Rebuild,
}

#[derive(Serialize)]
struct Conditions {
    corpora: Vec<(String, usize)>,
    pages: u64,
    growth_pages: u64,
    cpus: usize,
    load_average: String,
    kernel: String,
    optimised: bool,
}

/// Runs all measurements.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let corpora = Corpus::load(&arguments.corpus)?;
    let growth_pages = arguments.pages * 16;
    let conditions = Conditions {
        corpora: corpora.iter().map(|corpus| (corpus.name.clone(), corpus.pages.len())).collect(),
        pages: arguments.pages,
        growth_pages,
        cpus: available_parallelism().map_or(1, usize::from),
        load_average: fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned(),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        optimised: !cfg!(debug_assertions),
    };
    let (speed, scale) = measure_speed(&corpora)?;
    if arguments.speed {
        let report = SpeedReport { conditions, speed, scale };
        print_conditions(&report.conditions);
        print_speed(&report.speed, &report.scale);
        return write(arguments.json.as_deref(), &report);
    }
    let report = measure(&corpora, arguments.pages, growth_pages, conditions, speed, scale)?;
    print(&report);
    write(arguments.json.as_deref(), &report)
}

fn write(path: Option<&Path>, report: &impl Serialize) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    fs::write(path, serde_json::to_string_pretty(report)?)
        .with_context(|| format!("{} cannot be written", path.display()))
}

fn measure_speed(corpora: &[Corpus]) -> Result<(Vec<Speed>, Scale)> {
    let first = corpora.first().context("there is no corpus")?;
    Ok((corpora.iter().map(speed::measure).collect::<Result<_>>()?, speed::scale(first)?))
}

fn measure(
    corpora: &[Corpus],
    pages: u64,
    growth_pages: u64,
    conditions: Conditions,
    speed: Vec<Speed>,
    scale: Scale,
) -> Result<Report> {
    let first = corpora.first().context("there is no corpus")?;
    // First, as what the others free, a guest's kernel may be handing back to its hypervisor for
    // seconds.
    let growth = growth::measure(first, growth_pages)?;
    let shapes = [Shape::Swap, Shape::Files, Shape::Scattered, Shape::Tiny];
    let index: Vec<Index> = shapes.iter().map(|shape| tiers::index(*shape, pages)).collect::<Result<_>>()?;
    let mut density = Vec::new();
    for corpus in corpora {
        for shape in [Shape::Swap, Shape::Files] {
            density.push(density::measure(corpus, shape, pages)?);
        }
    }
    let cold: Vec<Cold> = corpora.iter().map(tiers::cold).collect::<Result<_>>()?;
    let rebuild = tiers::rebuild(first, pages)?;
    let worst = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::MIN, f64::max);
    let least = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::MAX, f64::min);
    let of = |large: u64, small: u64| large as f64 / small.max(1) as f64;
    let (small, large) = (growth.small, growth.large);
    Ok(Report {
        overhead_fill: worst(&mut density.iter().map(|run| run.fill.ratio)),
        overhead_steady: worst(&mut density.iter().map(|run| run.steady.ratio)),
        overhead_discard80: worst(&mut density.iter().map(|run| run.discard80.ratio)),
        index_bytes_swap: index[0].bytes_per_page,
        index_bytes_file: index[1].bytes_per_page,
        index_bytes_random: index[2].bytes_per_page,
        index_bytes_tiny: index[3].bytes_per_page,
        put_vs_codec: least(&mut speed.iter().map(|run| run.put_vs_codec)),
        get_vs_codec: least(&mut speed.iter().map(|run| run.get_vs_codec)),
        scale_2_threads: scale.store,
        growth_put_p50: of(large.put_p50_ns, small.put_p50_ns),
        growth_get_p50: of(large.get_p50_ns, small.get_p50_ns),
        growth_put_p99: of(large.put_p99_ns, small.put_p99_ns),
        growth_get_p99: of(large.get_p99_ns, small.get_p99_ns),
        growth_touch_p50: of(large.touch_p50_ns, small.touch_p50_ns),
        growth_touch_p99: of(large.touch_p99_ns, small.touch_p99_ns),
        longest_op_ms: growth.longest_op_ms,
        cold_vs_lz4_bytes: least(&mut cold.iter().map(|run| run.cold_vs_lz4)),
        rebuild_gib_per_s: rebuild.gib_per_s,
        conditions,
        density,
        index,
        speed,
        scale,
        growth,
        cold,
        rebuild,
    })
}

fn print_conditions(conditions: &Conditions) {
    for (name, pages) in &conditions.corpora {
        println!("corpus {name}: {pages} pages");
    }
    println!(
        "{} pages, growth to {}, {} CPUs, load {}, Linux {}{}",
        conditions.pages,
        conditions.growth_pages,
        conditions.cpus,
        conditions.load_average,
        conditions.kernel,
        if conditions.optimised { "" } else { ", NOT OPTIMISED: times mean nothing" },
    );
}

fn print_speed(speed: &[Speed], scale: &Scale) {
    println!("\nns per page                       codec    put  overwrite   codec   get   put/codec get/codec");
    for run in speed {
        println!(
            "{:<32} {:>6.0} {:>6.0} {:>9.0}  {:>6.0} {:>6.0}  {:>8.2} {:>8.2}",
            run.corpus,
            run.codec_put_ns,
            run.put_ns,
            run.overwrite_ns,
            run.codec_get_ns,
            run.get_ns,
            run.put_vs_codec,
            run.get_vs_codec
        );
    }
    println!("\ntwo threads: x{:.2} (the codec alone: x{:.2})", scale.store, scale.codec);
}

fn print(report: &Report) {
    print_conditions(&report.conditions);
    println!("\nresident bytes / compressed bytes      fill   steady  80 % discarded (settled after)");
    for run in &report.density {
        let settled = run.discard80_settled_s.map_or("not in 5 s".to_owned(), |s| format!("{s:.1} s"));
        println!(
            "{:<32} {:<6} {:.4}  {:.4}  {:.4} ({settled})",
            run.corpus, run.shape, run.fill.ratio, run.steady.ratio, run.discard80.ratio
        );
    }
    println!("\nindex               bytes/page   flush ns/page");
    for run in &report.index {
        println!("{:<18} {:>10.1} {:>14.0}", run.shape, run.bytes_per_page, run.flush_ns_per_page);
    }
    print_speed(&report.speed, &report.scale);
    let growth = &report.growth;
    for at in [growth.small, growth.large] {
        println!(
            "{:>9} pages: put p50 {} p99 {} ns, get p50 {} p99 {} ns, one touch p50 {} p99 {} ns",
            at.pages, at.put_p50_ns, at.put_p99_ns, at.get_p50_ns, at.get_p99_ns, at.touch_p50_ns, at.touch_p99_ns
        );
    }
    println!(
        "growth: put p50 x{:.2} p99 x{:.2}, get p50 x{:.2} p99 x{:.2} (one touch of its memory: p50 x{:.2} p99 x{:.2}); longest operation {:.2} ms ({:.2} ms with {} preempted)",
        report.growth_put_p50,
        report.growth_put_p99,
        report.growth_get_p50,
        report.growth_get_p99,
        report.growth_touch_p50,
        report.growth_touch_p99,
        growth.longest_op_ms,
        growth.longest_wall_ms,
        growth.preempted
    );
    let p99s: Vec<_> =
        growth.passes.iter().map(|[_, pass]| format!("{}/{}", pass.get_p99_ns, pass.touch_p99_ns)).collect();
    println!("p99 of gets and of one touch in each pass at that size: {} ns", p99s.join(" "));
    for run in &report.cold {
        println!(
            "cold tier, {}: x{:.3} of the bytes, {:.1} us to recompress, {:.0} ns to get",
            run.corpus, run.cold_vs_lz4, run.recompress_us_per_page, run.get_ns
        );
    }
    println!("rebuild: {:.2} GiB/s ({} pages)", report.rebuild_gib_per_s, report.rebuild.pages);
}
