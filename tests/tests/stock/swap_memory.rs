// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A swap disk without a backing device: what a drain takes of the guest's memory, and gives back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zcache_tests::load::swaphog;
use zcache_tests::{Kernel, Vm};

use crate::swapping::{
    GO_ON, HOLD, OPEN_CAGE, await_given_up, await_number, await_stored, caged, caged_hog, guest, swap_on,
};

crate::on_kernels! {
    /// With its memory full the guest keeps what it can do without, and the rest stays away.
    fn a_full_guest_outlives_its_device:
        on_debian_12 = Debian12, extra_on_debian_13 = Debian13, on_uml = Uml;
}
crate::on_each_release! {
    /// What a drain has kept in memory goes to the next device, and what is read is kept no more.
    fn kept_pages_go_back;
}

/// Slots that the kernel may let go of between two looks.
const FREED_MEANWHILE: u64 = 100;

fn count(vm: &Vm, counter: &str) -> Result<u64> {
    vm.guest().driver_stats()?.count(counter)
}

fn a_full_guest_outlives_its_device(kernel: Kernel) {
    crate::with_kernel("swap_full", kernel, Duration::from_secs(300), |s| {
        let (vm, _daemon) = guest(s, kernel, "wait", None)?;
        let guest = vm.guest();
        vm.attach()?;
        swap_on(&vm, "--size 512M")?;
        let _hog = guest.spawn(&swaphog(vm.options().memory_mib + 16, 120))?;
        await_stored(&vm)?;
        guest.sh("sleep 5")?;
        guest.sh(HOLD)?;
        let stored = count(&vm, "swap_pages_live")?;
        vm.detach().context("The device cannot be unplugged while memory is full")?;
        guest.sh_within("ls / >/dev/null", Duration::from_secs(30)).context("The guest is dead")?;
        let killed = guest.sh("dmesg | grep -c 'Out of memory' || true")?;
        ensure!(killed.trim() == "0", "The drain made the guest kill {} processes", killed.trim());
        let (away, kept) = (count(&vm, "swap_pages_away")?, count(&vm, "swap_pages_rescued")?);
        println!("{stored} pages on the device: {kept} kept in memory, {away} left");
        ensure!(away > 1000, "All but {away} of {stored} pages found room in a full guest: this tests nothing");
        // Slots that the kernel lets go of meanwhile are no longer away.
        let about = away..=away + FREED_MEANWHILE;
        let log = guest.sh("dmesg | grep 'zcache: drained'")?;
        let left = log.split_once(" left").and_then(|(before, _)| before.rsplit(' ').next()?.parse().ok());
        ensure!(
            left.is_some_and(|left| about.contains(&left)),
            "The log does not say that {away} pages are left: {log}"
        );
        let status = guest.sh("zcachesetup swap status --json")?;
        let left =
            status.split_once("\"pages_away\":").and_then(|(_, after)| after.split([',', '}']).next()?.parse().ok());
        ensure!(
            left.is_some_and(|left: u64| left <= away && away - left <= FREED_MEANWHILE),
            "zcachesetup does not say that {away} pages are left: {status}"
        );
        guest.sh("pkill -KILL swaphog")?;
        await_given_up(&vm).context("A process whose pages are away cannot be killed")?;
        Ok(())
    });
}

fn kept_pages_go_back(kernel: Kernel) {
    crate::with_kernel("swap_back", kernel, Duration::from_secs(300), |s| {
        let (vm, _daemon) = guest(s, kernel, "wait", None)?;
        let guest = vm.guest();
        vm.attach()?;
        swap_on(&vm, "--size 512M")?;
        let hog = caged_hog(&vm, 72, 40, 30)?;
        await_stored(&vm)?;
        guest.sh("sleep 5")?;
        guest.sh(HOLD)?;
        vm.detach()?;
        let kept = count(&vm, "swap_pages_rescued")?;
        ensure!(kept > 2000, "Only {kept} pages were kept in memory");
        ensure!(count(&vm, "swap_pages_live")? == 0, "A page has left with the device though there is memory");

        vm.attach()?;
        guest
            .sh("for i in $(seq 100); do grep -q '^swap_pages_rescued 0$' /sys/kernel/debug/zcache/stats && exit
                     sleep 0.2; done; exit 1")
            .context("The new device does not get the pages that were kept in memory")?;
        let live = count(&vm, "swap_pages_live")?;
        ensure!(live == kept, "{live} of {kept} pages that were kept in memory are on the new device");

        vm.detach()?;
        guest.sh(OPEN_CAGE)?;
        guest.sh(GO_ON)?;
        guest.sh("sleep 3")?;
        guest.sh(HOLD)?;
        let (loads, left) = (count(&vm, "load_rescued")?, count(&vm, "swap_pages_rescued")?);
        ensure!(loads > 1000, "Only {loads} of {kept} pages were read from memory");
        ensure!(left + loads <= kept, "{left} of {kept} pages are kept in memory though {loads} were read");
        guest.sh(GO_ON)?;
        hog.success(Duration::from_secs(120) * vm.options().patience()).context("A page changed on its way")?;
        Ok(())
    });
}

/// A drain that could only take a part has left its device copies of the pages that it took: when
/// the kernel lets go of these, the copies go.
#[test]
fn what_a_drain_keeps_is_not_left_on_the_device_on_uml() {
    let kernel = Kernel::Uml;
    crate::with_kernel("swap_copies", kernel, Duration::from_secs(240), |s| {
        let (vm, daemon) = guest(s, kernel, "wait", None)?;
        let guest = vm.guest();
        vm.attach()?;
        swap_on(&vm, "--size 512M")?;
        guest.sh("mkdir /tmp/t; mount -t tmpfs -o size=400M none /tmp/t")?;
        caged(&vm, "dd if=/dev/urandom of=/tmp/t/f bs=1M count=240 status=none", 48)?
            .success(Duration::from_secs(60))?;
        guest.sh("cd /sys/bus/virtio/drivers/zcache_virtio; ls -d virtio* > /tmp/v; cat /tmp/v > unbind")?;
        let (away, kept) = (count(&vm, "swap_pages_away")?, count(&vm, "swap_pages_rescued")?);
        ensure!(away > 1000 && kept > 1000, "{kept} pages are kept in memory, {away} are left: this tests nothing");

        // Nobody is left in the group to be killed if what is read does not fit into it.
        guest.sh(OPEN_CAGE)?;
        guest
            .sh_within("dd if=/tmp/t/f of=/dev/null bs=64k count=32 status=none", Duration::from_secs(30))
            .context("What is kept in memory cannot be read")?;
        ensure!(count(&vm, "load_rescued")? > 100, "No page was read from memory");
        guest.sh("rm /tmp/t/f; cat /tmp/v > /sys/bus/virtio/drivers/zcache_virtio/bind")?;
        guest.await_driver_state("attached", Duration::from_secs(30))?;
        let log = guest.sh("dmesg | grep 'attached:' | tail -1")?;
        ensure!(log.contains("resumed"), "The device does not resume the session: {log}");
        let told = "awk '/^swap_pages_(live|stale)/ { n += $2 } END { print (n == 0) }' /sys/kernel/debug/zcache/stats";
        await_number(&vm, told, 0).context("The device is not told of pages that nobody needs")?;
        guest.sh("swapoff /dev/zcswap0")?;
        let left: u64 = daemon.guest_stats(0)?.pools.iter().map(|pool| pool.pages).sum();
        ensure!(left == 0, "{left} pages are left on the device, of {kept} that were kept in memory");
        Ok(())
    });
}
