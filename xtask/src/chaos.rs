// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask chaos`: whether anything is lost when everything goes wrong at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use zcache_tests::chaos::{self, Chaos, Report};
use zcache_tests::{Artefacts, Kernel, Scenario, fresh_folder};

use crate::build;

/// Kill the daemon's worker again and again under guests that check every page
///
/// Boots guests (QEMU and user-mode Linux) that swap, change files and read them, and check what
/// they read, all at one daemon. Meanwhile its workers are killed at random and at named places,
/// and upgraded; devices are unplugged and plugged in, machines stopped and continued; limits of
/// the store and of guests become others; and one guest sends nonsense.
///
/// Fails with one line when a page was wrong or lost, when a guest, a kernel or the daemon
/// complains, or when something does not come to its end; logs, counters, the schedule and a
/// journal are kept then. A seed always has the same schedule: what happens when, and to whom.
/// What guests do at that time is up to them.
///
/// A stall is the longest that one operation of a guest took within a second. Each guest has a
/// program that does one operation after another, with 4 ms between them: it reads one page of a
/// file that is not in the page cache, pages one page out to swap, or touches one that was swapped
/// out, and compares what comes back. The time is the guest's: from the call (or touch) to its
/// return, whoever made it wait, a busy host included; that of a stopped machine stands still.
/// `stall_max_ms` is the longest of all, `stall_p99_ms` what 99 of 100 seconds do not exceed.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// How long everything goes wrong, booting and the last checks not counted
    #[arg(long, value_name = "N", default_value_t = 15.0, value_parser = minutes)]
    minutes: f64,
    /// Decides what happens when [default: a new one each time, which is printed]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Write the figures to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One machine of QEMU's among processes of the host: emulated, it needs a processor for itself.
const GUESTS: [Kernel; 3] = [Kernel::Uml, Kernel::Uml, Kernel::Debian13];

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let seed = arguments.seed.unwrap_or_else(chaos::new_seed);
    build::tool()?;
    for kernel in GUESTS {
        Artefacts::get(kernel)?;
    }
    let daemon = build::chaos_daemon()?;
    let dir = fresh_folder("chaos-command")?;
    eprintln!("Seed {seed}, {} minutes; logs go to {}", arguments.minutes, dir.display());
    let scenario = Scenario::unframed(dir);
    let length = Duration::from_secs_f64(arguments.minutes * 60.0);
    let chaos = Chaos { seed, length, kernels: GUESTS.to_vec(), sabotage: None, daemon };
    let outcome = chaos::run(&scenario, &chaos);
    let report = outcome.inspect_err(|_| keep_evidence(&scenario))?;
    print!("{report}");
    if let Some(path) = &arguments.json {
        write_json(path, &report)?;
    }
    if report.is_good() {
        return Ok(ExitCode::SUCCESS);
    }
    for fault in &report.faults {
        eprintln!("  {fault}");
    }
    keep_evidence(&scenario);
    eprintln!("WRONG: {}", report.verdict());
    Ok(ExitCode::FAILURE)
}

fn keep_evidence(scenario: &Scenario) {
    scenario.keep_evidence();
    eprintln!("Logs, counters, schedule and journal are in {}", scenario.dir().display());
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(minutes) if (0.1..=10_000.0).contains(&minutes) => Ok(minutes),
        _ => Err("a number from 0.1 to 10000 is needed".to_owned()),
    }
}

fn write_json(path: &Path, report: &Report) -> Result<()> {
    let text = serde_json::to_string_pretty(report)? + "\n";
    fs::write(path, text).with_context(|| format!("Cannot write {}", path.display()))
}
