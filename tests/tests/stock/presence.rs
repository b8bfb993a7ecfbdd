// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The target works before the device is there, and goes on when it leaves or is lost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zcache_tests::load::{DROP_CACHES, coherence};
use zcache_tests::{DaemonOptions, Kernel, Vm, scenario};

use crate::volume::Volume;

crate::on_newest_kernel! {
    /// Files go on while the device comes, goes, and dies; each time it comes, it is used.
    fn files_outlive_the_device;
}

fn files_outlive_the_device(kernel: Kernel) {
    crate::with_kernel("presence", kernel, Duration::from_secs(300), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let vm = s.vm(crate::guest(kernel).daemon(&daemon, 0).disk_mib(256))?;
        let volume = Volume::mount(&vm, "ext4", 0)?;
        read_twice(&vm, &volume)?;
        ensure!(volume.count("hits")? == 0, "There were hits before there was a device");
        ensure!(pools(&vm)? == (1, 0), "The mapped device's pool should be recorded and not active");

        let work = vm.guest().spawn(&coherence(&format!("{}/c", volume.folder()), 20))?;
        vm.attach()?;
        ensure!(pools(&vm)? == (1, 1), "The pool was not created on the device that came");
        await_hits(&vm, &volume)?;
        vm.detach()?;
        ensure!(pools(&vm)? == (1, 0), "The pool should be recorded again after the device left");
        vm.guest().sh("sleep 1")?;
        vm.attach()?;
        await_hits(&vm, &volume)?;
        vm.guest().sh("zhost kill-daemon")?;
        work.success(Duration::from_secs(120) * vm.options().patience())
            .context("Wrong contents while the device came, left and died")?;
        vm.guest().await_driver_state("lost", Duration::from_secs(60))?;

        vm.guest().sh("zhost restart-daemon; zhost attach")?;
        vm.guest().await_driver_state("attached", Duration::from_secs(30))?;
        await_hits(&vm, &volume)?;
        volume.verify_and_close()
    });
}

/// What is in memory when the device comes is what is evicted first.
#[test]
fn pages_read_before_the_device_came_are_served() {
    scenario("stock_read_before", Duration::from_secs(240), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let vm = s.vm(crate::guest(Kernel::Debian13Backports).daemon(&daemon, 0).disk_mib(64))?;
        let volume = Volume::mount(&vm, "ext4", 0)?;
        let folder = volume.folder();
        // No more than may wait for the device, so that it does not matter how fast that is.
        vm.guest().sh(&format!(
            "head -c 3M /dev/urandom >{folder}/file; sync; {DROP_CACHES}; md5sum <{folder}/file >/tmp/sum"
        ))?;
        vm.attach()?;
        vm.guest().sh(&format!("{DROP_CACHES}; md5sum <{folder}/file | cmp - /tmp/sum"))?;
        let (hits, pages) = (volume.count("hits")?, 3 * 256);
        ensure!(hits * 10 > pages * 9, "Only {hits} of {pages} pages came from the device: {:?}", volume.counters()?);
        volume.verify_and_close()
    });
}

/// With put=read pages enter the pool as they are read, a little at a time so that the device can
/// follow, and stay there.
#[test]
fn put_at_read_serves_the_next_reads() {
    scenario("stock_put_read", Duration::from_secs(240), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let vm = s.vm(crate::guest(Kernel::Uml).daemon(&daemon, 0).disk_mib(64))?;
        vm.attach()?;
        let guest = vm.guest();
        guest.sh(&format!(
            "zcachesetup open --put read /dev/vdb files; mkfs.ext4 -q /dev/mapper/files; mount /dev/mapper/files /mnt
             head -c 8M /dev/urandom >/mnt/file; sync; {DROP_CACHES}
             for mib in $(seq 0 7); do
                 dd if=/mnt/file bs=1M skip=$mib count=1 status=none; sleep 0.2
             done | md5sum >/tmp/sum"
        ))?;
        for _ in 0..2 {
            let before = vm.disk_io()?["vdb"].read_bytes;
            guest.sh(&format!("{DROP_CACHES}; md5sum </mnt/file | cmp - /tmp/sum"))?;
            let read = vm.disk_io()?["vdb"].read_bytes - before;
            ensure!(read < 1 << 20, "{read} bytes of 8 MiB came from the disk again");
        }
        Ok(())
    });
}

/// What was unmapped before the device came is not created on it.
#[test]
fn a_target_that_is_gone_is_not_replayed() {
    scenario("stock_gone", Duration::from_secs(240), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let vm = s.vm(crate::guest(Kernel::Uml).daemon(&daemon, 0).disk_mib(64).disk_mib(64).disk_mib(64))?;
        vm.guest().sh("zcachesetup open /dev/vdb gone; zcachesetup open /dev/vdc kept
             swap=$(zcachesetup swap on --backing /dev/vdd); zcachesetup swap off $swap
             zcachesetup close gone")?;
        vm.attach()?;
        let pools = daemon.guest_stats(0)?.pools;
        ensure!(pools.len() == 1, "Only the target that is left should have a pool on the device: {pools:?}");
        Ok(())
    });
}

fn read_twice(vm: &Vm, volume: &Volume) -> Result<()> {
    let folder = volume.folder();
    vm.guest()
        .sh(&format!(
            "[ -e {folder}/file ] || head -c 8M /dev/urandom >{folder}/file; sync
             cat {folder}/file >/dev/null; {DROP_CACHES}; cat {folder}/file >/dev/null"
        ))
        .map(drop)
}

/// Reads until the device has served something.
fn await_hits(vm: &Vm, volume: &Volume) -> Result<()> {
    let before = volume.count("hits")?;
    for _ in 0..10 {
        read_twice(vm, volume)?;
        if volume.count("hits")? > before {
            return Ok(());
        }
    }
    anyhow::bail!("No page comes from the attached device: {:?}", volume.counters()?)
}

/// (recorded, active on the device)
fn pools(vm: &Vm) -> Result<(u64, u64)> {
    let stats = vm.guest().driver_stats()?;
    Ok((stats.count("pools")?, stats.count("pools_active")?))
}
