// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which pools exist: recorded without a device, replayed on attach, removed in time.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use zcache_tests::load::{coherence, cycle_files, read_files, swaphog, write_files};
use zcache_tests::{Daemon, DaemonOptions, DriverPool, Scenario, Vm, VmOptions, scenario};

fn guest_with_daemon(s: &Scenario, disks_mib: &[u64]) -> Result<(Arc<Vm>, Arc<Daemon>)> {
    let daemon = s.daemon(DaemonOptions::usual()?)?;
    let mut options = VmOptions::new("guest").daemon(&daemon, 0);
    for size in disks_mib {
        options = options.disk_mib(*size);
    }
    Ok((s.vm(options)?, daemon))
}

/// The device has exactly the pools that the driver knows.
fn ensure_same_pools(vm: &Vm, daemon: &Daemon) -> Result<Vec<DriverPool>> {
    let driver = vm.guest().driver_pools()?;
    let mut of_driver: Vec<u32> = driver.iter().map(|pool| pool.id).collect();
    let stats = daemon.guest_stats(0)?;
    let mut of_device: Vec<u32> = stats.pools.iter().map(|pool| pool.id).collect();
    of_driver.sort_unstable();
    of_device.sort_unstable();
    ensure!(of_driver == of_device, "The driver has the pools {of_driver:?}, the device {of_device:?}");
    ensure!(driver.iter().all(|pool| pool.active), "The driver takes a pool for refused: {driver:?}");
    Ok(driver)
}

/// Conformance: ZC-DRV-17, ZC-DRV-18.
#[test]
fn pools_from_before_the_device_are_replayed_and_keep_their_ids() {
    scenario("pools_are_replayed", Duration::from_secs(240), |s| {
        let (vm, daemon) = guest_with_daemon(s, &[192, 192, 256])?;
        let guest = vm.guest();
        guest.sh("mkfs.ext4 -q -b 4096 /dev/vdb; mkfs.btrfs -q /dev/vdc; mkswap /dev/vdd; mkdir -p /mnt1 /mnt2
                  mount /dev/vdb /mnt1; mount /dev/vdc /mnt2; swapon /dev/vdd")?;
        guest.sh(&write_files("/mnt1", 24))?;
        let recorded = guest.driver_pools()?;
        ensure!(recorded.len() == 3, "Two filesystems and one swap area, but the driver recorded {recorded:?}");
        ensure!(recorded.iter().all(|pool| !pool.active), "A pool is active without a device: {recorded:?}");

        let mut hits = 0;
        for round in 0..3 {
            vm.attach()?;
            let pools = ensure_same_pools(&vm, &daemon)?;
            let ids = |pools: &[DriverPool]| pools.iter().map(|pool| pool.id).collect::<Vec<_>>();
            ensure!(ids(&pools) == ids(&recorded), "Attach {round} changed the ids {recorded:?} to {pools:?}");
            let stats = daemon.guest_stats(0)?;
            ensure!(stats.pools_of("ephemeral") == 2 && stats.pools_of("persistent") == 1, "{:?}", stats.pools);

            guest.sh(&cycle_files("/mnt1", 24))?;
            let hits_now = guest.driver_stats()?.count("get_hits")?;
            ensure!(hits_now > hits, "After attach {round} no page of a file came back from the device");
            hits = hits_now;
            vm.detach()?;
            ensure!(guest.driver_pools()?.iter().all(|pool| !pool.active), "A pool stays active after a detach");
        }
        guest.sh(&read_files("/mnt1", 24))?;
        Ok(())
    });
}

#[test]
fn without_a_device_the_guest_lives_on_its_disks() {
    scenario("unattached", Duration::from_secs(240), |s| {
        let (vm, daemon) = guest_with_daemon(s, &[192, 512])?;
        let guest = vm.guest();
        guest.sh(
            "mkfs.ext4 -q -b 4096 /dev/vdb; mkswap /dev/vdc; mkdir -p /mnt1; mount /dev/vdb /mnt1; swapon /dev/vdc",
        )?;
        guest.sh(&write_files("/mnt1", 24))?;
        guest.sh(&cycle_files("/mnt1", 24))?;
        guest.sh_within(&swaphog(280, 2), Duration::from_secs(120))?;
        let stats = guest.driver_stats()?;
        for counter in ["put_unattached", "get_unattached", "store_unattached"] {
            ensure!(stats.count(counter)? > 0, "Nothing was counted as {counter}");
        }
        for counter in ["puts", "gets", "get_hits", "stores", "loads"] {
            ensure!(stats.count(counter)? == 0, "{counter} counts something without a device");
        }
        let written = vm.disk_io()?["vdc"].writes;
        ensure!(written > 0, "No page was written to the swap disk");

        guest.sh_within("swapoff /dev/vdc; umount /mnt1", Duration::from_secs(60))?;
        ensure!(guest.driver_pools()?.is_empty(), "A record outlives its filesystem or swap area");
        vm.attach()?;
        ensure!(ensure_same_pools(&vm, &daemon)?.is_empty(), "A pool came from nowhere");
        Ok(())
    });
}

/// Superblocks are freed and their addresses reused before, between and after attaches: the
/// device has the pools of what is mounted, and no filesystem sees another one's pages.
///
/// Conformance: ZC-DRV-17.
#[test]
fn only_the_living_filesystems_have_pools() {
    const ROUND: &str = "
        for n in 1 2 3 4 5 6; do mount -o loop /mnt9/image$n /mnt$n; done
        umount /mnt2 /mnt5 /mnt1
        mount -o loop /mnt9/image1 /mnt2; mount -o loop /mnt9/image2 /mnt5
        umount /mnt6; mount -o loop /mnt9/image5 /mnt6";
    const CHECK: &str = "
        sync; echo 3 > /proc/sys/vm/drop_caches
        for turn in 1 2; do
            for folder in /mnt2 /mnt3 /mnt4 /mnt5 /mnt6; do
                ( cd $folder && md5sum --quiet -c sums ) || exit 1
            done
            echo 1 > /proc/sys/vm/drop_caches
        done";
    scenario("stale_superblocks", Duration::from_secs(300), |s| {
        let (vm, daemon) = guest_with_daemon(s, &[384])?;
        let guest = vm.guest();
        guest.sh("mkfs.ext4 -q -b 4096 /dev/vdb; mkdir -p /mnt{1..9}; mount /dev/vdb /mnt9
                  for n in 1 2 3 4 5 6; do
                      truncate -s 40M /mnt9/image$n; mkfs.ext4 -q -b 4096 -O ^has_journal /mnt9/image$n
                      mount -o loop /mnt9/image$n /mnt1
                      for file in a b c; do head -c 3M /dev/urandom > /mnt1/$file; done
                      ( cd /mnt1; md5sum a b c > sums ); umount /mnt1
                  done")?;
        let outside = guest.driver_pools()?.len();
        for round in 0..3 {
            guest.sh(ROUND)?;
            vm.attach()?;
            let pools = ensure_same_pools(&vm, &daemon)?.len() - outside;
            ensure!(pools == 5, "Five filesystems are mounted, but in round {round} there are {pools} pools");
            guest.sh(CHECK)?;
            guest.sh("umount /mnt3; mount -o loop /mnt9/image6 /mnt3")?;
            guest.sh(CHECK)?;
            ensure_same_pools(&vm, &daemon)?;
            vm.detach()?;
            guest.sh(CHECK)?;
            guest.sh("umount /mnt2 /mnt3 /mnt4 /mnt5 /mnt6")?;
        }
        vm.attach()?;
        let pools = ensure_same_pools(&vm, &daemon)?.len();
        ensure!(pools == outside, "Nothing is mounted, but there are {pools} pools");
        Ok(())
    });
}

/// The device comes and goes while mounts, unmounts, swapon, swapoff and I/O are in progress.
#[test]
fn attaching_in_the_middle_of_mounts_and_swapons() {
    const MOUNTS: &str = "
        while [ ! -e /tmp/stop ]; do
            mount /dev/vdb /mnt1; mount /dev/vdc /mnt2; cat /mnt1/data /mnt2/data | md5sum >> /tmp/sums
            umount /mnt1; umount /mnt2
        done";
    const SWAPONS: &str =
        "while [ ! -e /tmp/stop ]; do swapon /dev/vdd; swapon /dev/vde; swapoff /dev/vdd; swapoff /dev/vde; done";
    scenario("attach_in_the_middle", Duration::from_secs(300), |s| {
        let (vm, daemon) = guest_with_daemon(s, &[64, 128, 64, 64, 256])?;
        let guest = vm.guest();
        guest.sh(
            "mkfs.ext4 -q -b 4096 /dev/vdb; mkfs.btrfs -q /dev/vdc; mkswap /dev/vdd; mkswap /dev/vde; mkfs.ext4 -q -b 4096 /dev/vdf
                  mkdir -p /mnt1 /mnt2 /mnt3; mount /dev/vdb /mnt1; mount /dev/vdc /mnt2; mount /dev/vdf /mnt3
                  head -c 2M /dev/urandom > /mnt1/data; head -c 2M /dev/urandom > /mnt2/data
                  umount /mnt1 /mnt2",
        )?;
        let io = guest.spawn(&coherence("/mnt3/c", 25))?;
        let (mounts, swapons) = (guest.spawn(MOUNTS)?, guest.spawn(SWAPONS)?);
        for _ in 0..12 {
            vm.attach()?;
            vm.detach()?;
        }
        let limit = Duration::from_secs(90);
        io.success(limit)?;
        guest.sh("touch /tmp/stop")?;
        mounts.success(limit)?;
        swapons.success(limit)?;
        let sums = guest.sh("sort -u /tmp/sums | wc -l")?;
        ensure!(sums.trim() == "1", "The same files had {} different contents", sums.trim());

        guest.sh("mount /dev/vdb /mnt1; swapon /dev/vdd")?;
        vm.attach()?;
        let pools = ensure_same_pools(&vm, &daemon)?;
        ensure!(pools.len() == 3, "Two filesystems and one swap area are in use, but the pools are {pools:?}");
        let exists = daemon.guest_stats(0)?.answers("pool_create", "exists");
        ensure!(exists == 0, "The driver created {exists} pools that were there already");
        Ok(())
    });
}
