// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host would like to be rid of swapped pages: they go to the backing device.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use vhost_zcache::admin::wish::Wish;
use zcache_tests::{Daemon, Kernel, Running, Vm};

use crate::swapping::{
    END, GO_ON, HOLD, await_counter, await_live, caged_hog, guest, swap_on, swap_on_bad_disk, swap_stat,
};

crate::on_kernels! {
    /// A guest that does nothing, and one that swaps all the time, take pages back when the
    /// operator wants memory, and every page is what it was.
    fn wanted_pages_go_to_the_backing_device:
        extra_on_debian_12 = Debian12, extra_on_debian_13_backports = Debian13Backports, on_uml = Uml;
}

/// Waits until something holds of the guest, as the daemon sees it.
fn await_daemon(vm: &Vm, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let limit = Duration::from_secs(60) * vm.options().patience();
    let start = Instant::now();
    while !holds()? {
        ensure!(start.elapsed() < limit, "Not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// A hog that stands still with pages on the device, and a guest that asks about them.
fn held_hog<'a>(vm: &'a Vm, daemon: &Daemon) -> Result<Running<'a>> {
    let hog = caged_hog(vm, 96, 40, 200 * vm.options().patience())?;
    await_live(vm, 3000)?;
    vm.guest().sh(HOLD)?;
    await_daemon(vm, "the guest asks", || Ok(asked(daemon)? > 0))?;
    Ok(hog)
}

/// How often the guest has asked what it is to take back.
fn asked(daemon: &Daemon) -> Result<u64> {
    Ok(daemon.guest_stats(0)?.requests.get("wanted").map_or(0, |row| row.values().sum()))
}

/// Has the host want all it can get; how many pages of the guest it asks for.
fn want_all(daemon: &Daemon) -> Result<u64> {
    let report: serde_json::Value = serde_json::from_str(&daemon.ask(&Wish::GiveBack { bytes: 1 << 40 })?)?;
    let wanted = report["wanted_pages"].as_object().context("The report does not say what is wanted")?;
    Ok(wanted.values().filter_map(serde_json::Value::as_u64).sum())
}

fn nothing_is_lost(vm: &Vm) -> Result<()> {
    let stats = vm.guest().driver_stats()?;
    for counter in ["losses", "load_lost", "swap_pages_lost"] {
        ensure!(stats.count(counter)? == 0, "{counter}: {}", stats.count(counter)?);
    }
    Ok(())
}

fn wanted_pages_go_to_the_backing_device(kernel: Kernel) {
    crate::with_kernel("swap_take_back", kernel, Duration::from_secs(360), |s| {
        let (vm, daemon) = guest(s, kernel, "wait", None)?;
        let guest = vm.guest();
        vm.attach()?;
        swap_on(&vm, "--backing /dev/vdb")?;
        guest.sh("sleep 2")?;
        ensure!(asked(&daemon)? == 0, "A guest without pages asks what it is to take back");

        let hog = held_hog(&vm, &daemon)?;
        let before = daemon.guest_stats(0)?;
        let wanted = want_all(&daemon)?;
        ensure!(wanted > 2500, "Only {wanted} of {} pages are wanted", before.pages);
        await_daemon(&vm, "the guest takes back what is wanted", || Ok(daemon.guest_stats(0)?.pages * 10 < wanted))?;
        let most = before.physical_bytes / 2;
        await_daemon(&vm, "their memory is back", || Ok(daemon.guest_stats(0)?.physical_bytes < most))?;
        let after = daemon.guest_stats(0)?;
        ensure!(after.taken_back_pages * 10 > wanted * 9, "The daemon has counted {} pages", after.taken_back_pages);
        let taken = swap_stat(&vm, "taken_back")?;
        ensure!(taken * 10 > wanted * 9, "Of {wanted} pages the guest says to have taken {taken} back");
        ensure!(swap_stat(&vm, "backing_errors")? == 0, "A page could not be written");

        // Nothing is wanted any more, so the device is used again.
        guest.sh(GO_ON)?;
        await_live(&vm, 2000).context("A guest that has taken pages back stores no more")?;
        let wanted = want_all(&daemon)?;
        ensure!(wanted > 1500, "Only {wanted} pages are wanted of a guest that swaps");
        await_counter(&vm, "taken_back", u32::try_from(taken + 500)?)
            .context("A guest that swaps takes nothing back")?;
        guest.sh(END)?;
        hog.success(Duration::from_secs(240) * vm.options().patience()).context("A page changed on its way back")?;
        nothing_is_lost(&vm)?;
        let stored_elsewhere = guest.driver_stats()?.count("store_wanted")?;
        ensure!(stored_elsewhere > 0, "What was stored while pages were wanted went to the device");
        Ok(())
    });
}

/// What the backing device does not take stays with the host, and is stored there as ever; all else
/// goes to the backing device.
#[test]
fn what_a_bad_block_does_not_take_stays_on_uml() {
    crate::with_kernel("swap_take_back_bad", Kernel::Uml, Duration::from_secs(240), |s| {
        let (vm, daemon) = guest(s, Kernel::Uml, "wait", None)?;
        let guest = vm.guest();
        vm.attach()?;
        swap_on_bad_disk(&vm)?;
        let hog = held_hog(&vm, &daemon)?;
        let before = daemon.guest_stats(0)?.pages;
        want_all(&daemon)?;
        await_daemon(&vm, "the guest takes back what the disk takes", || {
            Ok(daemon.guest_stats(0)?.pages + 200 < before && swap_stat(&vm, "backing_errors")? > 0)
        })?;

        // The host wants the rest for as long as it has it.
        guest.sh(GO_ON)?;
        guest.sh("sleep 5")?;
        ensure!(daemon.guest_stats(0)?.pages > 500, "Pages went to blocks that are bad");
        guest.sh(END)?;
        hog.success(Duration::from_secs(120)).context("A page changed that a bad block had not taken")?;
        nothing_is_lost(&vm)
    });
}

/// Of two disks the first cannot be written but for its header: what is on the second is taken back
/// all the same.
#[test]
fn a_disk_that_takes_nothing_is_in_no_others_way_on_uml() {
    crate::with_kernel("swap_take_back_two", Kernel::Uml, Duration::from_secs(240), |s| {
        let (vm, daemon) = guest(s, Kernel::Uml, "wait", None)?;
        let guest = vm.guest();
        vm.attach()?;
        guest.sh("modprobe dm-mod || true; rest=$(($(blockdev --getsz /dev/vdb) - 8)); export DM_DISABLE_UDEV=1
             { echo 0 8 linear /dev/vdb 0; echo 8 $rest error; } | dmsetup create --noudevsync never
             echo 0 $rest linear /dev/vdb 8 | dmsetup create --noudevsync other")?;
        swap_on(&vm, "--backing /dev/mapper/never --priority 10")?;
        guest.sh("zcachesetup swap on --backing /dev/mapper/other --priority 10; dmesg --clear")?;
        let hog = held_hog(&vm, &daemon)?;
        let before = daemon.guest_stats(0)?.pages;
        want_all(&daemon)?;
        await_daemon(&vm, "the guest takes back what one of the disks takes", || {
            Ok(daemon.guest_stats(0)?.pages * 10 < before * 7 && swap_stat(&vm, "backing_errors")? > 0)
        })?;
        guest.sh(GO_ON)?;
        guest.sh(END)?;
        hog.success(Duration::from_secs(120)).context("A page changed that a disk had not taken")?;
        nothing_is_lost(&vm)
    });
}
