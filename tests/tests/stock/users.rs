// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Unprivileged users of the guest cannot change what others read.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zcache_tests::load::DROP_CACHES;
use zcache_tests::{DaemonOptions, Exit, Kernel, Vm};

/// Filesystems on which a user's file of less than a page is written in different ways.
const WAYS: [(&str, &str, &str); 5] = [
    ("ext4, whole pages", "mkfs.ext4 -q -F", ":"),
    ("ext4, through the journal", "mkfs.ext4 -q -F", "chattr +j /mnt/home"),
    ("xfs, whole pages", "mkfs.xfs -q -f", ":"),
    ("xfs, blocks smaller than pages", "mkfs.xfs -q -f -b size=1024", ":"),
    ("btrfs, with its metadata", "mkfs.btrfs -q -f", ":"),
];

const SECONDS: u32 = 4;

crate::on_kernels! {
    /// A user has pages of his own taken for those of a file that he may read.
    fn a_user_cannot_plant_pages:
        on_debian_12 = Debian12,
        extra_on_debian_13 = Debian13,
        on_debian_13_backports = Debian13Backports;
}

fn a_user_cannot_plant_pages(kernel: Kernel) {
    crate::with_kernel("plant", kernel, Duration::from_secs(300), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let vm = s.vm(crate::guest(kernel).daemon(&daemon, 0).disk_mib(384))?;
        vm.attach()?;
        for put in ["evict", "read"] {
            for (way, make, prepare) in WAYS {
                plant(&vm, put, make, prepare).with_context(|| format!("put={put}, {way}"))?;
            }
        }
        Ok(())
    });
}

fn plant(vm: &Vm, put: &str, make: &str, prepare: &str) -> Result<()> {
    let guest = vm.guest();
    guest.sh(&format!(
        "zcachesetup open --put {put} /dev/vdb t; {make} /dev/mapper/t; mount /dev/mapper/t /mnt
         mkdir -m 777 /mnt/home; {prepare}; head -c 8M /dev/urandom >/mnt/file; chmod 4755 /mnt/file
         sync; {DROP_CACHES}; zcachesetup flush t"
    ))?;
    let limit = Duration::from_secs(60) * vm.options().patience();
    let run = guest.spawn(&format!("plant /mnt/file /mnt/home/mine 1000 {SECONDS}"))?.wait(limit)?;
    ensure!(run.exit == Exit::Status(0), "A user changed what is read from a file that he must not write: {run:?}");
    ensure!(!run.stdout.contains("rounds=0 "), "The user did not get to try: {run:?}");
    // btrfs complains of the user's direct reads, whose buffers change.
    guest.sh("umount /mnt; zcachesetup close t; dmesg --clear").map(drop)
}
