// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Files that the filesystem encrypts: what is in memory is not what their blocks hold.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zcache_tests::load::DROP_CACHES;
use zcache_tests::{DaemonOptions, Kernel, Vm, scenario};

const MIB: u64 = 16;

#[test]
fn encrypted_files_are_read_from_the_disk() {
    scenario("stock_encrypted", Duration::from_secs(240), |s| {
        let daemon = s.daemon(DaemonOptions::usual()?)?;
        let vm = s.vm(crate::guest(Kernel::Debian13).daemon(&daemon, 0).disk_mib(256))?;
        vm.attach()?;
        for put in ["evict", "read"] {
            reread(&vm, put).with_context(|| format!("put={put}"))?;
        }
        Ok(())
    });
}

fn reread(vm: &Vm, put: &str) -> Result<()> {
    let guest = vm.guest();
    let hits = || -> Result<u64> {
        let status = guest.sh("dmsetup status t | tr ' ' '\\n' | sed -n 's/^hits=//p'")?;
        status.trim().parse().context("The target's status has no hits")
    };
    let read = |folder: &str| {
        let read = format!("sha256sum --quiet -c /tmp/{folder}; {DROP_CACHES}");
        guest.sh(&format!("{DROP_CACHES}; {read}; {read}")).with_context(|| format!("Of the folder {folder}"))
    };
    guest.sh(&format!(
        "zcachesetup open --put {put} /dev/vdb t; mkfs.ext4 -q -F -O encrypt /dev/mapper/t; mount /dev/mapper/t /mnt
         mkdir /mnt/secret /mnt/open; fscrypt /mnt/secret
         for folder in secret open; do
             head -c {MIB}M /dev/urandom >/mnt/$folder/file; sha256sum /mnt/$folder/file >/tmp/$folder
         done; sync"
    ))?;
    let before = hits()?;
    read("secret")?;
    let secret = hits()? - before;
    read("open")?;
    let open = hits()? - before - secret;
    let all = MIB << 8;
    ensure!(open > all / 2, "Only {open} of {all} pages of an ordinary file came from the device");
    // The filesystem's own blocks may.
    ensure!(secret < all / 8, "{secret} of {all} pages of an encrypted file came from the device");
    guest.sh("umount /mnt; zcachesetup close t").map(drop)
}
