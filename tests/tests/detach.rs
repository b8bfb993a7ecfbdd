// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device leaves in good order while files and swap are in use, and comes back.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use zcache_tests::load::{STOP_LOAD, coherence, cycle_files, swaphog_until_told, write_files};
use zcache_tests::{DaemonOptions, Endpoint, Scenario, SocketOptions, Vm, VmOptions, scenario};

/// Longest that draining and unplugging may take under load.
const LEAVE_LIMIT: Duration = Duration::from_secs(60);

fn guest_with_files_and_swap(s: &Scenario) -> Result<Arc<Vm>> {
    let daemon = s.daemon(DaemonOptions::usual()?)?;
    let mut options = VmOptions::new("guest").daemon(&daemon, 0).disk_mib(192).disk_mib(256);
    options.memory_mib = 128;
    let vm = s.vm(options)?;
    vm.guest()
        .sh("mkfs.ext4 -q -b 4096 /dev/vdb; mkswap /dev/vdc; mkdir -p /mnt1; mount /dev/vdb /mnt1; swapon /dev/vdc")?;
    Ok(vm)
}

/// Runs `leave` and `come_back` in turn while pages are swapped and files change.
fn under_load(vm: &Vm, leave: impl Fn() -> Result<()>, come_back: impl Fn() -> Result<()>) -> Result<()> {
    let guest = vm.guest();
    // However long the rounds take, the last one has to meet a hog as well.
    let hog = guest.spawn(&swaphog_until_told(130))?;
    let files = guest.spawn(&coherence("/mnt1/c", 15))?;
    for round in 0..2 {
        come_back()?;
        // The next step is meant to meet pages on the device.
        guest
            .sh_within(
                "until [ $(awk '/^swap_pages_live/ { print $2 }' /sys/kernel/debug/zcache/stats) -gt 500 ]; do sleep 0.1; done",
                Duration::from_secs(60),
            )
            .with_context(|| format!("In round {round} no page was swapped to the device"))?;
        leave()?;
        let stats = guest.driver_stats()?;
        ensure!(stats.state == "unattached", "After leaving in round {round} the driver is '{}'", stats.state);
        for counter in ["swap_pages_live", "swap_pages_lost"] {
            let left = stats.count(counter)?;
            ensure!(left == 0, "Leaving in round {round} gave up {left} pages ({counter})");
        }
    }
    come_back()?;
    guest.sh(STOP_LOAD)?;
    hog.success(Duration::from_secs(120)).context("A swapped page changed")?;
    files.success(Duration::from_secs(60)).context("A file changed")?;
    let stats = guest.driver_stats()?;
    ensure!(stats.count("get_hits")? > 0, "No page of a file came back from the device");
    ensure!(stats.count("loads")? > 0, "No swapped page came back from the device");
    ensure!(stats.count("losses")? == 0, "The driver took a device in good order for lost");
    Ok(())
}

#[test]
fn unplugging_under_load_drains_swap() {
    scenario("detach_under_load", Duration::from_secs(300), |s| {
        let vm = guest_with_files_and_swap(s)?;
        under_load(&vm, || vm.detach(), || vm.attach())
    });
}

#[test]
fn removing_the_transport_under_load_drains_swap() {
    scenario("rmmod_under_load", Duration::from_secs(300), |s| {
        let vm = guest_with_files_and_swap(s)?;
        vm.guest().sh("rmmod zcache_virtio")?;
        vm.attach()?;
        under_load(
            &vm,
            || vm.guest().sh_within("rmmod zcache_virtio", LEAVE_LIMIT).map(drop),
            || {
                vm.guest().sh("insmod /payload/modules/zcache_virtio.ko")?;
                vm.guest().await_driver_state("attached", Duration::from_secs(20))
            },
        )
    });
}

/// Two devices in one slot; the second one is not forgotten while it waits for the first.
#[test]
fn a_second_device_is_used_when_the_first_has_left() {
    scenario("detach_second", Duration::from_secs(240), |s| {
        let mut options = DaemonOptions::usual()?;
        options.sockets.push(SocketOptions::default());
        let daemon = s.daemon(options)?;
        let vm = s.vm(VmOptions::new("guest").disk_mib(192))?;
        let guest = vm.guest();
        guest.sh("mkfs.ext4 -q -b 4096 /dev/vdb; mkdir -p /mnt1; mount /dev/vdb /mnt1")?;
        // The guest looks at the slot when function 0 comes.
        plug_function(&vm, &daemon.endpoint(1)?, 1)?;
        plug_function(&vm, &daemon.endpoint(0)?, 0)?;
        guest.await_driver_state("attached", Duration::from_secs(30))?;
        guest.sh(&write_files("/mnt1", 32))?;
        guest.sh("for driver in /sys/bus/virtio/drivers/zcache_virtio/virtio*; do
                      case $(readlink -f $driver) in *:00.0/*) basename $driver > ${driver%/*}/unbind;; esac
                  done")?;
        guest.await_driver_state("attached", Duration::from_secs(30)).context("The second device is not used")?;
        ensure!(guest.driver_stats()?.count("attaches")? == 2, "The second device was not attached");
        guest.sh(&cycle_files("/mnt1", 32))?;
        ensure!(daemon.guest_stats(1)?.answers("get", "ok") > 0, "The second device brings no page back");
        Ok(())
    });
}

/// Plugs a device in as one function of the slot.
fn plug_function(vm: &Vm, endpoint: &Endpoint, function: u8) -> Result<()> {
    let (name, chardev) = (format!("function{function}"), format!("functionchar{function}"));
    vm.qmp()?.execute(
        "chardev-add",
        json!({"id": chardev, "backend": {"type": "socket", "data": {
            "addr": {"type": "unix", "data": {"path": endpoint.socket}},
            "server": false,
        }}}),
    )?;
    vm.qmp()?.execute(
        "device_add",
        json!({
            "driver": "vhost-user-test-device-pci", "id": name, "bus": "zport",
            "addr": format!("0.{function}"), "multifunction": true, "chardev": chardev,
            "virtio-id": 13, "num_vqs": endpoint.queues, "vq_size": 1024, "config_size": 64,
        }),
    )?;
    Ok(())
}
