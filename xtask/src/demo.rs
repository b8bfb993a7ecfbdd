// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask demo`: what the device does for a guest that was up before it.

mod files;
mod report;
mod swap;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use zcache_tests::{Artefacts, Daemon, DaemonOptions, Kernel, SocketOptions, Vm, VmOptions, fresh_folder};

use self::report::Figures;
use crate::vmm::{self, Runner};
use crate::{build, size};

/// Show a guest stop reading its disk when the device is attached
///
/// Boots a guest with mounted filesystems and swap and no device, reads a file set larger than its
/// memory, hot-attaches the device, reads the files again, and swaps with verified contents.
/// The disks are files in the host's page cache, which can be as fast as the device: the guest is
/// told to use that whatever it gains (always=1 of dm-zcache).
/// Fails when a byte came back wrong or a pool was not replayed.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What runs the guest [default: what the kernel is for]
    #[arg(long, value_enum)]
    vmm: Option<Runner>,
    /// The guest's kernel: debian-12, debian-13 or debian-13-backports, which Debian ships, or
    /// classic, which has cleancache and frontswap and takes minutes to build [default: debian-13,
    /// or uml on that VMM]
    #[arg(long)]
    kernel: Option<Kernel>,
    /// The guest's memory; the file set is twice as large
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = size::parse)]
    memory: u64,
    /// Write the figures to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Of the ocfs2 filesystem; the daemon lets the guest share it.
const SHARED_UUID: &str = "5a434348-0000-4000-8000-64656d6f0001";

/// The guest's filesystems and swap, before there is a device.
const PREPARE: &str = "
    zcachesetup open /dev/vdb ext4; zcachesetup open /dev/vdc btrfs; zcachesetup open /dev/vdd xfs
    mkfs.ext4 -q -F -E lazy_itable_init=1 /dev/mapper/ext4
    mkfs.btrfs -q -f /dev/mapper/btrfs
    mkfs.xfs -q -f /dev/mapper/xfs
    for fs in ext4 btrfs xfs; do mkdir -p /mnt/$fs; mount -o noatime /dev/mapper/$fs /mnt/$fs; done
    zcachesetup swap on --backing /dev/vde";

/// The same for a kernel with cleancache and frontswap.
const PREPARE_CLASSIC: &str = "
    mkfs.ext4 -q -F -b 4096 -E lazy_itable_init=1 /dev/vdb
    mkfs.btrfs -q -f /dev/vdc
    mkfs.ocfs2 -q -F -M local -N 1 -b 4096 -J size=8M -U UUID /dev/vdd >/dev/null
    mkswap /dev/vde >/dev/null
    mkdir -p /mnt/ext4 /mnt/btrfs /mnt/ocfs2
    mount -o noatime,noinit_itable /dev/vdb /mnt/ext4
    mount -o noatime /dev/vdc /mnt/btrfs
    mount -o noatime /dev/vdd /mnt/ocfs2
    swapon /dev/vde";

/// Pools that have to come to life at the attach: three filesystems and a swap area.
const POOLS: usize = 4;

/// The disk of the file set.
const FILE_DISK: &str = "vdb";

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let dir = fresh_folder("demo")?;
    let started = Instant::now();
    let kernel = vmm::kernel(arguments.vmm, arguments.kernel, Kernel::Debian13)?;
    build::tool()?;
    let artefacts = Artefacts::get(kernel)?;
    let binary = build::daemon()?;
    eprintln!("Everything is built ({:.0} s).", started.elapsed().as_secs_f32());

    let started = Instant::now();
    let daemon = Arc::new(Daemon::start(
        DaemonOptions {
            binary,
            sockets: vec![SocketOptions { memory_limit: None, allow_shared: vec![SHARED_UUID.to_owned()] }],
            memory_limit: Some("2G".to_owned()),
            queues: 2,
            workers: None,
            die_at: None,
            arguments: Vec::new(),
        },
        &dir,
    )?);
    let memory_mib = u32::try_from(arguments.memory >> 20).context("That is too much memory")?;
    let mut options = VmOptions::new("demo").daemon(&daemon, 0);
    options.kernel = kernel;
    options.always = true;
    options.memory_mib = memory_mib;
    let memory = arguments.memory >> 20;
    // xfs takes no less than 300 MiB.
    for disk in [3 * memory, 256, 320, 2 * memory] {
        options = options.disk_mib(disk);
    }
    let vm = Vm::boot(options, &dir)?;
    let outcome = perform(&vm, &daemon, started, artefacts.accel());
    if outcome.is_err() {
        vm.keep_evidence();
        eprintln!("Logs and counters are in {}", dir.display());
    }
    let figures = outcome?;
    print!("{figures}");
    if let Some(path) = &arguments.json {
        write_json(path, &figures)?;
    }
    let faults = figures.faults();
    for fault in &faults {
        eprintln!("WRONG: {fault}");
    }
    if faults.is_empty() {
        vm.power_off()?;
        Ok(ExitCode::SUCCESS)
    } else {
        vm.keep_evidence();
        eprintln!("Logs and counters are in {}", dir.display());
        Ok(ExitCode::FAILURE)
    }
}

fn perform(vm: &Vm, daemon: &Daemon, started: Instant, accel: &'static str) -> Result<Figures> {
    let say = |what: &str| eprintln!("[{:5.1} s] {what}", started.elapsed().as_secs_f32());
    let memory = u64::from(vm.options().memory_mib);
    let set = files::FileSet { megabytes: 2 * memory };

    say(&format!(
        "The guest is up ({memory} MiB, {accel}); making filesystems and swap, writing {} MiB of files.",
        set.megabytes
    ));
    let prepare = if vm.options().kernel.has_native_hooks() { PREPARE_CLASSIC } else { PREPARE };
    vm.guest().sh(&prepare.replace("UUID", SHARED_UUID))?;
    set.write(vm)?;
    say("Random reads without a device.");
    let before = measured(vm, &set)?;

    say("Attaching the device.");
    vm.attach()?;
    let replayed = daemon.guest_stats(0)?.pools;
    if replayed.len() != POOLS {
        bail!("{POOLS} pools should be there after the attach, not these: {replayed:?}");
    }
    say("Reading all files once: what the guest evicts goes to the device.");
    set.read_all(vm)?;
    say("The same random reads with the device.");
    let after = measured(vm, &set)?;
    let at_files = daemon.typed_stats()?;

    say("Swapping with verified contents.");
    let swapped = swap::verified(vm, memory)?;
    let at_end = daemon.typed_stats()?;
    let complaints = vm.complaints()?;
    Ok(Figures {
        accel,
        seconds: started.elapsed().as_secs_f64(),
        memory_mib: memory,
        file_set_mib: set.megabytes,
        before,
        after,
        pools_replayed: replayed.len(),
        swap: swapped,
        store_with_files: at_files.store,
        store_at_end: at_end.store,
        pools: at_end.guests.into_iter().next().map(|guest| guest.pools).unwrap_or_default(),
        complaints,
    })
}

/// Runs the reads and counts which of them reached the disks of the file set.
fn measured(vm: &Vm, set: &files::FileSet) -> Result<report::Pass> {
    let disk_reads =
        || -> Result<u64> { Ok(vm.disk_io()?.get(FILE_DISK).context("The disk of the files has no counters")?.reads) };
    let at_start = disk_reads()?;
    let result = set.read_randomly(vm)?;
    Ok(report::Pass { disk_reads: disk_reads()? - at_start, reads: result.reads, iops: result.iops })
}

fn write_json(path: &Path, figures: &Figures) -> Result<()> {
    let text = serde_json::to_string_pretty(&figures.json())? + "\n";
    fs::write(path, text).with_context(|| format!("Cannot write {}", path.display()))
}
