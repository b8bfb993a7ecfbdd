// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is said of pages on a swap disk, and who may look at them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zcache_tests::{Kernel, Sabotage, Vm};

use crate::swapping::{
    HOLD, OPEN_CAGE, await_counter, await_stored, caged, caged_hog, guest, swap_on, swap_stat, with_driver,
};

/// Reads the whole disk from outside, whatever errors there are.
const LOOK: &str = "dd if=/dev/zcswap0 of=/dev/null bs=4k iflag=direct conv=noerror >/dev/null 2>&1 || true";

/// A backing device of 128 MiB, which is soon read page by page.
const SMALL_DISK: &str = "\
DM_DISABLE_UDEV=1 dmsetup create small --noudevsync --table '0 262144 linear /dev/vdb 0'";

crate::on_each_release! {
    /// What nobody took is still the kernel's, and not lost.
    fn what_the_kernel_keeps_is_not_lost;
    /// With `swap_loss=panic` the guest ends when somebody needs a lost page, not when the disk is
    /// looked at.
    fn a_look_at_the_disk_does_no_harm;
}

fn lost(vm: &Vm) -> Result<u64> {
    vm.guest().driver_stats()?.count("swap_pages_lost")
}

fn what_the_kernel_keeps_is_not_lost(kernel: Kernel) {
    crate::with_kernel("swap_kept", kernel, Duration::from_secs(240), |s| {
        let (vm, _daemon) = guest(s, kernel, "panic", None)?;
        let guest = vm.guest();
        vm.attach()?;
        swap_on(&vm, "--size 128M")?;
        vm.detach()?;
        // Its group has less memory than it wants.
        let hog = caged_hog(&vm, 96, 40, 10)?;
        await_counter(&vm, "store_unattached", 0).context("No page was offered while there was no device")?;
        guest.sh("pkill -KILL swaphog || true")?;
        let _ended = hog.wait(Duration::from_secs(60) * vm.options().patience())?;
        ensure!(lost(&vm)? == 0, "{} pages that the kernel has count as lost", lost(&vm)?);
        vm.attach()?;
        let alarm = guest.sh("dmesg | grep 'does not have' || true")?;
        ensure!(alarm.is_empty(), "A false alarm: {alarm}");
        guest.sh_within(LOOK, Duration::from_secs(120)).context("A look at the disk ends the guest")?;
        guest.sh("dmesg --clear").map(drop)
    });
}

fn a_look_at_the_disk_does_no_harm(kernel: Kernel) {
    crate::with_kernel("swap_look", kernel, Duration::from_secs(240), |s| {
        let (vm, daemon) = guest(s, kernel, "panic", None)?;
        let guest = vm.guest();
        vm.attach()?;
        guest.sh(SMALL_DISK)?;
        swap_on(&vm, "--backing /dev/mapper/small")?;
        let _hog = caged_hog(&vm, 96, 40, 60)?;
        await_stored(&vm)?;
        guest.sh(HOLD)?;
        daemon.kill()?;
        guest
            .sh_within(LOOK, Duration::from_secs(120))
            .context("A look at the disk, without a device, ends the guest")?;
        vm.detach()?;
        daemon.restart()?;
        vm.attach()?;
        ensure!(lost(&vm)? > 0, "No page is lost though the daemon died: this tests nothing");
        guest.sh_within(LOOK, Duration::from_secs(120)).context("A look at lost pages ends the guest")?;
        guest.sh("dmesg --clear").map(drop)
    });
}

/// Who looks at the disk is told that the device does not have a page of a slot that was freed just
/// then. By the time he judges that, the slot may be stored to again, with a page that nobody has
/// lost.
#[test]
fn a_slow_look_at_the_disk_loses_no_page_on_uml() {
    let kernel = Kernel::Uml;
    crate::with_kernel("swap_slow_look", kernel, Duration::from_secs(240), |s| {
        let (vm, daemon) = with_driver(s, kernel, Some(Sabotage::Dawdle), "wait", None)?;
        let guest = vm.guest();
        vm.attach()?;
        swap_on(&vm, "--size 96M")?;
        let hog = caged_hog(&vm, 80, 32, 12)?;
        await_stored(&vm)?;
        guest.sh("for i in 1 2 3 4; do
                 ( while pgrep -x swaphog >/dev/null; do
                       dd if=/dev/zcswap0 of=/dev/null bs=128k iflag=direct conv=noerror
                   done >/dev/null 2>&1 & )
             done")?;
        hog.success(Duration::from_secs(120)).context("The hog has lost a page that its device had")?;
        ensure!(lost(&vm)? == 0, "{} pages count as lost though the device had every page", lost(&vm)?);
        let missed = daemon.guest_stats(0)?.answers("get", "miss");
        ensure!(missed > 0, "No page was freed while somebody looked: this tests nothing");
        guest.sh("dmesg --clear").map(drop)
    });
}

/// Pages that are read with one that cannot be read are none the worse: of each 64 blocks of the
/// backing device one gets bad after pages were written to it.
#[test]
fn a_page_that_cannot_be_read_spoils_no_other_on_uml() {
    let kernel = Kernel::Uml;
    crate::with_kernel("swap_readahead", kernel, Duration::from_secs(240), |s| {
        let (vm, _daemon) = guest(s, kernel, "wait", None)?;
        let guest = vm.guest();
        guest.sh("echo 0 262144 linear /dev/vdb 0 | DM_DISABLE_UDEV=1 dmsetup create --noudevsync bad")?;
        swap_on(&vm, "--backing /dev/mapper/bad")?;
        guest.sh("mkdir /tmp/t; mount -t tmpfs -o size=200M none /tmp/t")?;
        caged(&vm, "dd if=/dev/urandom of=/tmp/t/f bs=64k count=1536 status=none", 40)?
            .success(Duration::from_secs(60))?;
        let swapped = swap_stat(&vm, "backing_writes")?;
        guest.sh(OPEN_CAGE)?;
        guest.sh("for i in $(seq 0 511); do
                 echo $((i * 512)) 256 linear /dev/vdb $((i * 512)); echo $((i * 512 + 256)) 8 error
                 echo $((i * 512 + 264)) 248 linear /dev/vdb $((i * 512 + 264))
             done | dmsetup load bad
             DM_DISABLE_UDEV=1 dmsetup suspend --noudevsync --noflush bad
             DM_DISABLE_UDEV=1 dmsetup resume --noudevsync bad")?;
        let unread =
            guest.sh("dd if=/tmp/t/f of=/dev/null bs=4k conv=noerror 2>&1 | grep -c 'Input/output error' || true")?;
        let unread: u64 = unread.trim().parse()?;
        println!("{unread} of {swapped} pages could not be read");
        ensure!(unread > swapped / 128, "Only {unread} of {swapped} pages could not be read: this tests nothing");
        ensure!(unread < swapped / 32, "{unread} of {swapped} pages could not be read, though of 64 one was bad");
        guest.sh("rm /tmp/t/f; dmesg --clear").map(drop)
    });
}
