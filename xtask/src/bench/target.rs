// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask bench target`: what the device-mapper target costs a guest that gains nothing from
//! it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;
use zcache_tests::load::DROP_CACHES;
use zcache_tests::{Artefacts, Daemon, DaemonOptions, Kernel, SocketOptions, Vm, VmOptions, fresh_folder};

use super::median::median;
use crate::{build, fio};

/// Cost of the device-mapper target where nothing is cached and memory is not short.
///
/// Random 4 KiB reads through the page cache, each block once, from a disk, from the same kind of
/// disk below dm-linear, and below the target with the device attached and its pool empty; in turn,
/// with the ratios taken round by round.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The guest's kernel
    #[arg(long, default_value = "debian-13")]
    kernel: Kernel,
    /// How often each is measured
    #[arg(long, value_name = "N", default_value_t = 9)]
    rounds: usize,
    /// Write the figures to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Fits into the guest's memory.
const FILE_MIB: u32 = 96;
const MEMORY_MIB: u32 = 512;

/// What lies between filesystem and disk.
const LAYERS: [&str; 3] = ["disk", "linear", "zcache"];

const PREPARE: &str = "
    DM_DISABLE_UDEV=1 dmsetup create linear --noudevsync --table \"0 $(blockdev --getsz /dev/vdc) linear /dev/vdc 0\"
    zcachesetup open /dev/vdd zcache
    for layer in disk:/dev/vdb linear:/dev/mapper/linear zcache:/dev/mapper/zcache; do
        mkdir -p /mnt/${layer%:*}; mkfs.ext4 -q -F ${layer#*:}; mount -o noatime ${layer#*:} /mnt/${layer%:*}
    done";

/// Boots a guest and prints the ratios.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let dir = fresh_folder("bench-target")?;
    let artefacts = Artefacts::get(arguments.kernel)?;
    let daemon = Arc::new(Daemon::start(
        DaemonOptions {
            binary: build::daemon()?,
            sockets: vec![SocketOptions::default()],
            memory_limit: Some("1G".to_owned()),
            queues: 2,
        },
        &dir,
    )?);
    let vm = boot(arguments.kernel, &daemon, &dir)?;
    let mut rates: [Vec<f64>; 3] = Default::default();
    for round in 0..arguments.rounds {
        // Whatever comes first in a round has no advantage over all rounds.
        for turn in 0..LAYERS.len() {
            let layer = (round + turn) % LAYERS.len();
            rates[layer].push(measure(&vm, LAYERS[layer])?);
        }
    }
    let to_disk = ratios(&rates[2], &rates[0]);
    let to_linear = ratios(&rates[2], &rates[1]);
    let memory = memory_share(&vm)?;
    println!(
        "Random reads a second below ext4 on {}, {} ({} rounds)",
        arguments.kernel,
        artefacts.accel(),
        arguments.rounds
    );
    for (layer, rates) in LAYERS.iter().zip(&rates) {
        println!("  {layer:8} {:>8.0}", median(rates.iter().copied()));
    }
    println!(
        "  target against the disk     {:.3}  ({:.3} to {:.3})",
        median(to_disk.iter().copied()),
        to_disk[0],
        to_disk[to_disk.len() - 1]
    );
    println!(
        "  target against dm-linear    {:.3}  ({:.3} to {:.3})",
        median(to_linear.iter().copied()),
        to_linear[0],
        to_linear[to_linear.len() - 1]
    );
    println!("  memory of the driver        {:.2} % of the guest's", memory * 100.0);
    if let Some(path) = &arguments.json {
        let figures = json!({
            "kernel": arguments.kernel.name(),
            "accel": artefacts.accel(),
            "iops": { "disk": rates[0], "linear": rates[1], "zcache": rates[2] },
            "zcache_vs_disk": median(to_disk.iter().copied()),
            "zcache_vs_linear": median(to_linear.iter().copied()),
            "memory_share": memory,
        });
        fs::write(path, figures.to_string() + "\n").with_context(|| format!("Cannot write {}", path.display()))?;
    }
    vm.power_off()
}

fn boot(kernel: Kernel, daemon: &Arc<Daemon>, dir: &Path) -> Result<Arc<Vm>> {
    let mut options = VmOptions::new("bench").daemon(daemon, 0);
    options.kernel = kernel;
    options.memory_mib = MEMORY_MIB;
    for _ in LAYERS {
        options = options.disk_mib(u64::from(FILE_MIB) * 2);
    }
    let vm = Vm::boot(options, dir)?;
    vm.guest().sh(PREPARE)?;
    vm.attach()?;
    for layer in LAYERS {
        fio::run(&vm, &job(layer, "--rw=write --bs=1M --end_fsync=1"))?;
        measure(&vm, layer)?;
    }
    Ok(vm)
}

/// Reads the file of a layer once, in random order, from the disk; returns the reads a second.
fn measure(vm: &Vm, layer: &str) -> Result<f64> {
    vm.guest().sh(&format!("{DROP_CACHES}; zcachesetup flush zcache"))?;
    Ok(fio::run(vm, &job(layer, "--rw=randread --bs=4k"))?.iops)
}

fn job(layer: &str, what: &str) -> String {
    format!("--filename=/mnt/{layer}/file --size={FILE_MIB}M {what}")
}

/// What the target's tables and the transport's pages take, of the guest's memory.
fn memory_share(vm: &Vm) -> Result<f64> {
    let figures = vm.guest().sh("dmsetup status zcache | tr ' ' '\\n' | sed -n 's/^memory=//p'
         awk '/^queue[0-9]+_slot_pages/ { pages += $2 } END { print pages * 4096 }' /sys/kernel/debug/zcache/stats")?;
    let bytes: Vec<f64> = figures.lines().map(str::parse).collect::<Result<_, _>>()?;
    let [tables, transport] = bytes[..] else { anyhow::bail!("The driver does not say how much memory it takes") };
    Ok((tables + transport) / (f64::from(MEMORY_MIB) * f64::from(1 << 20)))
}

/// The quotients of each round, sorted.
fn ratios(one: &[f64], other: &[f64]) -> Vec<f64> {
    let mut ratios: Vec<f64> = one.iter().zip(other).map(|(one, other)| one / other).collect();
    ratios.sort_by(f64::total_cmp);
    ratios
}
