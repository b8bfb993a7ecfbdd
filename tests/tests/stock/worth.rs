// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages are put and got where that pays, and left to the disk where it does not.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use zcache_tests::load::DROP_CACHES;
use zcache_tests::{DaemonOptions, Guest, Kernel, scenario};

/// Of the file's pages, in percent, so many are taken from the pool when that pays at least.
const MOST: u64 = 90;
/// And when it does not at most: the samples, by which the target knows.
const FEW: u64 = 10;
const FILE_MIB: u64 = 128;

/// What the target has done, and why.
#[derive(Debug)]
struct Figures {
    hits: u64,
    origin: u64,
    get: u64,
    put: u64,
}

impl Figures {
    fn of(guest: &Guest) -> Result<Self> {
        let status = guest.sh("dmsetup status target")?;
        let figure = |name: &str| {
            let words = status.split_whitespace();
            words.filter_map(|word| word.split_once('=')).find(|(key, _)| *key == name)?.1.parse().ok()
        };
        match (figure("hits"), figure("long_origin_ns"), figure("long_get_ns"), figure("put_ns")) {
            (Some(hits), Some(origin), Some(get), Some(put)) => Ok(Self { hits, origin, get, put }),
            _ => bail!("The target's status has no such figures: {status}"),
        }
    }

    /// Whether it pays to put and get pages, if that is clear. What was read ahead is half waited
    /// for.
    fn verdict(&self) -> Option<bool> {
        let gain = (self.origin / 2).checked_sub(self.get);
        match gain {
            None => Some(false),
            Some(gain) if gain > self.put => Some(true),
            Some(_) => None,
        }
    }
}

/// Reads the file and evicts it, a little at a time, so that the device can follow; the part that
/// came from the pool, in percent, and the figures before and after.
fn read(guest: &Guest) -> Result<(u64, Figures, Figures)> {
    let before = Figures::of(guest)?;
    guest.sh(&format!(
        "for mib in $(seq 0 {}); do
             dd if=/mnt/file bs=1M skip=$mib count=1 status=none; {DROP_CACHES}
         done | sha256sum | cmp - /tmp/sum",
        FILE_MIB - 1
    ))?;
    let after = Figures::of(guest)?;
    Ok(((after.hits - before.hits) * 100 / (FILE_MIB * 256), before, after))
}

/// Looks at a guest with a file on a target over this device, which `prepare` makes. `always` is
/// not set.
fn with_file(name: &str, prepare: &str, origin: &str, look: impl FnOnce(&Guest) -> Result<()>) {
    scenario(name, Duration::from_secs(240), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let mut options = crate::guest(Kernel::Uml).daemon(&daemon, 0).disk_mib(FILE_MIB * 2);
        options.always = false;
        let vm = s.vm(options)?;
        vm.attach()?;
        vm.guest().sh(&format!(
            "{prepare}
             zcachesetup open {origin} target
             mkfs.ext4 -q -F /dev/mapper/target; mount -o noatime /dev/mapper/target /mnt
             dd if=/dev/urandom of=/mnt/file bs=1M count={FILE_MIB} conv=fsync status=none
             sha256sum </mnt/file >/tmp/sum; {DROP_CACHES}"
        ))?;
        look(vm.guest())
    });
}

#[test]
fn a_slow_disk_is_spared_on_uml() {
    let slow = "DM_DISABLE_UDEV=1 dmsetup create slow --noudevsync \
                --table \"0 $(blockdev --getsz /dev/vdb) delay /dev/vdb 0 5\"";
    with_file("stock_worth_slow", slow, "/dev/mapper/slow", |guest| {
        read(guest)?;
        let (share, _, figures) = read(guest)?;
        ensure!(share >= MOST, "{share} % came from the pool: {figures:?}");
        Ok(())
    });
}

/// Nobody knows how fast disk and device are here, but the target does what it has measured.
#[test]
fn figures_decide_on_uml() {
    with_file("stock_worth_figures", "", "/dev/vdb", |guest| {
        // What is got has to be put first, so it is about the second time that figures are clear.
        let mut last = None;
        for _ in 0..10 {
            let (share, before, after) = read(guest)?;
            let verdict = before.verdict().filter(|verdict| after.verdict() == Some(*verdict));
            if let Some(pays) = verdict.filter(|_| verdict == last) {
                let right = if pays { share >= MOST } else { share <= FEW };
                ensure!(right, "{share} % came from the pool: {before:?}, {after:?}");
                return Ok(());
            }
            last = verdict;
        }
        bail!("The target has changed its mind ten times")
    });
}
