// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Everything at once on the classic kernels. `docs/testing.md` says how long each takes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use zcache_tests::load::{coherence, swaphog};
use zcache_tests::{DaemonOptions, Kernel, Vm, VmOptions, lone_scenario};

const PREPARE: &str = "
    mkfs.ext4 -q -b 4096 /dev/vdb; mkfs.btrfs -q /dev/vdc; mkswap /dev/vdd; mkfs.ext4 -q -b 4096 /dev/vde
    mkdir -p /mnt1 /mnt2 /mnt3; mount /dev/vdb /mnt1; mount /dev/vdc /mnt2; swapon /dev/vdd";

/// Mounts and unmounts a filesystem until told to stop.
const MOUNTS: &str = "
    while [ ! -e /tmp/stop ]; do
        mount /dev/vde /mnt3; head -c 1M /dev/urandom > /mnt3/data; md5sum < /mnt3/data > /tmp/sum
        echo 3 > /proc/sys/vm/drop_caches; md5sum < /mnt3/data | cmp - /tmp/sum; umount /mnt3
    done";

/// Everything at once: files on two filesystems, swap, mounts, and the device leaving in both
/// ways. Kernel complaints are the scenario's to find.
fn stress(vm: &Vm, seconds: u32, hog_mib: u32) -> Result<()> {
    let guest = vm.guest();
    let slow = vm.options().patience();
    guest.sh(PREPARE)?;
    let runs = [
        ("swap", guest.spawn(&swaphog(hog_mib, seconds))?),
        ("ext4", guest.spawn(&coherence("/mnt1/c", seconds))?),
        ("btrfs", guest.spawn(&coherence("/mnt2/c", seconds))?),
    ];
    let mounts = guest.spawn(MOUNTS)?;
    let end = Instant::now() + Duration::from_secs(u64::from(seconds));
    while Instant::now() < end {
        vm.attach()?;
        guest.sh("sleep 3")?;
        guest.sh_within(
            "rmmod zcache_virtio; insmod /payload/modules/zcache_virtio.ko",
            Duration::from_secs(60) * slow,
        )?;
        guest.await_driver_state("attached", Duration::from_secs(20) * slow)?;
        guest.sh("sleep 3")?;
        vm.detach()?;
    }
    vm.attach()?;
    guest.sh("touch /tmp/stop")?;
    mounts.success(Duration::from_secs(60) * slow).context("A file changed over a mount")?;
    for (what, run) in runs {
        run.success(Duration::from_secs(100) * slow).with_context(|| format!("Wrong contents: {what}"))?;
    }
    let stats = guest.driver_stats()?;
    for counter in ["get_hits", "loads", "stores"] {
        ensure!(stats.count(counter)? > 0, "'{counter}' is zero: the stress missed its aim");
    }
    ensure!(stats.count("losses")? == 0, "The driver took a device in good order for lost");
    vm.detach()?;
    guest.sh_within("swapoff /dev/vdd; umount /mnt1 /mnt2", Duration::from_secs(60) * slow)?;
    ensure!(guest.driver_pools()?.is_empty(), "A pool outlives its filesystem or swap area");
    Ok(())
}

#[test]
fn extra_stress_under_kasan_and_lockdep() {
    lone_scenario("stress_debug", Duration::from_secs(480), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let mut options = VmOptions::new("guest").daemon(&daemon, 0);
        options.kernel = Kernel::ClassicDebug;
        options.memory_mib = 320;
        for size in [192, 192, 512, 64] {
            options = options.disk_mib(size);
        }
        let vm = s.vm(options)?;
        ensure!(
            vm.guest().sh("zcat /proc/config.gz")?.contains("CONFIG_KASAN=y"),
            "The debug kernel has no KASAN: nothing would be found"
        );
        stress(&vm, 35, 240)
    });
}

#[test]
fn long_stress_at_full_speed() {
    lone_scenario("stress", Duration::from_secs(300), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let mut options = VmOptions::new("guest").daemon(&daemon, 0);
        options.memory_mib = 160;
        for size in [192, 192, 384, 64] {
            options = options.disk_mib(size);
        }
        let vm = s.vm(options)?;
        stress(&vm, 40, 160)
    });
}
