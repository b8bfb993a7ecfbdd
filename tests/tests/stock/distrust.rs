// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a filesystem does not believe is read from the disk when it asks again.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zcache_tests::load::DROP_CACHES;
use zcache_tests::{DaemonOptions, Kernel, scenario};

use crate::volume::Volume;

/// The pool gets a page that is wrong, by way of a disk that is so for a moment.
#[test]
fn a_page_of_a_wrong_checksum_is_read_from_the_disk() {
    scenario("stock_distrust", Duration::from_secs(240), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let vm = s.vm(crate::guest(Kernel::Uml).daemon(&daemon, 0).disk_mib(256))?;
        vm.attach()?;
        for (put, between) in [("evict", ""), ("read", ""), ("evict", DROP_CACHES), ("read", DROP_CACHES)] {
            let volume = Volume::mount_put(&vm, "btrfs", 0, put)?;
            distrust(vm.guest(), &volume, between).with_context(|| format!("put={put}, {between}"))?;
            vm.guest().sh("umount /mnt/btrfs; zcachesetup close btrfs; dmesg --clear")?;
        }
        Ok(())
    });
}

/// Between two attempts something happens, or they read into the same memory.
fn distrust(guest: &zcache_tests::Guest, volume: &Volume, between: &str) -> Result<()> {
    guest.sh(&format!(
        "awk 'BEGIN {{ for (i = 0; i < 3000; i++) print \"marker-of-the-test\" }}' >/tmp/all
         cp /tmp/all /mnt/btrfs/file; sync; {DROP_CACHES}; zcachesetup flush btrfs
         block=$(($(grep -abom1 marker-of-the-test /dev/vdb | cut -d: -f1) / 4096))
         dd if=/dev/vdb of=/tmp/good bs=4096 skip=$block count=1 iflag=direct status=none
         dd if=/dev/zero of=/dev/vdb bs=4096 seek=$block count=1 oflag=direct conv=notrunc status=none
         dd if=/dev/mapper/btrfs of=/dev/null bs=4096 skip=$block count=1 status=none
         {DROP_CACHES}
         dd if=/tmp/good of=/dev/vdb bs=4096 seek=$block count=1 oflag=direct conv=notrunc status=none"
    ))?;
    let hits = volume.count("hits")?;
    let read = "cmp /tmp/all /mnt/btrfs/file";
    guest
        .sh(&format!("for try in 1 2 3; do ! {read} || exit 0; {between}\n done; exit 1"))
        .context("A page that was wrong in the pool is never read from the disk")?;
    ensure!(volume.count("hits")? > hits, "Nothing came from the pool: the test shows nothing");
    ensure!(
        !between.is_empty() || volume.count("rereads")? > 0,
        "The wrong page was not in the pool: the test shows nothing"
    );
    guest.sh(&format!("{DROP_CACHES}; {read}")).context("The pool still has the wrong page").map(drop)
}
