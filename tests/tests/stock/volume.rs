// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A filesystem on a target.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zcache_tests::load::DROP_CACHES;
use zcache_tests::{Guest, Vm};

/// The filesystems that the target is for.
pub(crate) const FILESYSTEMS: [&str; 3] = ["ext4", "xfs", "btrfs"];

/// A filesystem of the guest, mounted from a target over a test disk.
#[derive(Debug)]
pub(crate) struct Volume<'a> {
    guest: &'a Guest,
    filesystem: &'static str,
    origin: String,
}

impl<'a> Volume<'a> {
    /// Makes the filesystem on test disk number `disk` and mounts it; target and folder have its
    /// name.
    pub(crate) fn mount(vm: &'a Vm, filesystem: &'static str, disk: u8) -> Result<Self> {
        Self::mount_put(vm, filesystem, disk, "evict")
    }

    /// As [`Volume::mount`], on a target of the given mode.
    pub(crate) fn mount_put(vm: &'a Vm, filesystem: &'static str, disk: u8, put: &str) -> Result<Self> {
        let guest = vm.guest();
        let origin = format!("/dev/vd{}", char::from(b'b' + disk));
        let volume = Self { guest, filesystem, origin };
        guest.sh(&format!(
            "zcachesetup open --put {put} {} {filesystem}; mkdir -p {}",
            volume.origin,
            volume.folder()
        ))?;
        guest.sh(&format!("{} {}", make(filesystem), volume.mapped()))?;
        volume.mount_again()?;
        Ok(volume)
    }

    pub(crate) fn mount_again(&self) -> Result<()> {
        self.guest.sh(&format!("mount -o noatime {} {}", self.mapped(), self.folder())).map(drop)
    }

    /// Its kind, which is the target's name too.
    pub(crate) fn filesystem(&self) -> &'static str {
        self.filesystem
    }

    /// Where it is mounted.
    pub(crate) fn folder(&self) -> String {
        format!("/mnt/{}", self.filesystem)
    }

    pub(crate) fn mapped(&self) -> String {
        format!("/dev/mapper/{}", self.filesystem)
    }

    /// The words `KEY=NUMBER` of the target's status.
    pub(crate) fn counters(&self) -> Result<BTreeMap<String, u64>> {
        let status = self.guest.sh(&format!("dmsetup status {}", self.filesystem))?;
        let counters = status.split_whitespace().filter_map(|word| {
            let (key, value) = word.split_once('=')?;
            Some((key.to_owned(), value.parse().ok()?))
        });
        Ok(counters.collect())
    }

    pub(crate) fn count(&self, name: &str) -> Result<u64> {
        self.counters()?.get(name).copied().with_context(|| format!("The target's status has no '{name}'"))
    }

    /// Unmounts it and compares what the target says of each block with what the origin has; the
    /// device has pages of it, which only the page cache is given, and these must be equal too.
    /// So must be blocks whose pages were not what they hold when they were evicted.
    /// Lets the filesystem's own check look at it, removes the target, and has the check look at
    /// the origin.
    pub(crate) fn verify_and_close(self) -> Result<()> {
        let (origin, mapped) = (&self.origin, self.mapped());
        let limit = Duration::from_secs(180);
        // Without writes in between, and a little at a time, no invalidation is refused, which
        // would empty the pool: a daemon that waits for a processor cannot take all pages at once.
        let folder = self.folder();
        let fill = format!(
            "sync; {DROP_CACHES}
             find {folder} -type f | while read -r file; do
                 for mib in $(seq 0 $(($(stat -c %s \"$file\") / 1048576))); do
                     dd if=\"$file\" of=/dev/null bs=1M skip=$mib count=1 status=none; {DROP_CACHES}
                 done
             done"
        );
        self.guest.sh_within(&format!("{fill}; umount {folder}"), limit)?;
        let hits = self.count("hits")?;
        self.guest
            .sh_within(&format!("samebytes {mapped} {origin}"), limit)
            .with_context(|| format!("{}: the device has other contents than the disk", self.filesystem))?;
        let served = self.count("hits")? - hits;
        ensure!(served > 0, "{}: no page came from the device: nothing was compared", self.filesystem);
        // Only what comes from the disk now is put again.
        let refused = format!("zcachesetup flush {}; refused {mapped} {origin}", self.filesystem);
        self.guest.sh_within(&refused, limit).with_context(|| {
            format!("{}: a page that is not what its block holds got to the device", self.filesystem)
        })?;
        self.check(&mapped)?;
        // Not before: btrfs wants the device for itself.
        self.guest.sh(&format!("zcachesetup close {}", self.filesystem))?;
        self.check(origin)
    }

    fn check(&self, device: &str) -> Result<()> {
        let command = match self.filesystem {
            "ext4" => format!("e2fsck -f -n {device}"),
            "xfs" => format!("xfs_repair -n {device}"),
            _ => format!("btrfs check --check-data-csum {device}"),
        };
        let limit = Duration::from_secs(180);
        self.guest
            .sh_within(&format!("{command} >/tmp/check 2>&1 || {{ cat /tmp/check >&2; exit 1; }}"), limit)
            .with_context(|| format!("{device} is damaged"))
            .map(drop)
    }
}

fn make(filesystem: &str) -> &'static str {
    match filesystem {
        "ext4" => "mkfs.ext4 -q -F",
        "xfs" => "mkfs.xfs -q -f",
        _ => "mkfs.btrfs -q -f",
    }
}
