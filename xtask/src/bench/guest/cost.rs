// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the device-mapper target costs a guest that gains nothing from it.

use anyhow::{Result, bail};
use zcache_tests::Vm;
use zcache_tests::load::DROP_CACHES;

use super::Bench;
use super::table::Table;
use crate::fio::{self, Reads};

/// Fits into the guest's memory.
const FILE_MIB: u32 = 192;
const MEMORY_MIB: u32 = 512;

/// What lies between filesystem and disk.
const LAYERS: [&str; 3] = ["disk", "dm-linear", "target"];
const FOLDERS: [&str; 3] = ["/mnt/disk", "/mnt/linear", "/mnt/zcache"];

const PREPARE: &str = "
    DM_DISABLE_UDEV=1 dmsetup create linear --noudevsync --table \"0 $(blockdev --getsz /dev/vdc) linear /dev/vdc 0\"
    zcachesetup open /dev/vdd zcache
    for layer in disk:/dev/vdb linear:/dev/mapper/linear zcache:/dev/mapper/zcache; do
        mkdir -p /mnt/${layer%:*}; mkfs.ext4 -q -F ${layer#*:}; mount -o noatime ${layer#*:} /mnt/${layer%:*}
    done";

/// Each block once in random order, with the device attached and its pool empty: through the page
/// cache and without it.
pub(super) fn run(bench: &Bench) -> Result<Table> {
    let pair = bench.boot(MEMORY_MIB, &[u64::from(FILE_MIB) * 3 / 2; 3])?;
    pair.vm.guest().sh(PREPARE)?;
    pair.vm.attach()?;
    for folder in FOLDERS {
        fio::run(&pair.vm, &job(folder, "--rw=write --bs=1M --end_fsync=1"))?;
        measure(&pair.vm, folder, "")?;
    }
    let mut table = Table::new(
        format!("Random reads of {FILE_MIB} MiB of which nothing is cached, in a guest of {MEMORY_MIB} MiB"),
        &LAYERS,
    );
    for turn in 0..bench.turns {
        let mut rates = [[0.0; 3]; 2];
        // Whatever comes first in a turn has no advantage over all turns.
        for place in 0..LAYERS.len() {
            let layer = (turn + place) % LAYERS.len();
            rates[0][layer] = measure(&pair.vm, FOLDERS[layer], "")?.iops;
            rates[1][layer] = measure(&pair.vm, FOLDERS[layer], "--direct=1")?.iops;
        }
        for (layer, name) in LAYERS.into_iter().enumerate() {
            table.add(
                name,
                &[
                    ("through the page cache, reads/s", rates[0][layer]),
                    ("against dm-linear, turn by turn", rates[0][layer] / rates[0][1]),
                    ("direct, reads/s", rates[1][layer]),
                    ("direct against dm-linear, turn by turn", rates[1][layer] / rates[1][1]),
                ],
            );
        }
    }
    table.add(LAYERS[2], &[("memory of the driver, % of the guest's", memory_share(&pair.vm)? * 100.0)]);
    pair.end()?;
    Ok(table)
}

fn measure(vm: &Vm, folder: &str, how: &str) -> Result<Reads> {
    vm.guest().sh(&format!("{DROP_CACHES}; zcachesetup flush zcache"))?;
    fio::run(vm, &job(folder, &format!("--rw=randread --bs=4k {how}")))
}

fn job(folder: &str, what: &str) -> String {
    format!("--filename={folder}/file --size={FILE_MIB}M {what}")
}

/// What the target's tables and the transport's pages take, of the guest's memory.
fn memory_share(vm: &Vm) -> Result<f64> {
    let figures = vm.guest().sh("dmsetup status zcache | tr ' ' '\\n' | sed -n 's/^memory=//p'
         awk '/^queue[0-9]+_slot_pages/ { pages += $2 } END { print pages * 4096 }' /sys/kernel/debug/zcache/stats")?;
    let bytes: Vec<f64> = figures.lines().map(str::parse).collect::<Result<_, _>>()?;
    let [tables, transport] = bytes[..] else { bail!("The driver does not say how much memory it takes") };
    Ok((tables + transport) / (f64::from(MEMORY_MIB) * f64::from(1 << 20)))
}
