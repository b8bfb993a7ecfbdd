// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine is stopped and goes on, is snapshotted, and is reset: the VMM stops all rings
//! each time, and only the reset ends the session.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use zcache_tests::load::{STOP_LOAD, coherence_until_told, cycle_files, read_files, swaphog_until_told, write_files};
use zcache_tests::{Continuity, Daemon, DaemonOptions, Scenario, Vm, VmOptions, scenario};

const LIMIT: Duration = Duration::from_secs(120);
const MOUNT: &str = "mkdir -p /mnt1; mount /dev/vdb /mnt1";

fn guest_with_files_and_swap(s: &Scenario) -> Result<(Arc<Vm>, Arc<Daemon>)> {
    let daemon = s.daemon(DaemonOptions::usual()?)?;
    let mut options = VmOptions::new("guest").daemon(&daemon, 0).disk_mib(192).disk_mib(256);
    options.memory_mib = 128;
    let vm = s.vm(options)?;
    vm.guest().sh(&format!("mkfs.ext4 -q -b 4096 /dev/vdb; mkswap /dev/vdc; {MOUNT}; swapon /dev/vdc"))?;
    vm.attach()?;
    Ok((vm, daemon))
}

/// Conformance: ZC-DEV-40.
#[test]
fn a_machine_that_is_stopped_keeps_its_session() {
    scenario("pause_classic", Duration::from_secs(300), |s| {
        let (vm, _daemon) = guest_with_files_and_swap(s)?;
        let guest = vm.guest();
        let hog = guest.spawn(&swaphog_until_told(130))?;
        let files = guest.spawn(&coherence_until_told("/mnt1/c"))?;
        Continuity::of(&vm)?.survives_stops(15, |_| Ok(()))?;
        guest.sh(STOP_LOAD)?;
        hog.success(LIMIT).context("A swapped page changed when the machine was stopped")?;
        files.success(LIMIT).context("A file changed when the machine was stopped")?;
        Ok(())
    });
}

/// Disks of a stopped machine are snapshotted together, as libvirt does it. (A snapshot with the
/// machine's state is not to be had: the device cannot be migrated.)
///
/// Conformance: ZC-DEV-40.
#[test]
fn snapshots_under_load_keep_the_session() {
    scenario("pause_snapshot", Duration::from_secs(300), |s| {
        let (vm, _daemon) = guest_with_files_and_swap(s)?;
        let guest = vm.guest();
        let hog = guest.spawn(&swaphog_until_told(130))?;
        let files = guest.spawn(&coherence_until_told("/mnt1/c"))?;
        let images = tempfile::tempdir_in(s.dir())?;
        let session = Continuity::of(&vm)?;
        session.survives_stops(4, |round| snapshot(&vm, images.path(), &format!("stopped{round}")))?;
        snapshot(&vm, images.path(), "running")?;
        let savevm = vm.qmp()?.execute("human-monitor-command", json!({"command-line": "savevm all"}))?;
        ensure!(savevm.to_string().contains("non-migratable"), "savevm is not refused as it should be: {savevm}");
        session.await_hits().context("After a snapshot of the running machine")?;
        session.check()?;
        guest.sh(STOP_LOAD)?;
        hog.success(LIMIT).context("A swapped page changed when the disks were snapshotted")?;
        files.success(LIMIT).context("A file changed when the disks were snapshotted")?;
        Ok(())
    });
}

/// Makes what both disks hold the backing of new images, at one moment.
fn snapshot(vm: &Vm, folder: &Path, name: &str) -> Result<()> {
    let snapshot_of = |disk: &str| {
        let image = folder.join(format!("{disk}-{name}.qcow2"));
        json!({"type": "blockdev-snapshot-sync", "data": {"device": disk, "snapshot-file": image, "format": "qcow2"}})
    };
    vm.qmp()?.execute("transaction", json!({"actions": [snapshot_of("vdb"), snapshot_of("vdc")]}))?;
    Ok(())
}

/// The driver of a guest that was reset does not say good-bye. What it had on the device is gone
/// when the next one has said HELLO, which is another instance; the next one is served.
///
/// Conformance: ZC-DEV-18.
#[test]
fn a_machine_that_is_reset_starts_with_nothing_on_the_device() {
    scenario("pause_reset", Duration::from_secs(300), |s| {
        let (vm, daemon) = guest_with_files_and_swap(s)?;
        let guest = vm.guest();
        guest.sh(&write_files("/mnt1", 24))?;
        guest.sh(&format!("{}; sync", cycle_files("/mnt1", 24)))?;
        // It prints nothing, see `Vm::reset`.
        let _hog = guest.spawn(&format!("( {} ) >/dev/null", swaphog_until_told(130)))?;
        let _files = guest.spawn(&format!("while true; do {}; done", cycle_files("/mnt1", 24)))?;
        Continuity::of(&vm)?.await_hits()?;
        ensure!(daemon.guest_stats(0)?.pages > 0, "The device holds nothing that could be stale");

        vm.reset()?;
        ensure!(daemon.guest_stats(0)?.connected, "The reset has ended the connection");
        // What the old driver had put is not what is on the disk when the new one comes.
        guest.sh(&format!("{MOUNT}; swapon /dev/vdc"))?;
        guest.sh(&write_files("/mnt1", 16))?;
        guest.sh("swapoff /dev/vdc; umount /mnt1")?;
        vm.load_modules()?;
        guest.await_driver_state("attached", LIMIT)?;
        let held = daemon.guest_stats(0)?;
        ensure!(
            held.pages == 0 && held.pools.is_empty(),
            "After the HELLO of another driver the device still holds {} pages in {:?}",
            held.pages,
            held.pools
        );

        guest.sh(&format!("{MOUNT}; swapon /dev/vdc"))?;
        guest.sh(&read_files("/mnt1", 16)).context("A page from before the reset came back")?;
        guest.sh(&cycle_files("/mnt1", 16)).context("A page from before the reset came back")?;
        let hog = guest.spawn(&swaphog_until_told(130))?;
        let files = guest.spawn(&coherence_until_told("/mnt1/c"))?;
        let session = Continuity::of(&vm)?;
        session.await_hits().context("After the reset")?;
        guest.sh(STOP_LOAD)?;
        hog.success(LIMIT).context("A swapped page changed after the reset")?;
        files.success(LIMIT).context("A file changed after the reset")?;
        session.check()
    });
}
