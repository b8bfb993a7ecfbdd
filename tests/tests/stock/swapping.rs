// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guests with swap disks, and what they swap.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zcache_tests::load::swaphog;
use zcache_tests::{Daemon, DaemonOptions, Kernel, Modules, Running, Sabotage, Scenario, Vm, VmOptions};

/// A guest with the modules loaded and a disk for swap, and its daemon.
pub(crate) fn guest(
    s: &Scenario,
    kernel: Kernel,
    swap_loss: &str,
    memory_limit: Option<&str>,
) -> Result<(Arc<Vm>, Arc<Daemon>)> {
    with_driver(s, kernel, None, swap_loss, memory_limit)
}

/// The same with a driver that lacks something.
pub(crate) fn with_driver(
    s: &Scenario,
    kernel: Kernel,
    sabotage: Option<Sabotage>,
    swap_loss: &str,
    memory_limit: Option<&str>,
) -> Result<(Arc<Vm>, Arc<Daemon>)> {
    let mut daemon = DaemonOptions::usual()?;
    if let Some(limit) = memory_limit {
        daemon.memory_limit = Some(limit.to_owned());
    }
    let daemon = s.daemon(daemon)?;
    let mut options: VmOptions = crate::guest(kernel).daemon(&daemon, 0).disk_mib(768);
    options.modules = Modules::NotLoaded;
    options.sabotage = sabotage;
    let vm = s.vm(options)?;
    vm.guest().sh(&format!(
        "insmod /payload/modules/zcache.ko swap_loss={swap_loss}
         insmod /payload/modules/zcache_virtio.ko; insmod /payload/modules/zcache_swap.ko"
    ))?;
    Ok((vm, daemon))
}

/// Makes the first swap disk.
pub(crate) fn swap_on(vm: &Vm, options: &str) -> Result<()> {
    let disk = vm.guest().sh(&format!("zcachesetup swap on {options}"))?;
    ensure!(disk.trim() == "/dev/zcswap0", "The first swap disk is '{}'", disk.trim());
    Ok(())
}

/// Makes the first swap disk, with bad blocks in its backing device: of each 2 MiB of the first 64
/// the second half.
pub(crate) fn swap_on_bad_disk(vm: &Vm) -> Result<()> {
    vm.guest().sh("modprobe dm-mod || true
         { for i in $(seq 0 31); do
               echo $((i * 4096)) 2048 linear /dev/vdb $((i * 4096)); echo $((i * 4096 + 2048)) 2048 error
           done; echo 131072 $(($(blockdev --getsz /dev/vdb) - 131072)) linear /dev/vdb 131072
         } | DM_DISABLE_UDEV=1 dmsetup create --noudevsync bad")?;
    swap_on(vm, "--backing /dev/mapper/bad")?;
    // Who looks for a filesystem there has found a bad block.
    vm.guest().sh("dmesg --clear").map(drop)
}

/// Waits until the device holds swapped pages.
pub(crate) fn await_stored(vm: &Vm) -> Result<()> {
    await_live(vm, 2000)
}

/// Waits until the device holds more than so many swapped pages.
pub(crate) fn await_live(vm: &Vm, least: u32) -> Result<()> {
    await_number(vm, "awk '/^swap_pages_live/ { print $2 }' /sys/kernel/debug/zcache/stats", least)
        .context("So many pages were not swapped to the device")
}

/// Waits until hogs that were killed have given up their pages.
pub(crate) fn await_given_up(vm: &Vm) -> Result<()> {
    await_number(vm, "awk '/^swap_pages_live/ { print ($2 < 500) }' /sys/kernel/debug/zcache/stats", 0)
}

/// Waits until a counter of the swap disk is as large as that.
pub(crate) fn await_counter(vm: &Vm, counter: &str, least: u32) -> Result<()> {
    await_number(vm, &format!("awk '$1 == \"{counter}\" {{ print $2 }}' /sys/block/zcswap0/zc_stat"), least)
}

/// Waits until what a command prints is more than that.
pub(crate) fn await_number(vm: &Vm, command: &str, least: u32) -> Result<()> {
    vm.guest()
        .sh_within(
            &format!("until [ $({command}) -gt {least} ]; do sleep 0.1; done"),
            Duration::from_secs(90) * vm.options().patience(),
        )
        .map(drop)
}

/// Runs a command in a control group of so many MiB, so that it swaps and nobody else.
pub(crate) fn caged<'a>(vm: &'a Vm, command: &str, mib: u32) -> Result<Running<'a>> {
    vm.guest().spawn(&format!(
        "mkdir -p /tmp/groups; mountpoint -q /tmp/groups || mount -t cgroup2 none /tmp/groups
         echo +memory > /tmp/groups/cgroup.subtree_control; mkdir -p /tmp/groups/caged
         echo {mib}M > /tmp/groups/caged/memory.max; echo $$ > /tmp/groups/caged/cgroup.procs; exec {command}"
    ))
}

/// A hog of so many MiB in a group that has fewer.
pub(crate) fn caged_hog(vm: &Vm, mib: u32, cage_mib: u32, seconds: u32) -> Result<Running<'_>> {
    caged(vm, &swaphog(mib, seconds), cage_mib)
}

/// Lets the hog of [`caged_hog`] have all the memory it wants.
pub(crate) const OPEN_CAGE: &str = "echo max > /tmp/groups/caged/memory.max";

/// Holds a hog, as it is, until [`GO_ON`].
pub(crate) const HOLD: &str = "pkill -STOP swaphog; sleep 1";

/// Ends [`HOLD`].
pub(crate) const GO_ON: &str = "pkill -CONT swaphog";

/// Has a hog check everything once more and end.
pub(crate) const END: &str = "pkill -USR1 swaphog";

/// A number of the swap disk's statistics.
pub(crate) fn swap_stat(vm: &Vm, key: &str) -> Result<u64> {
    let number = vm.guest().sh(&format!("awk '$1 == \"{key}\" {{ print $2 }}' /sys/block/zcswap0/zc_stat"))?;
    number.trim().parse().with_context(|| format!("zc_stat has no number '{key}': '{}'", number.trim()))
}
