// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The demo's figures, as a table and as JSON.

use std::fmt;

use serde_json::{Value, json};
use zcache_tests::{PoolStats, StoreStats};

use super::swap::Swapped;

/// One pass over the file set.
#[derive(Debug)]
pub(crate) struct Pass {
    /// Reads that reached a disk.
    pub(crate) disk_reads: u64,
    /// Reads that fio did.
    pub(crate) reads: u64,
    /// Reads per second that fio saw.
    pub(crate) iops: f64,
}

/// Everything the demo found out.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) accel: &'static str,
    pub(crate) seconds: f64,
    pub(crate) memory_mib: u64,
    pub(crate) file_set_mib: u64,
    pub(crate) before: Pass,
    pub(crate) after: Pass,
    pub(crate) pools_replayed: usize,
    pub(crate) swap: Swapped,
    pub(crate) store_with_files: StoreStats,
    pub(crate) store_at_end: StoreStats,
    pub(crate) pools: Vec<PoolStats>,
    pub(crate) complaints: Vec<String>,
}

impl Figures {
    /// The fraction of the disk reads before the attach that no longer happened after it.
    fn reads_avoided(&self) -> f64 {
        if self.before.disk_reads == 0 {
            return 0.0;
        }
        1.0 - float(self.after.disk_reads) / float(self.before.disk_reads)
    }

    fn hits(&self) -> u64 {
        self.pools.iter().map(|pool| pool.hits).sum()
    }

    /// What must not be; empty when all is well.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.swap.wrong > 0 {
            faults.push(format!("{} swapped pages came back with wrong contents", self.swap.wrong));
        }
        if self.swap.stored == 0 {
            faults.push("no page was swapped to the device".to_owned());
        }
        if self.hits() == 0 {
            faults.push("no read was answered by the device".to_owned());
        }
        for line in &self.complaints {
            faults.push(format!("the guest's kernel complained: {line}"));
        }
        faults
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "disk_reads_before": self.before.disk_reads,
            "disk_reads_after": self.after.disk_reads,
            "reads_avoided": self.reads_avoided(),
            "fio_reads": self.after.reads,
            "fio_iops_before": self.before.iops,
            "fio_iops_after": self.after.iops,
            "hits": self.hits(),
            "pools_replayed": self.pools_replayed,
            "pools": self.pools,
            "swap_pages_stored": self.swap.stored,
            "swap_pages_verified": self.swap.verified,
            "swap_pages_wrong": self.swap.wrong,
            "compression_ratio": self.store_with_files.ratio,
            "host_memory_bytes_files": self.store_with_files.physical_bytes,
            "host_memory_bytes_end": self.store_at_end.physical_bytes,
            "guest_memory_mib": self.memory_mib,
            "file_set_mib": self.file_set_mib,
            "seconds": self.seconds,
            "accel": self.accel,
        })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        writeln!(
            f,
            "A guest of {} MiB read {} random blocks of {} MiB of files ({})",
            self.memory_mib, self.after.reads, self.file_set_mib, self.accel
        )?;
        writeln!(f)?;
        writeln!(f, "                                 without      with the device")?;
        writeln!(f, "  reads that reached the disk {:>10} {:>12}", self.before.disk_reads, self.after.disk_reads)?;
        writeln!(f, "  fio, reads per second       {:>10.0} {:>12.0}", self.before.iops, self.after.iops)?;
        writeln!(f, "  disk reads avoided          {:>23.1} %", 100.0 * self.reads_avoided())?;
        writeln!(f)?;
        writeln!(f, "  pools replayed at the attach: {}", self.pools_replayed)?;
        writeln!(f, "  {:>4}  {:<10} {:>9} {:>9} {:>9} {:>9}", "pool", "kind", "puts", "gets", "hits", "pages now")?;
        for pool in &self.pools {
            writeln!(
                f,
                "  {:>4}  {:<10} {:>9} {:>9} {:>9} {:>9}",
                pool.id, pool.kind, pool.puts, pool.gets, pool.hits, pool.pages
            )?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "  swap: {} pages stored, {} read back and verified, {} wrong",
            self.swap.stored, self.swap.verified, self.swap.wrong
        )?;
        for (when, store) in [("with the files", &self.store_with_files), ("at the end", &self.store_at_end)] {
            writeln!(
                f,
                "  host memory {when}: {:.1} MiB for {:.1} MiB of pages (ratio {:.2})",
                mib(store.physical_bytes),
                mib(store.pages * 4096),
                store.ratio
            )?;
        }
        writeln!(f, "  {:.0} seconds", self.seconds)
    }
}

fn mib(bytes: u64) -> f64 {
    float(bytes) / f64::from(1 << 20)
}

/// Counters here stay far below the 2^53 that an f64 holds exactly.
#[allow(clippy::cast_precision_loss)]
fn float(count: u64) -> f64 {
    count as f64
}
