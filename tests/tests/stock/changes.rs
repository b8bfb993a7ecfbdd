// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Blocks that change without being written, pages that change without their block, and an origin
//! that changes while the target is suspended.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zcache_tests::load::DROP_CACHES;
use zcache_tests::{DaemonOptions, Kernel, Sabotage, Scenario, Vm, light_scenario};

/// Fills the target with what is not zero, and puts all of it into the device.
const FILL: &str =
    "head -c 32M /dev/zero | tr '\\0' 'x' | dd of=/dev/mapper/t bs=1M iflag=fullblock conv=fsync status=none
     echo 1 >/proc/sys/vm/drop_caches";

/// Reads the mapped device through its page cache, which the device fills, and the origin past it.
/// What was read is put into the device again.
const COMPARE: &str = "samebytes /dev/mapper/t /dev/vdb 32
     echo 1 >/proc/sys/vm/drop_caches";

/// Small and large discards take different ways, as does zeroing.
#[test]
fn discarded_and_zeroed_blocks_are_not_served() {
    light_scenario("stock_discard", Duration::from_secs(240), |s| {
        let vm = target(s, Kernel::Uml, None)?;
        for change in [
            "blkdiscard -o 64K -l 64K /dev/mapper/t",
            "blkdiscard -o 1M -l 24M /dev/mapper/t",
            "blkdiscard --zeroout -o 28M -l 2M /dev/mapper/t",
        ] {
            vm.guest().sh(FILL)?;
            let before = hits(&vm)?;
            vm.guest().sh(COMPARE)?;
            ensure!(hits(&vm)? > before, "Nothing of the device was in the pool: {change} would prove nothing");
            vm.guest().sh(change)?;
            vm.guest().sh(COMPARE).with_context(|| format!("After {change} the pool serves what was there before"))?;
        }
        Ok(())
    });
}

/// Writes that fail before the target sees them leave pages that are clean and are not what their
/// blocks hold.
#[test]
fn pages_whose_write_failed_are_not_put() {
    light_scenario("stock_failed_writes", Duration::from_secs(240), |s| {
        let vm = target(s, Kernel::Uml, None)?;
        evict_what_was_not_written(&vm)?;
        ensure!(count(&vm, "put_refused_content")? > 0, "No page was offered that is not what its block holds");
        vm.guest().sh(COMPARE).context("The pool has what was never written").map(drop)
    });
}

/// Without the comparison of contents, they are.
#[test]
fn the_check_notices_contents_that_no_block_has() {
    light_scenario("stock_control_failed_writes", Duration::from_secs(240), |s| {
        let vm = target(s, Kernel::Uml, Some(Sabotage::Content))?;
        evict_what_was_not_written(&vm)?;
        let output = vm.guest().try_sh(COMPARE)?;
        ensure!(output.stdout.starts_with("they differ"), "What was never written was not noticed: {output:?}");
        Ok(())
    });
}

fn evict_what_was_not_written(vm: &Vm) -> Result<()> {
    vm.guest().sh(&format!(
        "{FILL}
         cat /dev/mapper/t >/dev/null
         cd /sys/kernel/debug/fail_make_request
         echo 100 >probability; echo -1 >times; echo 0 >verbose
         fail=/sys/block/dm-$(dmsetup info -c --noheadings -o minor t)/make-it-fail
         echo 1 >$fail
         head -c 1M /dev/zero | tr '\\0' 'y' >/tmp/new
         ! dd if=/tmp/new of=/dev/mapper/t bs=4k seek=1024 conv=fsync,notrunc status=none || exit 1
         echo 0 >$fail
         {DROP_CACHES}"
    ))?;
    // That they have failed is in the log.
    vm.guest().sh("dmesg --clear").map(drop)
}

/// Who suspends the target may change the origin.
#[test]
fn a_resumed_target_serves_nothing_from_before() {
    light_scenario("stock_suspend", Duration::from_secs(240), |s| {
        let vm = target(s, Kernel::Debian13, None)?;
        vm.guest().sh(FILL)?;
        let before = hits(&vm)?;
        vm.guest().sh(COMPARE)?;
        ensure!(hits(&vm)? > before, "Nothing of the device was in the pool: resuming would prove nothing");
        vm.guest().sh("dmsetup suspend t; dd if=/dev/urandom of=/dev/vdb bs=1M count=32 oflag=direct status=none
             DM_DISABLE_UDEV=1 dmsetup resume --noudevsync t")?;
        vm.guest().sh(COMPARE).context("After the target was resumed the pool serves what was there before")?;
        let again = hits(&vm)?;
        vm.guest().sh(&format!("cat /dev/mapper/t >/dev/null; {DROP_CACHES}; {COMPARE}"))?;
        ensure!(hits(&vm)? > again, "After the target was resumed nothing is put any more");
        Ok(())
    });
}

fn target(s: &Scenario, kernel: Kernel, sabotage: Option<Sabotage>) -> Result<std::sync::Arc<Vm>> {
    let daemon = s.daemon(DaemonOptions::usual()?)?;
    let mut options = crate::guest(kernel).daemon(&daemon, 0).disk_mib(32);
    options.sabotage = sabotage;
    let vm = s.vm(options)?;
    vm.attach()?;
    // Who closes a device last takes its page cache away, which is no eviction.
    vm.guest().sh("zcachesetup open /dev/vdb t; sleep 600 </dev/mapper/t >/dev/null 2>&1 &")?;
    Ok(vm)
}

fn hits(vm: &Vm) -> Result<u64> {
    count(vm, "hits")
}

fn count(vm: &Vm, name: &str) -> Result<u64> {
    let status = vm.guest().sh(&format!("dmsetup status t | tr ' ' '\\n' | sed -n 's/^{name}=//p'"))?;
    status.trim().parse().with_context(|| format!("The target's status has no {name}"))
}
