// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask bench guest`: what guests gain from the device and what it costs, beside what they
//! would use without it.

mod cost;
mod reads;
mod swap;
mod table;
mod usage;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value};
use zcache_tests::{Artefacts, Daemon, DaemonOptions, Kernel, SocketOptions, Vm, VmOptions, fresh_folder};

use self::reads::Disk;
use crate::build;

/// Files and swap of guests, with the device and with what there is beside it.
///
/// Everything in a table is measured in turn, in one run; figures are medians of the turns, with
/// the lowest and the highest. In user-mode Linux the times are real ones, but not those of a guest
/// under KVM: page faults and system calls cost more.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The guests' kernel; all but uml and uml-debug are emulated where there is no KVM
    #[arg(long, default_value = "uml")]
    kernel: Kernel,
    /// How often each is measured
    #[arg(long, value_name = "N", default_value_t = 5)]
    turns: usize,
    /// Only these tables
    #[arg(long, value_name = "TABLE", value_enum)]
    only: Vec<Table>,
    /// Write all figures to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Table {
    /// Files larger than memory, read again.
    Reads,
    /// The same on a disk that takes its time.
    SlowReads,
    /// Anonymous memory larger than memory.
    Swap,
    /// Reads where nothing is cached and memory is not short.
    Cost,
}

/// Where the guests of one benchmark run.
#[derive(Debug)]
struct Bench {
    kernel: Kernel,
    turns: usize,
    dir: PathBuf,
    daemon: PathBuf,
}

/// A guest, and the daemon beside it.
#[derive(Debug)]
struct Pair {
    vm: Arc<Vm>,
    daemon: Arc<Daemon>,
}

impl Bench {
    /// Boots a guest with disks of these sizes in MiB, without its device.
    fn boot(&self, memory_mib: u32, disks_mib: &[u64]) -> Result<Pair> {
        let daemon = Arc::new(Daemon::start(
            DaemonOptions {
                binary: self.daemon.clone(),
                sockets: vec![SocketOptions::default()],
                memory_limit: Some("2G".to_owned()),
                queues: 2,
                workers: None,
                die_at: None,
                arguments: Vec::new(),
            },
            &self.dir,
        )?);
        let mut options = VmOptions::new("bench").daemon(&daemon, 0);
        options.kernel = self.kernel;
        options.memory_mib = memory_mib;
        for &size in disks_mib {
            options = options.disk_mib(size);
        }
        Ok(Pair { vm: Vm::boot(options, &self.dir)?, daemon })
    }

    /// The contenders of each turn: whatever comes first has no advantage over all turns.
    fn order<T: Copy>(&self, contenders: &[T]) -> Vec<T> {
        (0..self.turns)
            .flat_map(|turn| (0..contenders.len()).map(move |place| contenders[(turn + place) % contenders.len()]))
            .collect()
    }
}

impl Pair {
    /// Ends the guest, unless its kernel complained.
    fn end(&self) -> Result<()> {
        let complaints = self.vm.complaints()?;
        ensure!(complaints.is_empty(), "The guest's kernel complained: {}", complaints.join("\n"));
        self.vm.power_off()
    }
}

/// Measures, and prints the tables.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.turns > 0, "--turns 0 measures nothing");
    build::tool()?;
    let artefacts = Artefacts::get(arguments.kernel)?;
    let bench = Bench {
        kernel: arguments.kernel,
        turns: arguments.turns,
        dir: fresh_folder("bench-guest")?,
        daemon: build::daemon()?,
    };
    println!("Guests: {} ({}), medians of {} turns (lowest to highest)", bench.kernel, artefacts.accel(), bench.turns);
    let mut figures = Map::new();
    for table in Table::value_variants() {
        if !arguments.only.is_empty() && !arguments.only.contains(table) {
            continue;
        }
        let (name, measured) = match table {
            Table::Reads => ("reads", reads::run(&bench, Disk::Fast)?),
            Table::SlowReads => ("slow-reads", reads::run(&bench, Disk::Slow)?),
            Table::Swap => ("swap", swap::run(&bench)?),
            Table::Cost => ("cost", cost::run(&bench)?),
        };
        println!("\n{measured}");
        figures.insert(name.to_owned(), serde_json::to_value(measured)?);
    }
    arguments.json.as_deref().map_or(Ok(()), |path| write(path, &Value::Object(figures)))
}

fn write(path: &Path, figures: &Value) -> Result<()> {
    fs::write(path, figures.to_string() + "\n").with_context(|| format!("Cannot write {}", path.display()))
}
