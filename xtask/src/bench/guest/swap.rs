// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! More anonymous memory than the guest has, on the device's swap disk and on what else there is.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::table::Table;
use super::usage::{Processor, store_mib};
use super::{Bench, Pair};
use crate::hog::Hog;

const MEMORY_MIB: u32 = 256;
const HOG_MIB: u64 = MEMORY_MIB as u64 * 8 / 5;
const SWAP_MIB: u64 = 512;
/// Filling included.
const SECONDS: u32 = 30;
/// When to look at memory: all of it is written, nothing is given back yet.
const LOOK: Duration = Duration::from_secs(25);

/// What the guest swaps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contender {
    Zcache,
    ZramLz4,
    ZramZstd,
    Disk,
}

impl Contender {
    const ALL: [Self; 4] = [Self::Zcache, Self::ZramLz4, Self::ZramZstd, Self::Disk];

    fn name(self) -> &'static str {
        match self {
            Self::Zcache => "zcache",
            Self::ZramLz4 => "zram lz4",
            Self::ZramZstd => "zram zstd",
            Self::Disk => "disk in the host's page cache",
        }
    }

    /// Turns it on.
    fn setup(self) -> String {
        let zram = |algorithm| {
            format!(
                "[ -e /sys/block/zram0 ] || modprobe zram
                 echo {algorithm} > /sys/block/zram0/comp_algorithm; echo {SWAP_MIB}M > /sys/block/zram0/disksize
                 mkswap /dev/zram0 >/dev/null; swapon /dev/zram0"
            )
        };
        match self {
            Self::Zcache => format!("zcachesetup swap on --size {SWAP_MIB}M"),
            Self::ZramLz4 => zram("lz4"),
            Self::ZramZstd => zram("zstd"),
            Self::Disk => "mkswap /dev/vdb >/dev/null; swapon /dev/vdb".to_owned(),
        }
    }
}

pub(super) fn run(bench: &Bench) -> Result<Table> {
    let names = Contender::ALL.map(Contender::name);
    let mut table = Table::new(
        format!(
            "{HOG_MIB} MiB of anonymous memory in a guest of {MEMORY_MIB}, random pages until {SECONDS} s are over"
        ),
        &names,
    );
    for contender in bench.order(&Contender::ALL) {
        measure(bench, contender, &mut table)?;
    }
    Ok(table)
}

/// In a guest of its own, for none starts with what another has left.
fn measure(bench: &Bench, contender: Contender, table: &mut Table) -> Result<()> {
    let pair = bench.boot(MEMORY_MIB, &[SWAP_MIB])?;
    pair.vm.attach()?;
    pair.vm.guest().sh(&contender.setup())?;
    let start = Processor::of(&pair)?;
    let hog = Hog::start(&pair.vm, HOG_MIB, SECONDS)?;
    sleep(LOOK);
    let memory = memory_mib(&pair, contender)?;
    let hog = hog.wait()?;
    let (guest, daemon) = start.since(&pair)?;
    ensure!(hog.wrong == 0, "{} pages on {} were wrong", hog.wrong, contender.name());
    let per_page = 1e6 / hog.verified as f64;
    table.add(
        contender.name(),
        &[
            ("filling, s", hog.filling),
            ("checked pages/s after that", hog.in_time as f64 / (f64::from(SECONDS) - hog.filling)),
            ("guest's processor, us a checked page", guest * per_page),
            ("daemon's processor, us a checked page", daemon * per_page),
            ("memory of the swapped pages, MiB", memory),
        ],
    );
    pair.end()
}

/// What the swapped pages take, in guest (zram) or host.
fn memory_mib(pair: &Pair, contender: Contender) -> Result<f64> {
    let bytes: f64 = match contender {
        Contender::Zcache => return store_mib(pair),
        // mm_stat: orig_data_size compr_data_size mem_used_total mem_limit mem_used_max ...
        Contender::ZramLz4 | Contender::ZramZstd => {
            let stat = pair.vm.guest().sh("cat /sys/block/zram0/mm_stat")?;
            stat.split_whitespace()
                .nth(2)
                .and_then(|field| field.parse().ok())
                .context("zram says nothing of memory")?
        }
        Contender::Disk => {
            let stat = pair.vm.guest().sh("swapon --show=USED --bytes --noheadings")?;
            stat.trim().parse().context("swapon says nothing of memory")?
        }
    };
    Ok(bytes / f64::from(1 << 20))
}
