// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A swap disk without a backing device, while the device is not there or has no room.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use zcache_tests::load::swaphog;
use zcache_tests::{Exit, Kernel, Vm};

use crate::swapping::{await_number, await_stored, caged, caged_hog, guest, swap_on, swap_stat};

crate::on_each_release! {
    /// The disk is set up first, the device comes later.
    fn a_disk_of_a_size_waits_for_its_device;
    /// Who needs more memory than there is, and swap that takes nothing more, is killed at once.
    /// Extra, because a group may thrash for minutes before Linux does so, as it may without swap.
    fn extra_a_full_device_ends_a_hog_at_once;
}

/// Memory of the group in which more than that is asked for: by each process, for what is left
/// after the first was killed must not just fit.
const CAGE_MIB: u32 = 48;

fn a_disk_of_a_size_waits_for_its_device(kernel: Kernel) {
    crate::with_kernel("swap_early", kernel, Duration::from_secs(240), |s| {
        let (vm, _daemon) = guest(s, kernel, "wait", None)?;
        swap_on(&vm, "--size 512M").context("A disk of a size cannot be set up before there is a device")?;
        vm.attach()?;
        let hog = caged_hog(&vm, 2 * CAGE_MIB, CAGE_MIB, 5)?;
        await_stored(&vm).context("The disk does not use its device")?;
        hog.success(Duration::from_secs(120) * vm.options().patience()).context("A page changed")?;
        vm.guest().sh("dmesg --clear").map(drop)
    });
}

fn extra_a_full_device_ends_a_hog_at_once(kernel: Kernel) {
    crate::with_kernel("swap_no_room", kernel, Duration::from_secs(300), |s| {
        let (vm, _daemon) = guest(s, kernel, "wait", Some("16M"))?;
        let guest = vm.guest();
        swap_on(&vm, "--size 1G")?;
        ends_soon(&vm, &swaphog(4 * CAGE_MIB, 1), "without a device")?;
        vm.attach()?;
        await_number(&vm, "awk '/^slots_hidden/ { print ($2 == 0) }' /sys/block/zcswap0/zc_stat", 0)
            .context("The kernel does not count on the disk though its device is there")?;
        ends_soon(&vm, &swaphog(4 * CAGE_MIB, 1), "on a full device")?;
        guest.sh("mkdir /tmp/t; mount -t tmpfs -o size=600M none /tmp/t")?;
        ends_soon(&vm, "dd if=/dev/urandom of=/tmp/t/f bs=1M count=190", "in tmpfs, on a full device")?;
        ensure!(swap_stat(&vm, "store_refused")? > 0, "The device was not full");
        let lines: u32 = guest.sh("dmesg | grep -c Write-error || true")?.trim().parse()?;
        ensure!(lines < 100, "The log has {lines} lines about pages that were not taken");
        let free = guest.sh("awk '/^SwapFree/ { print $2 }' /proc/meminfo")?;
        ensure!(free.trim().parse::<u64>()? <= 1024 * 1024, "There is more free swap than swap: {}", free.trim());
        guest.sh("rm /tmp/t/f; dmesg --clear").map(drop)
    });
}

/// Slots that are hidden from the kernel's count of free ones are not missing from it once the disk
/// is closed.
#[test]
fn swapoff_leaves_the_count_of_free_swap_right_on_uml() {
    let kernel = Kernel::Uml;
    crate::with_kernel("swap_count", kernel, Duration::from_secs(120), |s| {
        let (vm, _daemon) = guest(s, kernel, "wait", Some("16M"))?;
        let guest = vm.guest();
        vm.attach()?;
        swap_on(&vm, "--size 64M")?;
        guest.sh("mkdir /tmp/t; mount -t tmpfs -o size=200M none /tmp/t")?;
        let _filled = caged(&vm, "dd if=/dev/urandom of=/tmp/t/f bs=64k count=3000 status=none", CAGE_MIB)?;
        await_number(&vm, "awk '/^slots_hidden/ { print $2 }' /sys/block/zcswap0/zc_stat", 1000)
            .context("The kernel counts on a disk that takes no more pages")?;
        let counts = guest.sh("pkill -KILL -x dd || true; while pgrep -x dd >/dev/null; do sleep 0.05; done
             rm /tmp/t/f; swapoff /dev/zcswap0; grep -E '^Swap(Total|Free)' /proc/meminfo
             swapon /dev/zcswap0; grep -E '^Swap(Total|Free)' /proc/meminfo")?;
        let counts: Vec<&str> = counts.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
        let &[total_off, free_off, total_on, free_on] = counts.as_slice() else {
            anyhow::bail!("Not four numbers: {counts:?}");
        };
        ensure!((total_off, free_off) == ("0", "0"), "After swapoff {free_off} kB of {total_off} are free");
        ensure!(total_on != "0" && free_on == total_on, "After swapon {free_on} kB of {total_on} are free");
        guest.sh("dmesg --clear").map(drop)
    });
}

/// Runs a command that takes more memory than there is. It is killed, and soon.
fn ends_soon(vm: &Vm, command: &str, what: &str) -> Result<()> {
    let started = Instant::now();
    let before = refused(vm)?;
    let hog = caged(vm, command, CAGE_MIB)?;
    let output = hog
        .wait(Duration::from_secs(60) * vm.options().patience())
        .with_context(|| format!("More memory than there is, {what}: neither progress nor an OOM kill"))?;
    let refused = refused(vm)? - before;
    println!("{what}: ended after {:.1} s, {refused} pages refused", started.elapsed().as_secs_f32());
    ensure!(output.exit != Exit::Status(0), "More memory than there is was found {what}: this tests nothing");
    ensure!(refused > 0, "Nothing was swapped out {what}");
    ensure!(refused < 10_000, "{refused} pages were written in vain {what}");
    Ok(())
}

/// How often the kernel wrote a page that it had to keep.
fn refused(vm: &Vm) -> Result<u64> {
    let total = vm
        .guest()
        .sh("awk '/^store_(refused|full|unattached) / { n += $2 } END { print n }' /sys/block/zcswap0/zc_stat")?;
    total.trim().parse().context("No number of refused pages")
}
