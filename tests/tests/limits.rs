// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A full store, and guests that must not notice one another.

use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::Signal;
use zcache_tests::load::{cycle_files, read_files, swaphog, write_files};
use zcache_tests::{DaemonOptions, SocketOptions, VmOptions, scenario};

#[test]
fn a_full_store_evicts_files_refuses_swap_and_loses_nothing() {
    scenario("small_limit", Duration::from_secs(240), |s| {
        const LIMIT: u64 = 10 << 20;
        let mut options = DaemonOptions::usual()?;
        options.memory_limit = Some(LIMIT.to_string());
        let daemon = s.daemon(options)?;
        let mut options = VmOptions::new("guest").daemon(&daemon, 0).disk_mib(192).disk_mib(256);
        options.memory_mib = 128;
        let vm = s.vm(options)?;
        let guest = vm.guest();
        guest.sh(
            "mkfs.ext4 -q -b 4096 /dev/vdb; mkswap /dev/vdc; mkdir -p /mnt1; mount /dev/vdb /mnt1; swapon /dev/vdc",
        )?;
        vm.attach()?;
        guest.sh(&write_files("/mnt1", 64))?;
        guest.sh(&cycle_files("/mnt1", 64))?;
        let evicted: u64 = daemon.guest_stats(0)?.pools.iter().map(|pool| pool.evicted).sum();
        ensure!(evicted > 0, "64 MiB of files fit into {LIMIT} bytes without an eviction");

        let swapped = guest.spawn(&swaphog(150, 6))?;
        let physical = daemon.typed_stats()?.store.physical_bytes;
        ensure!(physical <= LIMIT, "The store takes {physical} bytes, its limit is {LIMIT}");
        swapped.success(Duration::from_secs(150)).context("A swapped page changed")?;
        let stats = guest.driver_stats()?;
        ensure!(stats.count("stores")? > 0, "The device accepted no swap page");
        ensure!(stats.count("store_refused")? > 0, "The device refused no swap page: nothing was tested");
        ensure!(vm.disk_io()?["vdc"].writes > 0, "Refused pages did not go to the swap disk");
        let physical = daemon.typed_stats()?.store.physical_bytes;
        ensure!(physical <= LIMIT, "The store takes {physical} bytes, its limit is {LIMIT}");
        guest.sh(&read_files("/mnt1", 64))?;
        Ok(())
    });
}

/// Two guests with filesystems that are copies of one image, so that all their keys are equal, but
/// with different contents; one floods the store and is killed.
#[test]
fn guests_do_not_notice_one_another() {
    const PREPARE: &str = "mkfs.ext4 -q -b 4096 -U 5a434348-0000-4000-8000-000000000001 -E hash_seed=5a434348-0000-4000-8000-000000000002 /dev/vdb
        mkdir -p /mnt1; mount /dev/vdb /mnt1";
    const MARK: &str =
        "set +o pipefail; for n in $(seq 20); do yes \"guest NAME file $n\" | head -c 1M > /mnt1/$n; done; sync";
    const CHECK: &str = "set +o pipefail
        for turn in 1 2 3; do
            echo 1 > /proc/sys/vm/drop_caches
            for n in $(seq 20); do yes \"guest NAME file $n\" | head -c 1M | cmp - /mnt1/$n; done
        done";
    scenario("two_guests", Duration::from_secs(240), |s| {
        let mut options = DaemonOptions::usual()?;
        options.memory_limit = Some("256M".to_owned());
        let own = SocketOptions { memory_limit: Some("64M".to_owned()), allow_shared: Vec::new() };
        options.sockets = vec![own.clone(), own];
        let daemon = s.daemon(options)?;
        let mut vms = Vec::new();
        for (index, name) in ["one", "two"].into_iter().enumerate() {
            let mut options = VmOptions::new(name).daemon(&daemon, index).disk_mib(192);
            options.memory_mib = 160;
            options.cpus = Some(1);
            let vm = s.vm(options)?;
            vm.attach()?;
            vm.guest().sh(PREPARE)?;
            vm.guest().sh(&MARK.replace("NAME", name))?;
            vms.push((name, vm));
        }
        for (name, vm) in &vms {
            vm.guest().sh(&CHECK.replace("NAME", name)).with_context(|| format!("Guest {name} read another's page"))?;
            ensure!(vm.guest().driver_stats()?.count("get_hits")? > 0, "Guest {name} got no page from the device");
        }

        let held = daemon.guest_stats(0)?.pages;
        let (_, two) = &vms[1];
        two.guest().sh(&write_files("/mnt1", 100))?;
        two.guest().sh(&cycle_files("/mnt1", 100))?;
        let stats = daemon.typed_stats()?;
        ensure!(
            stats.guests[1].physical_bytes <= 64 << 20,
            "Guest two takes {} bytes, its limit is 64 MiB",
            stats.guests[1].physical_bytes
        );
        ensure!(
            stats.guests[0].pages == held,
            "The flood of guest two took {} pages of guest one away",
            held.saturating_sub(stats.guests[0].pages)
        );

        two.process().signal(Signal::KILL)?;
        two.process().wait(Duration::from_secs(20))?;
        let (name, one) = &vms[0];
        one.guest().sh(&CHECK.replace("NAME", name)).context("Guest one suffers from the death of guest two")?;
        let stats = daemon.guest_stats(1)?;
        ensure!(
            !stats.connected && stats.pages == 0,
            "The daemon still holds {} pages of a guest that is gone",
            stats.pages
        );
        Ok(())
    });
}
