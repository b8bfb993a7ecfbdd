// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Unprivileged users of the guest cannot change what others read.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zcache_tests::load::DROP_CACHES;
use zcache_tests::{DaemonOptions, Exit, Kernel, Vm};

/// Filesystems on which a user's file is written in different ways.
struct Way {
    name: &'static str,
    make: &'static str,
    /// Of his folder.
    prepare: &'static str,
    /// Of his file, in bytes.
    size: u32,
    /// He can clone what he may read.
    clones: bool,
}

impl Way {
    const fn new(name: &'static str, make: &'static str) -> Self {
        Self { name, make, prepare: ":", size: 1000, clones: false }
    }
}

const WAYS: [Way; 7] = [
    Way::new("ext4, whole pages", "mkfs.ext4 -q -F"),
    Way { prepare: "chattr +j /mnt/home", ..Way::new("ext4, through the journal", "mkfs.ext4 -q -F") },
    Way::new("ext4, blocks smaller than pages", "mkfs.ext4 -q -F -b 1024"),
    Way { clones: true, ..Way::new("xfs, whole pages", "mkfs.xfs -q -f") },
    Way::new("xfs, blocks smaller than pages", "mkfs.xfs -q -f -b size=1024"),
    Way { clones: true, ..Way::new("btrfs, with its metadata", "mkfs.btrfs -q -f") },
    Way { prepare: "chattr +c /mnt/home", size: 16384, ..Way::new("btrfs, compressed", "mkfs.btrfs -q -f") },
];

const SECONDS: u32 = 2;

crate::on_kernels! {
    /// A user has pages of his own taken for those of a file that he may read.
    fn a_user_cannot_plant_pages:
        extra_on_debian_12 = Debian12,
        extra_on_debian_13 = Debian13,
        on_debian_13_backports = Debian13Backports;
}

fn a_user_cannot_plant_pages(kernel: Kernel) {
    crate::with_kernel("plant", kernel, Duration::from_secs(400), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let vm = s.vm(crate::guest(kernel).daemon(&daemon, 0).disk_mib(384))?;
        vm.attach()?;
        for put in ["evict", "read"] {
            for way in &WAYS {
                plant(&vm, put, way).with_context(|| format!("put={put}, {}", way.name))?;
            }
        }
        Ok(())
    });
}

fn plant(vm: &Vm, put: &str, way: &Way) -> Result<()> {
    let (make, prepare) = (way.make, way.prepare);
    vm.guest().sh(&format!(
        "zcachesetup open --put {put} /dev/vdb t; {make} /dev/mapper/t; mount /dev/mapper/t /mnt
         mkdir -m 777 /mnt/home; {prepare}; head -c 8M /dev/urandom >/mnt/file; chmod 4755 /mnt/file
         sync; {DROP_CACHES}; zcachesetup flush t"
    ))?;
    changes_nothing(vm, &format!("plant /mnt/file /mnt/home/mine {} {SECONDS}", way.size))?;
    if way.clones {
        vm.guest().sh(&format!("{DROP_CACHES}; zcachesetup flush t"))?;
        changes_nothing(vm, &format!("beyond /mnt/file /mnt/home/clone {SECONDS}"))?;
    }
    // btrfs complains of the user's direct reads, whose buffers change.
    vm.guest().sh("umount /mnt; zcachesetup close t; dmesg --clear").map(drop)
}

/// Runs what tries to change a file.
pub(crate) fn changes_nothing(vm: &Vm, program: &str) -> Result<()> {
    let limit = Duration::from_secs(60) * vm.options().patience();
    let run = vm.guest().spawn(program)?.wait(limit)?;
    println!("{program}: {}", run.stdout.trim());
    ensure!(run.exit == Exit::Status(0), "A user changed what is read from a file that he must not write: {run:?}");
    ensure!(!run.stdout.contains("rounds=0 "), "The user did not get to try: {run:?}");
    Ok(())
}
