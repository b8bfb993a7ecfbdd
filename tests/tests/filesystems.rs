// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! No filesystem ever sees a stale or wrong byte, whatever is done to its files.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zcache_tests::load::{coherence, cycle_files, write_files};
use zcache_tests::{DaemonOptions, Scenario, SocketOptions, VmOptions, scenario};

const SHARED_UUID: &str = "5a434348-0000-4000-8000-0000000000f5";

/// Files change in every way there is on ext4, btrfs and ocfs2 at once, with the device
/// attached and the page cache dropped over and over.
#[test]
fn files_stay_coherent_on_every_filesystem() {
    scenario("coherence", Duration::from_secs(240), |s| {
        let mut daemon = DaemonOptions::usual()?;
        daemon.sockets[0].allow_shared.push(SHARED_UUID.to_owned());
        let daemon = s.daemon(daemon)?;
        let vm = s.vm(VmOptions::new("guest").daemon(&daemon, 0).disk_mib(256).disk_mib(256).disk_mib(256))?;
        let guest = vm.guest();
        guest.sh(&format!(
            "mkfs.ext4 -q -b 4096 /dev/vdb; mkfs.btrfs -q /dev/vdc
             mkfs.ocfs2 -q -F -M local -N 1 -b 4096 -J size=8M -U {SHARED_UUID} /dev/vdd
             mkdir -p /mnt1 /mnt2 /mnt3; mount /dev/vdb /mnt1; mount /dev/vdc /mnt2; mount /dev/vdd /mnt3"
        ))?;
        vm.attach()?;
        let runs = ["/mnt1/c", "/mnt2/c", "/mnt3/c"]
            .map(|folder| Ok((folder, guest.spawn(&coherence(folder, 20))?)))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        for (folder, run) in runs {
            run.success(Duration::from_secs(90)).with_context(|| format!("Wrong contents in {folder}"))?;
        }
        ensure!(guest.driver_stats()?.count("get_hits")? > 0, "No page came back from the device: nothing was tested");
        Ok(())
    });
}

/// ext4 zeroes a part of a block without reading the page; the copy that the device has of
/// the page must not come back (`guest-driver/hooks/ext4.c`).
#[test]
fn what_was_zeroed_in_part_stays_zeroed() {
    scenario("zeroed", Duration::from_secs(120), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let vm = s.vm(VmOptions::new("guest").daemon(&daemon, 0).disk_mib(64))?;
        let guest = vm.guest();
        guest.sh("mkfs.ext4 -q -b 4096 /dev/vdb; mkdir -p /mnt1; mount /dev/vdb /mnt1")?;
        vm.attach()?;
        guest.sh("zeroed /mnt1/file").context("Bytes from before they were zeroed")?;
        ensure!(guest.driver_stats()?.count("get_hits")? > 0, "No page came back from the device: nothing was tested");
        Ok(())
    });
}

/// What fio wrote is what fio reads, with more files than memory and the device coming and going.
#[test]
fn fio_verifies_while_the_device_comes_and_goes() {
    scenario("fio_verify", Duration::from_secs(300), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let mut options = VmOptions::new("guest").daemon(&daemon, 0).disk_mib(768);
        options.memory_mib = 192;
        let vm = s.vm(options)?;
        let guest = vm.guest();
        guest.sh("mkfs.ext4 -q -b 4096 /dev/vdb; mkdir -p /mnt1; mount /dev/vdb /mnt1")?;
        let fio = guest.spawn(
            "for round in 1 2; do
                 fio --name=v --directory=/mnt1 --size=64M --numjobs=2 --rw=randwrite --bsrange=4k-64k --ioengine=psync \
                     --verify=crc32c --verify_interval=4k --verify_fatal=1 --randseed=$round --fsync_on_close=1 >/tmp/fio 2>&1 ||
                     { cat /tmp/fio; exit 1; }
             done",
        )?;
        for _ in 0..4 {
            vm.attach()?;
            guest.sh("sleep 1.5")?;
            vm.detach()?;
        }
        vm.attach()?;
        fio.success(Duration::from_secs(200)).context("fio found wrong contents")?;
        guest.sh(&write_files("/mnt1", 64))?;
        guest.sh(&cycle_files("/mnt1", 64))?;
        ensure!(guest.driver_stats()?.count("get_hits")? > 0, "No page came back from the device: nothing was tested");
        Ok(())
    });
}

/// Runs ocfs2 on a daemon whose socket has these options; returns (pools active on the device,
/// hits, denied creations).
fn with_ocfs2(s: &Scenario, socket: SocketOptions) -> Result<(usize, u64, u64)> {
    let mut options = DaemonOptions::usual()?;
    options.sockets = vec![socket];
    let daemon = s.daemon(options)?;
    let vm = s.vm(VmOptions::new("guest").daemon(&daemon, 0).disk_mib(256))?;
    let guest = vm.guest();
    guest.sh(&format!(
        "mkfs.ocfs2 -q -F -M local -N 1 -b 4096 -J size=8M -U {SHARED_UUID} /dev/vdb; mkdir -p /mnt1; mount /dev/vdb /mnt1"
    ))?;
    vm.attach()?;
    guest.sh(&write_files("/mnt1", 48))?;
    guest.sh(&cycle_files("/mnt1", 48))?;
    let pools = guest.driver_pools()?;
    ensure!(
        pools.len() == 1 && pools[0].sharing == "shared" && pools[0].uuid == SHARED_UUID,
        "ocfs2 should have one shared pool with its UUID, not {pools:?}"
    );
    let stats = daemon.guest_stats(0)?;
    Ok((
        pools.iter().filter(|pool| pool.active).count(),
        guest.driver_stats()?.count("get_hits")?,
        stats.answers("pool_create", "denied"),
    ))
}

#[test]
fn a_shared_pool_that_is_allowed_is_used() {
    scenario("shared_allowed", Duration::from_secs(240), |s| {
        let allowed = SocketOptions { memory_limit: None, allow_shared: vec![SHARED_UUID.to_owned()] };
        let (active, hits, denied) = with_ocfs2(s, allowed)?;
        ensure!(active == 1 && denied == 0, "The allowed pool was denied");
        ensure!(hits > 0, "No page came back from the shared pool");
        Ok(())
    });
}

#[test]
fn a_shared_pool_that_is_not_allowed_is_denied_and_the_guest_goes_on() {
    scenario("shared_denied", Duration::from_secs(240), |s| {
        let (active, hits, denied) = with_ocfs2(s, SocketOptions::default())?;
        ensure!(active == 0 && denied > 0, "A shared pool that nobody allowed is active");
        ensure!(hits == 0, "A pool that was denied gave {hits} pages");
        Ok(())
    });
}
