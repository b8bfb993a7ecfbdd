// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The daemon is killed: files cost misses, swap is never garbage, all within bounded time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use zcache_tests::load::{coherence, cycle_files, read_files, swaphog, write_files};
use zcache_tests::{Daemon, DaemonOptions, Modules, Scenario, Vm, VmOptions, scenario};

/// Longest that a read of a file may be held up by a dead daemon.
const FILE_LIMIT: Duration = Duration::from_secs(40);

/// A guest with files and swap on the device; `swap_loss` is the driver's parameter.
fn attached_guest(s: &Scenario, swap_loss: &str) -> Result<(Arc<Vm>, Arc<Daemon>)> {
    let daemon = s.daemon(DaemonOptions::usual()?)?;
    let mut options = VmOptions::new("guest").daemon(&daemon, 0).disk_mib(256).disk_mib(512);
    options.modules = Modules::NotLoaded;
    let vm = s.vm(options)?;
    vm.guest().sh(&format!(
        "insmod /payload/modules/zcache.ko swap_loss={swap_loss}; insmod /payload/modules/zcache_virtio.ko
         mkfs.ext4 -q -b 4096 /dev/vdb; mkswap /dev/vdc; mkdir -p /mnt1; mount /dev/vdb /mnt1; swapon /dev/vdc"
    ))?;
    vm.attach()?;
    Ok((vm, daemon))
}

/// Waits until the device holds swapped pages.
fn await_swapped(vm: &Vm) -> Result<()> {
    vm.guest()
        .sh_within(
            "until [ $(awk '/^swap_pages_live/ { print $2 }' /sys/kernel/debug/zcache/stats) -gt 2000 ]; do sleep 0.1; done",
            Duration::from_secs(60),
        )
        .context("No page was swapped to the device")?;
    Ok(())
}

/// Conformance: ZC-DRV-19, ZC-DRV-20.
#[test]
fn files_are_read_from_the_disk_when_the_daemon_is_dead() {
    scenario("loss_files", Duration::from_secs(240), |s| {
        let (vm, daemon) = attached_guest(s, "wait")?;
        let guest = vm.guest();
        guest.sh(&write_files("/mnt1", 32))?;
        guest.sh(&cycle_files("/mnt1", 32))?;
        ensure!(guest.driver_stats()?.count("get_hits")? > 0, "No page of a file came back from the device");

        daemon.kill()?;
        let started = Instant::now();
        guest
            .sh_within(&cycle_files("/mnt1", 32), FILE_LIMIT)
            .context("Reading files does not get over the death of the daemon")?;
        guest.await_driver_state("lost", FILE_LIMIT)?;
        println!("files were read {:.1} s after the kill", started.elapsed().as_secs_f32());
        guest.sh(&coherence("/mnt1/c", 3)).context("A file changed after the loss")?;

        vm.detach()?;
        daemon.restart()?;
        vm.attach()?;
        let hits = guest.driver_stats()?.count("get_hits")?;
        guest.sh(&cycle_files("/mnt1", 32))?;
        ensure!(guest.driver_stats()?.count("get_hits")? > hits, "The new daemon's device brings no page back");
        Ok(())
    });
}

/// A page that only the dead daemon had is gone. Whoever needs it waits; nobody gets something
/// else in its place, and the rest of the guest goes on.
///
/// Conformance: ZC-DRV-13.
#[test]
fn lost_swap_pages_are_waited_for() {
    scenario("loss_swap_wait", Duration::from_secs(240), |s| {
        let (vm, daemon) = attached_guest(s, "wait")?;
        let guest = vm.guest();
        guest.sh(&write_files("/mnt1", 32))?;
        let hog = guest.spawn(&swaphog(300, 60))?;
        await_swapped(&vm)?;
        daemon.kill()?;
        guest.await_driver_state("lost", FILE_LIMIT)?;
        // The hog's processes need a lost page sooner or later; then they wait.
        guest
            .sh_within(
                "until [ $(awk '/^load_waited/ { print $2 }' /sys/kernel/debug/zcache/stats) -gt 0 ]; do sleep 0.1; done",
                Duration::from_secs(60),
            )
            .context("No load waited for a lost page")?;
        guest.sh(&read_files("/mnt1", 32)).context("The rest of the guest does not go on")?;

        daemon.restart()?;
        vm.attach()?;
        guest.sh(&cycle_files("/mnt1", 32)).context("The new device does not serve files")?;
        let Err(error) = hog.success(Duration::from_secs(5)) else {
            bail!("The hog ended well although pages of it are lost: what did it read in their place?");
        };
        let text = format!("{error:#}");
        ensure!(!text.contains("swaphog: pages="), "The hog found wrong pages instead of waiting: {text}");
        Ok(())
    });
}

/// Conformance: ZC-DRV-13.
#[test]
fn written_through_swap_pages_survive_the_daemon() {
    scenario("loss_swap_writethrough", Duration::from_secs(240), |s| {
        let (vm, daemon) = attached_guest(s, "writethrough")?;
        let hog = vm.guest().spawn(&swaphog(300, 12))?;
        await_swapped(&vm)?;
        daemon.kill()?;
        hog.success(Duration::from_secs(180)).context("A swapped page changed or was waited for")?;
        let stats = vm.guest().driver_stats()?;
        ensure!(stats.state == "lost", "The driver did not notice the death of the daemon: '{}'", stats.state);
        Ok(())
    });
}

/// Conformance: ZC-DRV-13.
#[test]
fn a_guest_that_is_told_so_panics_rather_than_go_on() {
    scenario("loss_swap_panic", Duration::from_secs(240), |s| {
        let (vm, daemon) = attached_guest(s, "panic")?;
        let _hog = vm.guest().spawn(&swaphog(300, 60))?;
        await_swapped(&vm)?;
        daemon.kill()?;
        vm.process().wait(Duration::from_secs(60)).context("The guest does not panic")?;
        let log = std::fs::read_to_string(vm.dir().join("guest-serial.log"))?;
        ensure!(log.contains("Kernel panic - not syncing: zcache"), "The guest ended without a panic of the driver's");
        Ok(())
    });
}
