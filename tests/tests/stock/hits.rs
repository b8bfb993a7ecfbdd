// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the page cache evicted is served from the device, not read from the disk again.

use std::time::Duration;

use anyhow::{Result, ensure};
use zcache_tests::load::DROP_CACHES;
use zcache_tests::{DaemonOptions, Kernel, Vm, Vmm, lone_scenario};

use crate::volume::Volume;

const LIMIT: Duration = Duration::from_secs(240);
const MEMORY_MIB: u32 = 224;

/// How large the file set is: two and a half times the guest's memory, one and a half times where
/// the kernel is emulated.
fn set_mib(kernel: Kernel) -> u32 {
    match kernel.vmm() {
        Vmm::Uml => MEMORY_MIB * 5 / 2,
        Vmm::Qemu => MEMORY_MIB * 3 / 2,
    }
}

/// Of what the page cache does not have, at most this part may be read from the disk.
const FROM_DISK: f64 = 0.05;

/// xfs has large folios on this kernel.
#[test]
fn extra_xfs_on_debian_13_is_read_from_the_device() {
    rereads_are_served(Kernel::Debian13, "xfs");
}

/// All have them on this one.
#[test]
fn extra_btrfs_on_debian_13_backports_is_read_from_the_device() {
    rereads_are_served(Kernel::Debian13Backports, "btrfs");
}

#[test]
fn ext4_on_uml_is_read_from_the_device() {
    rereads_are_served(Kernel::Uml, "ext4");
}

#[test]
fn xfs_on_uml_is_read_from_the_device() {
    rereads_are_served(Kernel::Uml, "xfs");
}

#[test]
fn btrfs_on_uml_is_read_from_the_device() {
    rereads_are_served(Kernel::Uml, "btrfs");
}

const LATER_MIB: u64 = 256;

/// Of the file's pages, so many may be elsewhere than in the memory that came later.
const ELSEWHERE: u64 = 2048;

#[test]
fn pages_in_memory_that_comes_later_are_cached() {
    lone_scenario("stock_hits_later", Duration::from_secs(300), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let mut options = crate::guest(Kernel::Debian13).daemon(&daemon, 0).disk_mib(256);
        options.spare_mib = LATER_MIB;
        let vm = s.vm(options)?;
        let guest = vm.guest();
        let volume = Volume::mount(&vm, "ext4", 0)?;
        let file = format!("{}/file", volume.folder());
        guest.sh(&format!("dd if=/dev/urandom of={file} bs=1M count=64 conv=fsync status=none; {DROP_CACHES}"))?;
        // For what can be moved, as pages of files: these go there first.
        guest.sh("echo online_movable > /sys/devices/system/memory/auto_online_blocks")?;
        vm.plug_memory()?;
        let movable =
            "awk '/^Node/ { m = $4 == \"Movable\" } m && $1 == \"present\" { n += $2 } END { print n }' /proc/zoneinfo";
        guest.sh(&format!("until [ $({movable}) -ge {} ]; do sleep 0.1; done", pages(LATER_MIB << 20)))?;
        vm.attach()?;
        guest
            .sh(&format!("sha256sum {file} >/tmp/sum; {DROP_CACHES}; sha256sum -c --quiet /tmp/sum; {DROP_CACHES}"))?;
        let hits = volume.count("hits")?;
        ensure!(hits + ELSEWHERE > pages(64 << 20), "{hits} pages of {} came from the device", pages(64 << 20));
        Ok(())
    });
}

fn rereads_are_served(kernel: Kernel, filesystem: &'static str) {
    lone_scenario(&format!("stock_hits_{filesystem}_{kernel}"), Duration::from_secs(720), |s| {
        let set_mib = set_mib(kernel);
        let mut daemon = DaemonOptions::usual()?;
        daemon.memory_limit = Some("1G".to_owned());
        let daemon = s.daemon(daemon)?;
        let mut options = crate::guest(kernel).daemon(&daemon, 0).disk_mib(u64::from(set_mib) + 256);
        options.memory_mib = MEMORY_MIB;
        let vm = s.vm(options)?;
        let volume = Volume::mount(&vm, filesystem, 0)?;
        vm.attach()?;
        fio(&vm, &volume, "--rw=write --do_verify=0 --end_fsync=1")?;
        fio(&vm, &volume, "--rw=read")?;
        for (what, pattern) in [
            ("sequentially", "--rw=read".to_owned()),
            ("at random", format!("--rw=randread --bs=4k --randseed=7 --io_size={}M", set_mib / 4)),
        ] {
            let before = (vm.disk_io()?["vdb"].read_bytes, volume.count("hits")?);
            fio(&vm, &volume, &pattern)?;
            let disk = pages(vm.disk_io()?["vdb"].read_bytes - before.0);
            let hits = volume.count("hits")? - before.1;
            let wanted = disk + hits;
            ensure!(wanted > u64::from(set_mib) * 16, "Read {what}, only {wanted} pages were not in the page cache");
            #[allow(clippy::cast_precision_loss)]
            let share = disk as f64 / wanted as f64;
            ensure!(
                share <= FROM_DISK,
                "Read {what}, {disk} of {wanted} pages ({:.1} %) came from the disk: {:?}\n{}",
                share * 100.0,
                volume.counters()?,
                vm.guest().sh("cat /sys/kernel/debug/zcache/stats")?
            );
        }
        vm.guest().sh(DROP_CACHES).map(drop)
    });
}

fn pages(bytes: u64) -> u64 {
    bytes >> 12
}

/// Works on the file set; every read is verified.
fn fio(vm: &Vm, volume: &Volume, what: &str) -> Result<()> {
    let script = format!(
        "fio --name=set --directory={} --size={}M --bs=256k --ioengine=psync --invalidate=0 --fallocate=none \
         --verify=crc32c --verify_interval=4k --verify_fatal=1 --buffer_compress_percentage=50 {what} >/tmp/fio 2>&1 ||
         {{ cat /tmp/fio >&2; exit 1; }}",
        volume.folder(),
        set_mib(vm.options().kernel)
    );
    vm.guest().sh_within(&script, LIMIT).map(drop)
}
