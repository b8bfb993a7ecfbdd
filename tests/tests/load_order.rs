// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Modules before mounts, after mounts, the device first, the device last.

use std::time::Duration;

use anyhow::{Result, ensure};
use zcache_tests::load::{cycle_files, write_files};
use zcache_tests::{DaemonOptions, Modules, Presence, Scenario, VmOptions, scenario};

/// What happens to a guest, in some order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Mount,
    LoadCore,
    LoadTransport,
    Attach,
}

const MOUNT: &str =
    "mkfs.ext4 -q -b 4096 /dev/vdb; mkswap /dev/vdc; mkdir -p /mnt1; mount /dev/vdb /mnt1; swapon /dev/vdc";

/// Whatever the order, in the end both pools are on the device and pages come back from it.
fn check(s: &Scenario, presence: Presence, steps: &[Step]) -> Result<()> {
    let daemon = s.daemon(DaemonOptions::usual()?)?;
    let mut options = VmOptions::new("guest").daemon(&daemon, 0).disk_mib(192).disk_mib(128);
    options.modules = Modules::NotLoaded;
    options.presence = presence;
    let vm = s.vm(options)?;
    let guest = vm.guest();
    for step in steps {
        match step {
            Step::Mount => drop(guest.sh(MOUNT)?),
            Step::LoadCore => drop(guest.sh("insmod /payload/modules/zcache.ko")?),
            Step::LoadTransport => drop(guest.sh("insmod /payload/modules/zcache_virtio.ko")?),
            Step::Attach => vm.attach()?,
        }
    }
    guest.await_driver_state("attached", Duration::from_secs(20))?;
    let stats = daemon.guest_stats(0)?;
    ensure!(
        stats.pools_of("ephemeral") == 1 && stats.pools_of("persistent") == 1 && stats.pools.len() == 2,
        "After {steps:?} the device has the pools {:?}",
        stats.pools
    );
    guest.sh(&write_files("/mnt1", 32))?;
    guest.sh(&cycle_files("/mnt1", 32))?;
    ensure!(guest.driver_stats()?.count("get_hits")? > 0, "After {steps:?} no page came back from the device");
    Ok(())
}

#[test]
fn modules_then_mounts_then_the_device() {
    scenario("order_device_last", Duration::from_secs(180), |s| {
        check(s, Presence::Later, &[Step::LoadCore, Step::LoadTransport, Step::Mount, Step::Attach])
    });
}

#[test]
fn mounts_then_modules_then_the_device() {
    scenario("order_mounts_first", Duration::from_secs(180), |s| {
        check(s, Presence::Later, &[Step::Mount, Step::LoadCore, Step::LoadTransport, Step::Attach])
    });
}

#[test]
fn the_device_at_boot_then_mounts_then_modules() {
    scenario("order_device_first", Duration::from_secs(180), |s| {
        check(s, Presence::ColdPlugged, &[Step::Mount, Step::LoadCore, Step::LoadTransport])
    });
}

#[test]
fn the_device_at_boot_then_modules_then_mounts() {
    scenario("order_mounts_last", Duration::from_secs(180), |s| {
        check(s, Presence::ColdPlugged, &[Step::LoadCore, Step::LoadTransport, Step::Mount])
    });
}

#[test]
fn mounts_between_the_two_modules_with_the_device_plugged_meanwhile() {
    scenario("order_mixed", Duration::from_secs(180), |s| {
        check(s, Presence::Later, &[Step::LoadCore, Step::Attach, Step::Mount, Step::LoadTransport])
    });
}
