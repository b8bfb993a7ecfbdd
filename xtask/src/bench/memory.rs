// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory of this process and of the machine, as the kernel counts it.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};
use zcache_store::Store;

/// Resident anonymous memory: the index of a store is in it, its pages are in its memory file.
pub(super) fn anonymous() -> Result<u64> {
    field("/proc/self/status", "RssAnon:")
}

/// Resident bytes of a store's memory file. The process's own RSS (`RssShmem`) would be less: when
/// a part of a huge page is given back, it leaves out the rest until that is touched again.
pub(super) fn in_file(store: &Store) -> Result<u64> {
    Ok(store.memory_file()?.metadata()?.blocks() * 512)
}

/// Bytes that the machine can still give.
pub(super) fn available() -> Result<u64> {
    field("/proc/meminfo", "MemAvailable:")
}

/// A figure that the kernel gives in KiB, in bytes.
fn field(file: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.split_whitespace().next());
    let kib: u64 = kib.with_context(|| format!("{file} has no {name}"))?.parse()?;
    Ok(kib << 10)
}
