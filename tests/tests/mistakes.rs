// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What operators get wrong about a running machine costs no machine anything.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use zcache_tests::load::{cycle_files, read_files, swaphog, write_files};
use zcache_tests::{Continuity, DaemonOptions, Memory, VmOptions, scenario};

const PREPARE: &str =
    "mkfs.ext4 -q -b 4096 /dev/vdb; mkswap /dev/vdc; mkdir -p /mnt1; mount /dev/vdb /mnt1; swapon /dev/vdc";

/// How long a driver waits for a device here.
const TIMEOUT: Duration = Duration::from_secs(2);

#[test]
fn private_memory_costs_the_machine_the_device_only() {
    memory_that_is_not_shared("mistake_private", Memory::PrivateFile);
}

#[test]
fn anonymous_memory_costs_the_machine_the_device_only() {
    memory_that_is_not_shared("mistake_anonymous", Memory::Anonymous);
}

/// QEMU 11 asks for the slots (GET_MAX_MEM_SLOTS), has no region to put into them, says nothing,
/// and at DRIVER_OK goes on: SET_FEATURES, then for each queue SET_VRING_NUM, BASE and ADDR, which
/// is an address in no region and is not to be answered, KICK and CALL, which are; then ENABLE.
/// A connection that ends in there aborts it.
fn memory_that_is_not_shared(name: &str, memory: Memory) {
    scenario(name, Duration::from_secs(240), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let mut options = VmOptions::new("guest").daemon(&daemon, 0).disk_mib(128).disk_mib(256);
        options.memory_mib = 128;
        options.memory = memory;
        let vm = s.vm(options)?;
        let guest = vm.guest();
        guest.sh(PREPARE)?;
        guest.sh(&write_files("/mnt1", 16))?;
        let timeout = TIMEOUT.as_millis();
        guest.sh(&format!("echo {timeout} >/sys/module/zcache_virtio/parameters/timeout_ms"))?;

        vm.attach_to(&daemon.endpoint(0)?).context("The machine refuses the device")?;
        // While the driver waits for an answer and after it, mounts and swap go on.
        let work = guest.spawn(&format!("umount /mnt1; mount /dev/vdb /mnt1; {}", cycle_files("/mnt1", 16)))?;
        let hog = guest.spawn(&swaphog(120, 3))?;
        guest
            .sh_within(
                "until dmesg | grep -q 'zcache device is not usable'; do sleep 0.1; done",
                Duration::from_secs(60),
            )
            .context("The driver does not give up a device that never answers")?;
        work.success(Duration::from_secs(90)).context("Files do not go on without the device")?;
        hog.success(Duration::from_secs(90)).context("Swap does not go on without the device")?;
        let state = guest.driver_stats()?.state;
        ensure!(state == "unattached", "The driver is '{state}' with a device that never answered");

        let log = daemon.log()?;
        let said: Vec<&str> = log.lines().filter(|line| line.contains("share=on")).collect();
        ensure!(said.len() == 1, "The daemon should say once what is missing, but says {said:?}");
        ensure!(daemon.guest_stats(0)?.connected, "The daemon has ended the connection");
        vm.detach().context("The device cannot be unplugged")?;
        guest.sh(&read_files("/mnt1", 16)).map(drop)
    });
}

/// Two machines at one socket would be taken for one guest.
#[test]
fn a_second_machine_at_a_socket_in_use_is_told_at_once() {
    scenario("mistake_second", Duration::from_secs(240), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let mut options = VmOptions::new("first").daemon(&daemon, 0).disk_mib(128).disk_mib(256);
        options.memory_mib = 128;
        let first = s.vm(options.clone())?;
        let guest = first.guest();
        guest.sh(PREPARE)?;
        guest.sh(&write_files("/mnt1", 16))?;
        first.attach()?;
        let work = guest.spawn(&format!("for n in 1 2 3; do {}; done", cycle_files("/mnt1", 16)))?;
        let hog = guest.spawn(&swaphog(120, 10))?;
        let session = Continuity::of(&first)?;
        session.await_hits()?;

        options.name = "second".to_owned();
        let second = s.vm(options)?;
        for _ in 0..3 {
            let started = Instant::now();
            let Err(refused) = second.attach() else { bail!("A second machine has got the first one's device") };
            let took = started.elapsed();
            // Under any load less than QEMU waits for an answer, which is for ever.
            ensure!(took < Duration::from_secs(20), "The second machine waited for {took:?}: {refused:#}");
            second.guest().sh("true").context("The second machine does not live on")?;
        }
        session.check().context("After a second machine came")?;
        session.await_hits().context("After a second machine came")?;
        work.success(Duration::from_secs(90)).context("A file of the first machine changed")?;
        hog.success(Duration::from_secs(90)).context("A swapped page of the first machine changed")?;
        session.check().context("After a second machine came")?;

        first.detach()?;
        second.attach().context("The socket is free, but the second machine is refused")?;
        let session = Continuity::of(&second)?;
        serve_files(second.guest())?;
        session.check()
    });
}

fn serve_files(guest: &zcache_tests::Guest) -> Result<()> {
    guest.sh(PREPARE)?;
    guest.sh(&write_files("/mnt1", 16))?;
    guest.sh(&cycle_files("/mnt1", 16))?;
    ensure!(guest.driver_stats()?.count("get_hits")? > 0, "The device serves the second machine nothing");
    Ok(())
}
