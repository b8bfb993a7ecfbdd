// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device is away with swapped pages, and comes back with them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use zcache_tests::{Daemon, Kernel, Vm};

use crate::swapping::{GO_ON, HOLD, OPEN_CAGE, await_counter, await_live, caged_hog, guest, swap_on, swap_stat};

/// Takes less than that, unless it never ends.
const SOON: Duration = Duration::from_secs(60);

crate::on_kernels! {
    /// Who waits for other processes' pages can be killed, and costs them nothing; everything that
    /// does not need such a page goes on.
    fn killed_waiters_cost_nobody_a_page:
        on_debian_12 = Debian12, extra_on_debian_13 = Debian13, on_uml = Uml;
}

fn killed_waiters_cost_nobody_a_page(kernel: Kernel) {
    crate::with_kernel("swap_away", kernel, Duration::from_secs(300), |s| {
        let (vm, daemon) = guest(s, kernel, "wait", None)?;
        let guest = vm.guest();
        swap_on(&vm, "--backing /dev/vdb")?;
        vm.attach()?;
        let hog = caged_hog(&vm, 128, 48, 40)?;
        // Of each of its processes, and not only of the first at work.
        await_live(&vm, 12_000)?;
        guest.sh(HOLD)?;

        signal(&daemon, Signal::STOP)?;
        // Of the hog's largest area, most of which is swapped.
        guest.sh("P=$(pgrep swaphog | tail -1); best=0
             while read -r range _; do
                 from=$((16#${range%-*})); to=$((16#${range#*-}))
                 if [ $((to - from)) -gt $best ]; then best=$((to - from)); first=$((from / 4096)); fi
             done </proc/$P/maps
             dd if=/proc/$P/mem of=/dev/null bs=4096 skip=$first count=20000 >/dev/null 2>&1 & echo $! > /tmp/dd")?;
        guest.await_driver_state("lost", SOON * vm.options().patience())?;
        await_counter(&vm, "load_waited", 0).context("Nobody waits for a page whose device is away")?;
        guest.sh_within("ps axo pid,stat,args >/dev/null", SOON).context("ps hangs while a page is waited for")?;
        guest
            .sh_within("echo 64 > /sys/block/zcswap0/queue/read_ahead_kb", SOON)
            .context("The disk's queue cannot be frozen while a page is waited for")?;
        let written = swap_stat(&vm, "backing_writes")?;
        guest
            .sh_within(
                "mkdir /tmp/groups/more; echo 24M > /tmp/groups/more/memory.max
                 echo $$ > /tmp/groups/more/cgroup.procs; exec swaphog --mib 48 --seconds 1",
                SOON * vm.options().patience(),
            )
            .context("Nothing can be swapped to the backing device while a page is waited for")?;
        let pages = swap_stat(&vm, "backing_writes")? - written;
        ensure!(pages > 2000, "Only {pages} pages were written to the backing device");

        guest.sh("swapoff /dev/zcswap0 >/dev/null 2>&1 & echo $! > /tmp/swapoff")?;
        guest.sh("kill -TERM $(cat /tmp/swapoff) $(cat /tmp/dd); sleep 2")?;
        guest.sh(OPEN_CAGE)?;
        signal(&daemon, Signal::CONT)?;
        come_back(&vm)?;
        guest.sh(GO_ON)?;
        hog.success(Duration::from_secs(180) * vm.options().patience())
            .context("The hog, which nobody killed, has lost a page that its device had")?;
        let stats = guest.driver_stats()?;
        for counter in ["load_lost", "swap_pages_lost"] {
            ensure!(stats.count(counter)? == 0, "'{counter}' is not zero though the device had every page");
        }
        Ok(())
    });
}

fn signal(daemon: &Daemon, signal: Signal) -> Result<()> {
    let pid = daemon.pid().and_then(Pid::from_raw).context("The daemon is dead")?;
    Ok(kill_process_group(pid, signal)?)
}

/// Takes the device into use again, if the driver does not by itself.
fn come_back(vm: &Vm) -> Result<()> {
    vm.guest().sh("sleep 3; grep -q '^state attached' /sys/kernel/debug/zcache/stats && exit
         cd /sys/bus/virtio/drivers/zcache_virtio; v=$(ls -d virtio*); echo $v > unbind; echo $v > bind")?;
    vm.guest().await_driver_state("attached", SOON)
}
