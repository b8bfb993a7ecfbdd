// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Filesystems that are only read, and that decompress in the page they have read into.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zcache_tests::load::DROP_CACHES;
use zcache_tests::{DaemonOptions, Kernel, Vm};

use crate::users::changes_nothing;

/// How an image is made, each with the parts of pages that it has.
const WAYS: [(&str, &str); 2] =
    [("as it is", ""), ("compressed, with fragments and ends of files", "-zlz4 -Efragments,ztailpacking")];

crate::on_kernels! {
    /// Files of an erofs image are read again and again; none of it is what was compressed.
    fn read_only_images_are_read_right: extra_on_debian_12 = Debian12, on_debian_13_backports = Debian13Backports;
}

fn read_only_images_are_read_right(kernel: Kernel) {
    crate::with_kernel("images", kernel, Duration::from_secs(400), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let vm = s.vm(crate::guest(kernel).daemon(&daemon, 0).disk_mib(64).disk_mib(64))?;
        vm.attach()?;
        // Of all sizes, and of what can be compressed and what cannot.
        vm.guest().sh("mkdir /tmp/tree; cd /tmp/tree; head -c 1M /dev/urandom >noise
             seq 200000 >numbers; cp /bin/sed program; mkdir small
             for i in $(seq 40); do { seq $((i * 35)); head -c $i /dev/urandom; } >small/$i; done
             find . -type f | sort | xargs md5sum >/tmp/sums
             zcachesetup open /dev/vdc home; mkfs.ext4 -q -F /dev/mapper/home; mkdir /tmp/home
             mount /dev/mapper/home /tmp/home; chmod 777 /tmp/home")?;
        for put in ["evict", "read"] {
            for (way, options) in WAYS {
                read_image(&vm, put, options).with_context(|| format!("put={put}, {way}"))?;
            }
        }
        Ok(())
    });
}

fn read_image(vm: &Vm, put: &str, options: &str) -> Result<()> {
    let guest = vm.guest();
    let check = "cd /mnt; md5sum --quiet --strict -c /tmp/sums; cd /";
    guest.sh(&format!(
        "zcachesetup open --put {put} /dev/vdb t; mkfs.erofs --quiet {options} /tmp/image /tmp/tree
         dd if=/tmp/image of=/dev/mapper/t bs=1M conv=fsync status=none; mount -t erofs /dev/mapper/t /mnt"
    ))?;
    for _ in 0..2 {
        guest.sh(&format!("{DROP_CACHES}; {check}")).context("A file of an image has other contents")?;
    }
    let hits: u64 = guest.sh("dmsetup status t | grep -o 'hits=[0-9]*' | cut -d= -f2")?.trim().parse()?;
    ensure!(hits > 0, "Nothing came from the pool: this tests nothing");
    println!("put={put} {options}: {hits} hits");
    if options.is_empty() {
        changes_nothing(vm, "plant /mnt/noise /tmp/home/mine 1000 2")?;
        guest.sh(&format!("{DROP_CACHES}; {check}")).context("A user has changed a file of an image")?;
    }
    guest.sh("umount /mnt; zcachesetup close t").map(drop)
}
