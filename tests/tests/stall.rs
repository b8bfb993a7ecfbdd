// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The daemon stands still for longer than the driver waits for an answer, and goes on: a host
//! short of memory, a debugger. That costs time and nothing else.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use zcache_tests::load::{STOP_LOAD, coherence_until_told, swaphog_until_told};
use zcache_tests::{Continuity, DaemonOptions, VmOptions, scenario};

const LIMIT: Duration = Duration::from_secs(180);

/// How long the driver waits for an answer here.
const TIMEOUT_MS: u32 = 3000;

/// Conformance: ZC-DRV-12, ZC-DRV-19.
#[test]
fn a_daemon_that_stood_still_is_used_again() {
    standing_still("stall_classic", &[1, 5, 15]);
}

/// Conformance: ZC-DRV-12, ZC-DRV-19.
#[test]
fn extra_a_daemon_that_stood_still_for_minutes_is_used_again() {
    standing_still("stall_classic_minutes", &[60, 300]);
}

/// The pages of a device that is unplugged while it stands still are brought back when it answers
/// soon enough.
#[test]
fn unplugging_waits_for_a_daemon_that_stands_still() {
    scenario("stall_unplug", Duration::from_secs(240), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let mut options = VmOptions::new("guest").daemon(&daemon, 0).disk_mib(512);
        options.memory_mib = 128;
        let vm = s.vm(options)?;
        let guest = vm.guest();
        guest.sh("mkswap /dev/vdb; swapon /dev/vdb; echo 5000 > /sys/module/zcache_virtio/parameters/timeout_ms")?;
        vm.attach()?;
        let hog = guest.spawn(&swaphog_until_told(130))?;
        Continuity::of(&vm)?.await_hits()?;
        std::thread::scope(|threads| {
            let stall = threads.spawn(|| daemon.stand_still(Duration::from_secs(11)));
            // By then it is lost. The guest can't be asked: what it needs to answer may be away.
            std::thread::sleep(Duration::from_secs(8));
            let left = vm.detach();
            stall.join().map_err(|_| anyhow!("The daemon was not stopped"))??;
            left
        })?;
        let stats = guest.driver_stats()?;
        for counter in ["swap_pages_live", "swap_pages_lost"] {
            let count = stats.count(counter)?;
            ensure!(count == 0, "The device has left with {count} pages ({counter})");
        }
        ensure!(stats.count("losses")? > 0, "The device was not lost before it was unplugged");
        guest.sh(STOP_LOAD)?;
        hog.success(LIMIT).context("A swapped page changed")?;
        Ok(())
    });
}

fn standing_still(name: &str, seconds: &[u64]) {
    let all = Duration::from_secs(seconds.iter().sum());
    scenario(name, Duration::from_secs(420) + all, |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let mut options = VmOptions::new("guest").daemon(&daemon, 0).disk_mib(192).disk_mib(512);
        options.memory_mib = 128;
        let vm = s.vm(options)?;
        let guest = vm.guest();
        guest.sh(
            "mkfs.ext4 -q -b 4096 /dev/vdb; mkswap /dev/vdc; mkdir -p /mnt1; mount /dev/vdb /mnt1; swapon /dev/vdc",
        )?;
        guest.sh(&format!("echo {TIMEOUT_MS} > /sys/module/zcache_virtio/parameters/timeout_ms"))?;
        vm.attach()?;
        let hog = guest.spawn(&swaphog_until_told(130))?;
        let files = guest.spawn(&coherence_until_told("/mnt1/c"))?;
        let mut session = Continuity::of(&vm)?;
        survive(&mut session, seconds)?;
        guest.sh(STOP_LOAD)?;
        hog.success(LIMIT).context("A swapped page changed when the daemon stood still")?;
        files.success(LIMIT).context("A file changed when the daemon stood still")?;
        Ok(())
    });
}

fn survive(session: &mut Continuity<'_>, seconds: &[u64]) -> Result<()> {
    for length in seconds {
        let before = session.losses();
        session.survives_stall(Duration::from_secs(*length))?;
        let long = *length > 2 * u64::from(TIMEOUT_MS) / 1000;
        ensure!(!long || session.losses() > before, "{length} s without an answer were not noticed: was there a load?");
    }
    Ok(())
}
