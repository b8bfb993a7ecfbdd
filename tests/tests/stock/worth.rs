// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages are put and got where that pays, and left to the disk where it does not.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zcache_tests::load::DROP_CACHES;
use zcache_tests::witness::{Behaviour, Witness};
use zcache_tests::{DaemonOptions, Endpoint, Guest, Kernel, VmOptions, scenario};

/// Of the file's pages, in percent, so many are taken from the pool when that pays at least.
const MOST: u64 = 90;
/// And when it does not at most: the samples, by which the target knows.
const FEW: u64 = 10;
const FILE_MIB: u64 = 64;

/// Reads the file and evicts it, a little at a time, so that the device can follow; the part that
/// came from the pool, in percent, and the target's status.
fn read(guest: &Guest) -> Result<(u64, String)> {
    let before = hits(guest)?;
    guest.sh(&format!(
        "for mib in $(seq 0 {}); do
             dd if=/mnt/file bs=1M skip=$mib count=1 status=none; {DROP_CACHES}
         done | sha256sum | cmp - /tmp/sum",
        FILE_MIB - 1
    ))?;
    let share = (hits(guest)? - before) * 100 / (FILE_MIB * 256);
    Ok((share, guest.sh("dmsetup status target")?))
}

fn hits(guest: &Guest) -> Result<u64> {
    let hits = guest.sh("dmsetup status target | tr ' ' '\\n' | sed -n 's/^hits=//p'")?;
    hits.trim().parse().context("The target's status has no hits")
}

/// A guest whose target puts and gets what pays.
fn guest() -> VmOptions {
    let mut options = crate::guest(Kernel::Uml).disk_mib(FILE_MIB * 2);
    options.always = false;
    options
}

/// Makes a file on a target over this device, which `prepare` makes.
fn make_file(guest: &Guest, prepare: &str, origin: &str) -> Result<()> {
    let script = format!(
        "{prepare}
         zcachesetup open {origin} target
         mkfs.ext4 -q -F /dev/mapper/target; mount -o noatime /dev/mapper/target /mnt
         dd if=/dev/urandom of=/mnt/file bs=1M count={FILE_MIB} conv=fsync status=none
         sha256sum </mnt/file >/tmp/sum; {DROP_CACHES}"
    );
    guest.sh(&script).map(drop)
}

/// The disk takes 20 ms for each read: pages that come in order from one that takes 5 are hardly
/// slower than those of a daemon that has no processor of its own.
#[test]
fn a_slow_disk_is_spared_on_uml() {
    let slow = "DM_DISABLE_UDEV=1 dmsetup create slow --noudevsync \
                --table \"0 $(blockdev --getsz /dev/vdb) delay /dev/vdb 0 20\"";
    scenario("stock_worth_slow", Duration::from_secs(240), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let vm = s.vm(guest().daemon(&daemon, 0))?;
        vm.attach()?;
        make_file(vm.guest(), slow, "/dev/mapper/slow")?;
        read(vm.guest())?;
        let (share, status) = read(vm.guest())?;
        ensure!(share >= MOST, "{share} % came from the pool: {status}");
        Ok(())
    });
}

#[test]
fn a_slow_device_is_left_alone_on_uml() {
    scenario("stock_worth_device", Duration::from_secs(240), |s| {
        let witness = Witness::start(&s.dir().join("witness.sock"), Behaviour::default())?;
        let vm = s.vm(guest())?;
        let backend = std::process::id().cast_signed();
        vm.attach_to(&Endpoint { socket: witness.socket().to_owned(), queues: 1, backend })?;
        make_file(vm.guest(), "", "/dev/vdb")?;
        vm.guest().sh("echo Y >/sys/module/dm_zcache/parameters/always")?;
        read(vm.guest())?;
        let (share, status) = read(vm.guest())?;
        ensure!(share > 5 * FEW, "{share} % came from a device that was to be asked always: {status}");
        witness.behave(|b| b.delay = Duration::from_millis(20));
        vm.guest().sh("echo N >/sys/module/dm_zcache/parameters/always")?;
        read(vm.guest())?;
        let (share, status) = read(vm.guest())?;
        ensure!(share <= FEW, "{share} % came from the pool: {status}");
        Ok(())
    });
}
