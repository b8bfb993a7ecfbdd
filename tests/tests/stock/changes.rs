// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Blocks that change without being written, and an origin that changes while the target is
//! suspended.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zcache_tests::load::DROP_CACHES;
use zcache_tests::{DaemonOptions, Kernel, Scenario, Vm, scenario};

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
    scenario("stock_discard", Duration::from_secs(240), |s| {
        let vm = target(s, Kernel::Uml)?;
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

/// Who suspends the target may change the origin.
#[test]
fn a_resumed_target_serves_nothing_from_before() {
    scenario("stock_suspend", Duration::from_secs(240), |s| {
        let vm = target(s, Kernel::Uml)?;
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

/// Who must not wait, as a loop of io_uring, is served as by the disk below.
#[test]
fn who_must_not_wait_is_served_on_uml() {
    scenario("stock_nowait", Duration::from_secs(120), |s| {
        let vm = target(s, Kernel::Uml)?;
        vm.guest().sh(FILL)?;
        let fio = "fio --name=n --filename=/dev/mapper/t --size=8M --bs=64k --direct=1 --ioengine=pvsync2 --nowait=1 \
                   --ignore_error=EAGAIN,EAGAIN --minimal";
        for (rw, field) in [("read", 6), ("write", 47)] {
            let kib = vm
                .guest()
                .sh(&format!("{fio} --rw={rw} | tail -1 | cut -d';' -f{field}"))
                .with_context(|| format!("A {rw} that must not wait is refused"))?;
            ensure!(kib.trim().parse::<u32>()? > 4096, "Only {} of 8192 KiB: {rw}", kib.trim());
        }
        vm.guest().sh(COMPARE).context("The pool serves what was there before a write that must not wait").map(drop)
    });
}

fn target(s: &Scenario, kernel: Kernel) -> Result<std::sync::Arc<Vm>> {
    let daemon = s.daemon(DaemonOptions::usual()?)?;
    let vm = s.vm(crate::guest(kernel).daemon(&daemon, 0).disk_mib(32))?;
    vm.attach()?;
    // Who closes a device last takes its page cache away, which is no eviction.
    vm.guest().sh("zcachesetup open /dev/vdb t; sleep 600 </dev/mapper/t >/dev/null 2>&1 &")?;
    Ok(vm)
}

fn hits(vm: &Vm) -> Result<u64> {
    let status = vm.guest().sh("dmsetup status t | tr ' ' '\\n' | sed -n 's/^hits=//p'")?;
    status.trim().parse().context("The target's status has no hits")
}
