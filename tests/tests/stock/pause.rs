// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The machine, or the daemon, is stopped and goes on under mapped devices and swap disks.

use std::time::Duration;

use anyhow::{Context, ensure};
use zcache_tests::load::{STOP_LOAD, coherence_until_told, swaphog_until_told};
use zcache_tests::{Continuity, DaemonOptions, Kernel, random_ms, scenario};

use crate::volume::Volume;

const LIMIT: Duration = Duration::from_secs(240);

/// Conformance: ZC-DEV-40.
#[test]
fn a_stopped_machine_keeps_files_and_swap_on_the_device() {
    scenario("stock_pause", Duration::from_secs(600), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let vm = s.vm(crate::guest(Kernel::Debian13).daemon(&daemon, 0).disk_mib(192).disk_mib(512))?;
        let guest = vm.guest();
        let volume = Volume::mount(&vm, "ext4", 0)?;
        guest.sh("zcachesetup swap on --backing /dev/vdc")?;
        vm.attach()?;
        let hog = guest.spawn(&swaphog_until_told(vm.options().memory_mib - 16))?;
        let files = guest.spawn(&coherence_until_told(&format!("{}/c", volume.folder())))?;
        Continuity::of(&vm)?.survives_stops(15, |_| Ok(()))?;
        guest.sh(STOP_LOAD)?;
        hog.success(LIMIT).context("A swapped page changed when the machine was stopped")?;
        files.success(LIMIT).context("A file changed when the machine was stopped")?;
        ensure!(volume.count("hits")? > 0, "No page of a file came from the device");
        volume.verify_and_close()
    });
}

crate::on_kernels! {
    /// The default time-out is passed once.
    fn a_daemon_that_stood_still_is_used_again: extra_on_debian_13 = Debian13, on_uml = Uml;
    fn a_daemon_that_stood_still_for_minutes_is_used_again:
        extra_on_debian_12 = Debian12, extra_on_debian_13 = Debian13, extra_on_uml = Uml;
    /// Ten times, for less or more than the time-out as it comes, and soon again.
    fn a_daemon_that_stumbles_is_used_again: extra_on_debian_13 = Debian13, extra_on_uml = Uml;
}

fn a_daemon_that_stood_still_is_used_again(kernel: Kernel) {
    standing_still("stall", kernel, &[5, 15].map(Duration::from_secs));
}

fn a_daemon_that_stood_still_for_minutes_is_used_again(kernel: Kernel) {
    standing_still("stall_minutes", kernel, &[60, 300].map(Duration::from_secs));
}

fn a_daemon_that_stumbles_is_used_again(kernel: Kernel) {
    standing_still("stumble", kernel, &[(); 10].map(|()| Duration::from_secs(1) + random_ms(11_000)));
}

fn standing_still(name: &str, kernel: Kernel, stalls: &[Duration]) {
    crate::with_kernel(name, kernel, Duration::from_secs(600) + stalls.iter().sum(), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let vm = s.vm(crate::guest(kernel).daemon(&daemon, 0).disk_mib(192).disk_mib(512))?;
        let guest = vm.guest();
        let volume = Volume::mount(&vm, "ext4", 0)?;
        guest.sh("zcachesetup swap on --backing /dev/vdc")?;
        vm.attach()?;
        // Who needs the lock of a folio that is read waits as long; the kernel says so after two
        // minutes.
        guest.sh("echo 0 >/proc/sys/kernel/hung_task_timeout_secs || true")?;
        let hog = guest.spawn(&swaphog_until_told(vm.options().memory_mib - 16))?;
        let files = guest.spawn(&coherence_until_told(&format!("{}/c", volume.folder())))?;
        let mut session = Continuity::of(&vm)?;
        for length in stalls {
            session.survives_stall(*length)?;
        }
        let long = stalls.iter().any(|length| *length > Duration::from_secs(13));
        ensure!(!long || session.losses() > 0, "No time without an answer was noticed: was there a load?");
        guest.sh(STOP_LOAD)?;
        hog.success(LIMIT).context("A swapped page changed when the daemon stood still")?;
        files.success(LIMIT).context("A file changed when the daemon stood still")?;
        volume.verify_and_close()
    });
}
