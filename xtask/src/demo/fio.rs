// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The demo's file set and what fio does with it.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use zcache_tests::Vm;
use zcache_tests::load::DROP_CACHES;

/// Longest that one pass may take: TCG on a busy machine.
const LIMIT: Duration = Duration::from_secs(150);

/// Files of this size altogether, on ext4: the classic kernel offers clean pages of btrfs to
/// nobody, because btrfs does not mark them as mapped to disk. Every block carries a
/// checksum of its contents, which each read verifies.
#[derive(Debug)]
pub(crate) struct FileSet {
    pub(crate) megabytes: u64,
}

/// What fio says about a pass.
#[derive(Debug)]
pub(crate) struct Reads {
    pub(crate) reads: u64,
    pub(crate) iops: f64,
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
        let script = format!(
            "fio --name=set --filename=/mnt/ext4/a:/mnt/ext4/b:/mnt/ext4/c:/mnt/ext4/d --size={}M \
             --ioengine=psync --invalidate=0 --verify=crc32c --verify_interval=4k --verify_fatal=1 \
             --buffer_compress_percentage=50 --output-format=json {what}",
            self.megabytes
        );
        let output = vm.guest().sh_within(&script, LIMIT * vm.options().patience())?;
        // Notes may precede the document.
        let document = &output[output.find('{').context("fio printed no figures")?..];
        let document: Value = serde_json::from_str(document).context("fio's figures are not JSON")?;
        let read = &document["jobs"][0]["read"];
        Ok(Reads {
            reads: read["total_ios"].as_u64().context("fio says nothing of reads")?,
            iops: read["iops"].as_f64().context("fio says nothing of a rate")?,
        })
    }
}
