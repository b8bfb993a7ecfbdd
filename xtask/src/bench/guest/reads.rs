// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Files larger than the guest's memory, read again and again.

use anyhow::{Result, ensure};
use zcache_tests::Vm;
use zcache_tests::load::DROP_CACHES;

use super::table::Table;
use super::usage::{Processor, store_mib};
use super::{Bench, Pair};
use crate::fio::{self, Reads};

const MEMORY_MIB: u32 = 256;
/// Two and a half times that.
const FILES_MIB: u32 = 640;

/// What the filesystems are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disk {
    /// A file in the host's page cache.
    Fast,
    /// The same, with two milliseconds for each read.
    Slow,
}

impl Disk {
    fn name(self) -> &'static str {
        match self {
            Self::Fast => "disks are files in the host's page cache",
            Self::Slow => "so are disks, but each read takes 2 ms longer",
        }
    }

    /// Reads in one measurement of random ones.
    fn random_reads(self) -> u32 {
        match self {
            Self::Fast => 60_000,
            Self::Slow => 5_000,
        }
    }

    /// Makes `/dev/mapper/disk-b` and `-c` of the test disks.
    fn prepare(self) -> String {
        let table = match self {
            Self::Fast => "linear $disk 0",
            Self::Slow => "delay $disk 0 2 $disk 0 0",
        };
        format!(
            "for name in b c; do
                 disk=/dev/vd$name
                 DM_DISABLE_UDEV=1 dmsetup create disk-$name --noudevsync \
                     --table \"0 $(blockdev --getsz $disk) {table}\"
             done"
        )
    }
}

const CONTENDERS: [&str; 2] = ["ext4", "ext4 on the target"];
const FOLDERS: [&str; 2] = ["/mnt/plain", "/mnt/target"];

const PREPARE: &str = "
    zcachesetup open /dev/mapper/disk-c target
    for fs in plain:/dev/mapper/disk-b target:/dev/mapper/target; do
        mkdir -p /mnt/${fs%:*}; mkfs.ext4 -q -F ${fs#*:}; mount -o noatime ${fs#*:} /mnt/${fs%:*}
    done";

pub(super) fn run(bench: &Bench, disk: Disk) -> Result<Table> {
    let size = u64::from(FILES_MIB) * 5 / 4;
    let pair = bench.boot(MEMORY_MIB, &[size, size])?;
    pair.vm.guest().sh(&disk.prepare())?;
    pair.vm.guest().sh(PREPARE)?;
    pair.vm.attach()?;
    for folder in FOLDERS {
        job(&pair.vm, folder, "--rw=write --bs=1M --end_fsync=1")?;
        // What was written is offered to nobody before it was read; at random, if only that pays.
        sequential(&pair.vm, folder)?;
        if disk == Disk::Fast {
            job(&pair.vm, folder, "--rw=randread --bs=4k")?;
        }
    }
    let mut table =
        Table::new(format!("Re-reads of {FILES_MIB} MiB in a guest of {MEMORY_MIB}; {}", disk.name()), &CONTENDERS);
    for contender in bench.order(&[0, 1]) {
        measure(&pair, contender, disk.random_reads(), &mut table)?;
    }
    pair.end()?;
    Ok(table)
}

fn measure(pair: &Pair, contender: usize, random_reads: u32, table: &mut Table) -> Result<()> {
    let (name, folder) = (CONTENDERS[contender], FOLDERS[contender]);
    pair.vm.guest().sh(DROP_CACHES)?;
    let start = Processor::of(pair)?;
    let random = job(&pair.vm, folder, &format!("--rw=randread --bs=4k --io_size={}k", random_reads * 4))?;
    let (guest, daemon) = start.since(pair)?;
    ensure!(random.reads == u64::from(random_reads), "fio made {} reads, not {random_reads}", random.reads);
    let per_read = 1e6 / f64::from(random_reads);
    table.add(
        name,
        &[
            ("random 4 KiB reads/s", random.iops),
            ("p50, us", random.p50_us),
            ("p99, us", random.p99_us),
            ("guest's processor, us a read", guest * per_read),
            ("daemon's processor, us a read", daemon * per_read),
        ],
    );
    let start = Processor::of(pair)?;
    let in_order = sequential(&pair.vm, folder)?;
    let (guest, daemon) = start.since(pair)?;
    let per_page = 1e6 / (f64::from(FILES_MIB) * 256.0);
    table.add(
        name,
        &[
            ("in order, 256 KiB, MiB/s", in_order.iops / 4.0),
            ("guest's processor, us a page", guest * per_page),
            ("daemon's processor, us a page", daemon * per_page),
        ],
    );
    // The other filesystem has no pages in the store.
    if contender == 1 {
        table.add(name, &[("host memory of the pages, MiB", store_mib(pair)?)]);
    }
    Ok(())
}

fn sequential(vm: &Vm, folder: &str) -> Result<Reads> {
    job(vm, folder, "--rw=read --bs=256k")
}

fn job(vm: &Vm, folder: &str, what: &str) -> Result<Reads> {
    fio::run(vm, &format!("--filename={folder}/file --size={FILES_MIB}M --buffer_compress_percentage=50 {what}"))
}
