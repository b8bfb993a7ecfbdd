// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest suspends itself, its device is reset, it hibernates, it is powered off: the device
//! keeps the swap pages, and the session is resumed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use zcache_tests::load::{STOP_LOAD, coherence_until_told, swaphog_until_told};
use zcache_tests::{Continuity, DaemonOptions, Kernel, Modules, Scenario, Vm};

use crate::volume::Volume;

const LIMIT: Duration = Duration::from_secs(180);

/// What happens to a guest, and its name.
type Interruption = (&'static str, fn(&Vm) -> Result<()>);

/// A guest with files, and a swap disk, under load, to which one thing happens after the other.
fn under_load(name: &str, kernel: Kernel, interruptions: &[Interruption]) {
    crate::with_kernel(name, kernel, Duration::from_secs(300 + 50 * interruptions.len() as u64), |s| {
        let vm = guest(s, kernel, "wait")?;
        let guest = vm.guest();
        let volume = Volume::mount(&vm, "ext4", 0)?;
        let hog = guest.spawn(&swaphog_until_told(vm.options().memory_mib - 16))?;
        let files = guest.spawn(&coherence_until_told(&format!("{}/c", volume.folder())))?;
        for (what, interrupt) in interruptions {
            let happens = || {
                Continuity::of(&vm)?.await_hits()?;
                interrupt(&vm)?;
                guest.await_driver_state("attached", LIMIT).context("The device is not used again")?;
                Continuity::of(&vm)?.await_hits()
            };
            happens().with_context(|| format!("When it comes to '{what}'"))?;
        }
        let log = guest.sh("dmesg")?;
        ensure!(log.contains("attached: resumed session"), "No session was resumed");
        guest.sh(STOP_LOAD)?;
        hog.success(LIMIT).context("A swapped page changed")?;
        files.success(LIMIT).context("A file changed")?;
        volume.verify_and_close()
    });
}

/// A guest with a swap disk, and its device.
fn guest(s: &Scenario, kernel: Kernel, swap_loss: &str) -> Result<Arc<Vm>> {
    let daemon = s.daemon(DaemonOptions::usual()?)?;
    let mut options = crate::guest(kernel).daemon(&daemon, 0).disk_mib(192).disk_mib(512);
    options.modules = Modules::NotLoaded;
    options.suspends = true;
    let vm = s.vm(options)?;
    vm.guest().sh(&format!("modprobe dm-mod || true; insmod /payload/modules/zcache.ko swap_loss={swap_loss}"))?;
    vm.load_modules()?;
    vm.guest().sh("zcachesetup swap on --backing /dev/vdc")?;
    vm.attach()?;
    Ok(vm)
}

/// The kernel suspends its devices for five seconds, as for suspend-to-idle.
fn idle(vm: &Vm) -> Result<()> {
    vm.guest()
        .sh_within("echo devices > /sys/power/pm_test; echo freeze > /sys/power/state", LIMIT)
        .map(drop)
        .context("The guest does not suspend itself")
}

/// Suspend to memory: the machine sleeps, and is woken.
fn sleep(vm: &Vm) -> Result<()> {
    let mark = vm.qmp()?.mark();
    let asleep = vm
        .guest()
        .spawn("echo none > /sys/power/pm_test; echo deep > /sys/power/mem_sleep; echo mem > /sys/power/state")?;
    vm.qmp()?
        .wait_event(mark, LIMIT, |name, _| (name == "SUSPEND").then_some(()))
        .context("The machine does not fall asleep")?;
    std::thread::sleep(Duration::from_secs(2));
    vm.qmp()?.execute("system_wakeup", json!({}))?;
    asleep.success(LIMIT).context("The machine does not wake up")?;
    Ok(())
}

/// The PCI function is reset behind the driver's back, or with its knowledge.
fn reset_function(vm: &Vm) -> Result<()> {
    vm.guest()
        .sh("virtio=$(ls -d /sys/bus/virtio/drivers/zcache_virtio/virtio*)
             echo 1 > $(dirname $(readlink -f $virtio))/reset")
        .context("The function cannot be reset")?;
    // It is found out when nothing is answered.
    std::thread::sleep(Duration::from_secs(1));
    Ok(())
}

/// This kernel tells no virtio driver of a reset.
fn reset_that_is_found_out(vm: &Vm) -> Result<()> {
    vm.guest().sh("echo 2000 > /sys/module/zcache_virtio/parameters/timeout_ms")?;
    reset_function(vm)?;
    std::thread::sleep(Duration::from_secs(5));
    Ok(())
}

/// Neither the device nor a disk of ours outlives that, so it is refused.
fn hibernate(vm: &Vm) -> Result<()> {
    let refused = vm.guest().sh("if echo disk > /sys/power/state; then exit 1; fi; dmesg")?;
    ensure!(refused.contains("no hibernation while swap"), "The log does not say why hibernation is refused");
    Ok(())
}

const IDLE: Interruption = ("suspend to idle", idle);

/// Suspend to memory once: QEMU 11 does not let a machine of this kind sleep a second time, it
/// wakes at once.
#[test]
fn suspends_and_resets_keep_swap_on_the_device() {
    let reset = ("a reset that is found out", reset_that_is_found_out as fn(&Vm) -> Result<()>);
    let all = [IDLE, IDLE, ("hibernation", hibernate), ("suspend to memory", sleep), reset];
    under_load("suspend", Kernel::Debian13, &all);
}

#[test]
fn extra_suspend_to_idle_over_and_over() {
    under_load("suspend_idle_often", Kernel::Debian13, &[IDLE; 10]);
}

#[test]
fn a_reset_of_the_function_keeps_swap_on_the_device() {
    let reset: Interruption = ("a reset", reset_function);
    under_load("suspend_reset", Kernel::Debian13Backports, &[reset, reset]);
}

/// What is swapped out is needed while the machine goes down, and is no loss.
#[test]
fn powering_off_is_no_loss() {
    crate::with_kernel("suspend_off", Kernel::Debian13Backports, Duration::from_secs(200), |s| {
        let vm = guest(s, Kernel::Debian13Backports, "panic")?;
        let _hog = vm.guest().spawn(&swaphog_until_told(vm.options().memory_mib - 16))?;
        Continuity::of(&vm)?.await_hits()?;
        let _off = vm.guest().spawn("echo o > /proc/sysrq-trigger")?;
        vm.process().wait(LIMIT).context("The machine does not go down")?;
        let log = std::fs::read_to_string(vm.dir().join(format!("{}-serial.log", vm.options().name)))?;
        ensure!(!log.contains("Kernel panic"), "The kernel panics as it goes down:\n{log}");
        Ok(())
    });
}
