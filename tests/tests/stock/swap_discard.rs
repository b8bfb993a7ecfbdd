// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A kernel that does not tell the driver of a disk which swap slots it lets go of: it discards
//! them, if swapon said so.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zcache_tests::{Kernel, Sabotage, Vm, scenario};

use crate::swapping::{await_number, caged_hog, swap_on, swap_stat, with_driver};

/// Slots that are discarded only together, and of which one is in use: those beside the header,
/// and those that each CPU takes its next ones from.
const CLUSTERS_IN_USE: u64 = 4 * 512;

#[test]
fn freed_slots_are_discarded_where_the_kernel_does_not_tell_on_uml() {
    scenario("stock_swap_discard", Duration::from_secs(300), |s| {
        let (vm, daemon) = with_driver(s, Kernel::Uml, Some(Sabotage::Notify), "wait", None)?;
        vm.attach()?;
        swap_on(&vm, "--size 256M")?;

        swap_again(&vm, "")?;
        hog(&vm)?;
        let left = swap_stat(&vm, "pages_live")?;
        ensure!(
            left > 2 * CLUSTERS_IN_USE && swap_stat(&vm, "slot_frees")? == 0,
            "{left} pages are left on the device though nothing said that they are not needed"
        );

        swap_again(&vm, "--discard")?;
        let live = swap_stat(&vm, "pages_live")?;
        ensure!(live == 0, "{live} pages from before are on the device after the whole disk was discarded");
        let before = swap_stat(&vm, "slot_frees")?;
        hog(&vm)?;
        let live = "awk '$1 == \"pages_live\" { print $2 }' /sys/block/zcswap0/zc_stat";
        await_number(&vm, &format!("echo $(({CLUSTERS_IN_USE} - $({live})))"), 0)
            .context("Slots that the kernel has let go of are still taken on the device")?;
        let freed = swap_stat(&vm, "slot_frees")? - before;
        ensure!(freed > CLUSTERS_IN_USE, "Only {freed} slots were freed");

        vm.guest().sh("zcachesetup swap off /dev/zcswap0")?;
        let left = daemon.guest_stats(0)?;
        ensure!(left.pools.is_empty(), "The pool outlives its swap disk: {:?}", left.pools);
        Ok(())
    });
}

/// Swaps to the disk with these options of swapon, whatever `zcachesetup` gave it.
fn swap_again(vm: &Vm, options: &str) -> Result<()> {
    vm.guest().sh(&format!("swapoff /dev/zcswap0; swapon {options} /dev/zcswap0")).map(drop)
}

/// Swaps, and checks every page.
fn hog(vm: &Vm) -> Result<()> {
    let hog = caged_hog(vm, 96, 48, 5)?;
    hog.success(Duration::from_secs(120)).context("A page changed that was swapped").map(drop)
}
