// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The swap disk: contents are checked while the device comes, goes and dies.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use zcache_tests::load::{STOP_LOAD, swaphog, swaphog_until_told};
use zcache_tests::{Kernel, Vm, scenario};

use crate::swapping::{await_counter, await_given_up, await_stored, caged, guest, swap_on, swap_on_bad_disk};

const LIMIT: Duration = Duration::from_secs(180);

/// More than a guest has free.
fn hog_mib(vm: &Vm) -> u32 {
    vm.options().memory_mib - 16
}

fn hog(vm: &Vm, seconds: u32) -> String {
    swaphog(hog_mib(vm), seconds)
}

crate::on_newest_kernel! {
    /// Before the device is there, pages go to the backing device. Then it comes and goes under a
    /// hog; each time it leaves, all pages are brought back.
    fn swap_moves_with_the_device;
}

#[test]
fn extra_swap_moves_with_the_device_under_kasan_and_lockdep() {
    swap_moves_with_the_device(Kernel::Debian13Debug);
}

fn swap_moves_with_the_device(kernel: Kernel) {
    crate::with_kernel("swap", kernel, Duration::from_secs(400), |s| {
        let (vm, daemon) = guest(s, kernel, "wait", None)?;
        swap_on(&vm, "--backing /dev/vdb")?;
        let guest = vm.guest();
        let hog = guest.spawn(&swaphog_until_told(hog_mib(&vm)))?;
        await_counter(&vm, "backing_writes", 2000).context("Without a device no page went to the backing device")?;
        ensure!(guest.driver_stats()?.count("stores")? == 0, "Pages were stored before there was a device");
        for _ in 0..3 {
            vm.attach()?;
            await_stored(&vm)?;
            vm.detach()?;
            let stats = guest.driver_stats()?;
            ensure!(
                stats.count("swap_pages_live")? == 0,
                "The device has left with {} pages",
                stats.count("swap_pages_live")?
            );
        }
        vm.attach()?;
        await_stored(&vm)?;
        guest.sh(STOP_LOAD)?;
        hog.success(LIMIT * vm.options().patience()).context("A page changed while the device came and went")?;
        let stats = guest.driver_stats()?;
        ensure!(stats.count("losses")? == 0, "A device that left in good order counts as lost");
        ensure!(stats.count("loads")? > 0, "No page was loaded from the device");
        let frees = "await() { for i in $(seq 100); do [ $(awk '/^swap_pages_live/ { print $2 }' \
                     /sys/kernel/debug/zcache/stats) -gt $1 ] || return 0; sleep 0.1; done; return 1; }; await 1000";
        guest.sh(frees).context("Slots that the kernel freed are still taken on the device")?;
        guest.sh("zcachesetup swap off /dev/zcswap0")?;
        let left = daemon.guest_stats(0)?;
        ensure!(left.pools.is_empty(), "The pool outlives its swap disk: {:?}", left.pools);
        Ok(())
    });
}

/// Every page is on the backing device as well, so nothing is lost with the daemon.
#[test]
fn written_through_pages_survive_the_daemon() {
    scenario("stock_swap_writethrough", Duration::from_secs(300), |s| {
        let (vm, daemon) = guest(s, Kernel::Debian13Backports, "wait", None)?;
        swap_on(&vm, "--backing /dev/vdb --writethrough")?;
        vm.attach()?;
        let hog = vm.guest().spawn(&hog(&vm, 12))?;
        await_stored(&vm)?;
        daemon.kill()?;
        hog.success(LIMIT * vm.options().patience())
            .context("A page changed, or was waited for, when the daemon died")?;
        let state = vm.guest().driver_stats()?.state;
        ensure!(state == "lost", "The driver did not notice the death of the daemon: '{state}'");
        Ok(())
    });
}

/// What a full device refuses goes to the backing device, and nothing is mixed up.
#[test]
fn refused_pages_go_to_the_backing_device() {
    scenario("stock_swap_full", Duration::from_secs(300), |s| {
        let (vm, _daemon) = guest(s, Kernel::Uml, "wait", Some("16M"))?;
        swap_on(&vm, "--backing /dev/vdb")?;
        vm.attach()?;
        vm.guest().sh_within(&hog(&vm, 15), LIMIT).context("A page changed on a full device")?;
        let stats = vm.guest().driver_stats()?;
        for counter in ["stores", "store_refused"] {
            ensure!(stats.count(counter)? > 0, "'{counter}' is zero: the device was not filled");
        }
        Ok(())
    });
}

/// Folios of several pages, zero pages within them, are swapped as a whole; what is transferred is
/// counted as of any disk.
#[test]
fn large_folios_are_swapped() {
    scenario("stock_swap_large", Duration::from_secs(300), |s| {
        let (vm, _daemon) = guest(s, Kernel::Debian13Backports, "wait", None)?;
        let guest = vm.guest();
        swap_on(&vm, "--size 512M")?;
        vm.attach()?;
        let folios = "/sys/kernel/mm/transparent_hugepage/hugepages-64kB";
        guest.sh(&format!("echo always > {folios}/enabled"))?;
        caged(&vm, "swaphog --mib 96 --seconds 5 --procs 2 --huge", 48)?
            .success(LIMIT * vm.options().patience())
            .context("A page of a large folio changed")?;
        let swapped: u64 = guest.sh(&format!("cat {folios}/stats/swpout"))?.trim().parse()?;
        ensure!(swapped > 100, "Only {swapped} large folios were swapped out");
        let transfers = guest.sh("awk '$3 == \"zcswap0\" { print $8, $10 }' /proc/diskstats")?;
        let (writes, sectors) = transfers.trim().split_once(' ').context("The disk has no statistics")?;
        let (writes, sectors): (u64, u64) = (writes.parse()?, sectors.parse()?);
        // Single pages, which are 8 sectors, are swapped as well.
        ensure!(writes > 0 && sectors > writes * 12, "{sectors} sectors came in {writes} writes");
        Ok(())
    });
}

crate::on_kernels! {
    /// Private, shared and locked memory, tmpfs, memory that is moved, given up, and a child's;
    /// under a device that stands still, leaves and comes.
    fn memory_of_every_kind_is_swapped:
        extra_on_debian_12 = Debian12, extra_on_debian_13_backports = Debian13Backports, on_uml = Uml;
}

fn memory_of_every_kind_is_swapped(kernel: Kernel) {
    crate::with_kernel("swap_kinds", kernel, Duration::from_secs(240), |s| {
        let (vm, daemon) = guest(s, kernel, "wait", None)?;
        let guest = vm.guest();
        vm.attach()?;
        swap_on(&vm, "--backing /dev/vdb")?;
        guest.sh("mkdir /tmp/t; mount -t tmpfs none /tmp/t")?;
        let hog = caged(&vm, "memories --mib 96 --seconds 10 --file /tmp/t/file", 40)?;
        await_stored(&vm)?;
        daemon.stand_still(Duration::from_secs(2))?;
        vm.detach()?;
        vm.attach()?;
        hog.success(LIMIT * vm.options().patience()).context("Memory changed that was swapped")?;
        ensure!(guest.driver_stats()?.count("loads")? > 1000, "Few pages came from the device");
        Ok(())
    });
}

/// What the backing device cannot take stays in memory.
#[test]
fn bad_blocks_of_the_backing_device_lose_nothing() {
    scenario("stock_swap_bad", Duration::from_secs(300), |s| {
        let (vm, _daemon) = guest(s, Kernel::Debian12, "wait", None)?;
        swap_on_bad_disk(&vm)?;
        vm.guest().sh_within(&hog(&vm, 10), LIMIT).context("A page changed that a bad block had not taken")?;
        let errors = vm.guest().sh("awk '$1 == \"backing_errors\" { print $2 }' /sys/block/zcswap0/zc_stat")?;
        ensure!(errors.trim() != "0", "No page was offered to a bad block");
        vm.guest().sh("zcachesetup swap off /dev/zcswap0").map(drop)
    });
}

/// A page that only the dead daemon had is waited for; nobody gets anything else in its place. Who
/// waits can be killed.
#[test]
fn lost_pages_are_waited_for() {
    scenario("stock_swap_lost", Duration::from_secs(300), |s| {
        let (vm, daemon) = guest(s, Kernel::Debian13, "wait", None)?;
        swap_on(&vm, "--backing /dev/vdb")?;
        vm.attach()?;
        let hog = vm.guest().spawn(&hog(&vm, 60))?;
        await_stored(&vm)?;
        daemon.kill()?;
        vm.guest().await_driver_state("lost", Duration::from_secs(60))?;
        let Err(error) = hog.success(Duration::from_secs(20)) else {
            bail!("The hog ended well although pages of it are lost: what did it read in their place?");
        };
        let text = format!("{error:#}");
        ensure!(!text.contains("swaphog: pages="), "The hog found wrong pages instead of waiting: {text}");
        ensure!(vm.guest().driver_stats()?.count("load_waited")? > 0, "The hog did not wait for a page");
        // It was killed when its time was up.
        await_given_up(&vm).context("Processes that wait for lost pages cannot be killed")?;
        Ok(())
    });
}

/// A hundred times the device comes, and leaves or dies, under a hog that outlives it all.
#[test]
fn extra_a_hundred_devices() {
    scenario("stock_swap_hundred", Duration::from_secs(1800), |s| {
        let (vm, daemon) = guest(s, Kernel::Debian13, "wait", None)?;
        swap_on(&vm, "--backing /dev/vdb --writethrough")?;
        let hog = vm.guest().spawn(&swaphog_until_told(hog_mib(&vm)))?;
        for cycle in 0..100 {
            vm.attach().with_context(|| format!("In cycle {cycle}"))?;
            vm.guest().sh("sleep 1")?;
            if cycle % 4 == 3 {
                daemon.kill()?;
                vm.guest().await_driver_state("lost", Duration::from_secs(60))?;
                vm.detach()?;
                daemon.restart()?;
            } else {
                vm.detach()?;
            }
        }
        vm.guest().sh(STOP_LOAD)?;
        hog.success(LIMIT).context("A page changed within a hundred cycles")?;
        let stats = vm.guest().driver_stats()?;
        ensure!(stats.count("losses")? == 25, "{} of 25 losses were noticed", stats.count("losses")?);
        Ok(())
    });
}
