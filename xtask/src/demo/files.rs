// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The demo's file set and what fio does with it.

use anyhow::Result;
use zcache_tests::Vm;
use zcache_tests::load::DROP_CACHES;

use crate::fio::{self, Reads};

/// Files of this size altogether, on ext4: the classic kernel offers clean pages of btrfs to
/// nobody, because btrfs does not mark them as mapped to disk. Every block carries a
/// checksum of its contents, which each read verifies.
#[derive(Debug)]
pub(crate) struct FileSet {
    pub(crate) megabytes: u64,
}

impl FileSet {
    /// Creates the files and forgets them: every later read has to come from somewhere.
    pub(crate) fn write(&self, vm: &Vm) -> Result<()> {
        self.fio(vm, "--rw=write --bs=1M --do_verify=0 --end_fsync=1")?;
        vm.guest().sh(DROP_CACHES)?;
        Ok(())
    }

    /// Reads every block once, in order.
    pub(crate) fn read_all(&self, vm: &Vm) -> Result<()> {
        self.fio(vm, "--rw=read --bs=256k")?;
        Ok(())
    }

    /// Reads an eighth of the blocks, one by one in an order that is always the same and that
    /// jumps all over the set.
    pub(crate) fn read_randomly(&self, vm: &Vm) -> Result<Reads> {
        self.fio(vm, &format!("--rw=randread --bs=4k --randseed=1 --io_size={}M", self.megabytes / 8))
    }

    fn fio(&self, vm: &Vm, what: &str) -> Result<Reads> {
        fio::run(
            vm,
            &format!(
                "--filename=/mnt/ext4/a:/mnt/ext4/b:/mnt/ext4/c:/mnt/ext4/d --size={}M --verify=crc32c \
                 --verify_interval=4k --verify_fatal=1 --buffer_compress_percentage=50 {what}",
                self.megabytes
            ),
        )
    }
}
