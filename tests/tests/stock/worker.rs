// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The daemon's worker is killed again and again, under swap and files. The guest is not to notice
//! more than a pause.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zcache_tests::load::{STOP_LOAD, coherence_until_told, swaphog_until_told};
use zcache_tests::{DaemonOptions, Kernel, Vm};

use crate::swapping::{await_number, await_stored, swap_on};
use crate::volume::Volume;

const LIMIT: Duration = Duration::from_secs(180);
const KILLS: u64 = 8;

#[test]
fn a_worker_that_dies_again_and_again_loses_nothing_on_uml() {
    crate::with_kernel("worker", Kernel::Uml, Duration::from_secs(300), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let vm = s.vm(crate::guest(Kernel::Uml).daemon(&daemon, 0).disk_mib(320).disk_mib(512))?;
        let guest = vm.guest();
        let volume = Volume::mount(&vm, "ext4", 0)?;
        swap_on(&vm, "--backing /dev/vdc")?;
        vm.attach()?;
        let hog = guest.spawn(&swaphog_until_told(vm.options().memory_mib - 16))?;
        let files = guest.spawn(&coherence_until_told(&volume.folder()))?;
        await_stored(&vm)?;
        for kill in 1..=KILLS {
            let loads = count(&vm, "loads")?;
            // By the guest's own command, and from here.
            if kill % 2 == 0 {
                guest.sh("zhost kill-worker")?;
            } else {
                daemon.kill_worker()?;
            }
            await_number(&vm, &stat("loads"), loads).with_context(|| format!("No page is loaded after kill {kill}"))?;
        }
        guest.sh(STOP_LOAD)?;
        hog.success(LIMIT).context("A page changed while workers died")?;
        files.success(LIMIT).context("A file changed while workers died")?;
        let stats = guest.driver_stats()?;
        ensure!(stats.count("losses")? == 0, "The death of a worker counts as the loss of the device");
        let restarts = daemon.stats()?["worker_restarts"].as_u64();
        ensure!(restarts == Some(KILLS), "{restarts:?} workers have died, not {KILLS}");
        ensure!(volume.count("hits")? > 0, "No page of a file came from the device");
        volume.verify_and_close()?;
        guest.sh("zcachesetup swap off /dev/zcswap0").map(drop)
    });
}

fn stat(name: &str) -> String {
    format!("awk '/^{name} / {{ print $2 }}' /sys/kernel/debug/zcache/stats")
}

fn count(vm: &Vm, name: &str) -> Result<u32> {
    Ok(u32::try_from(vm.guest().driver_stats()?.count(name)?)?)
}
