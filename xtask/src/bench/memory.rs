// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Resident memory of this process, as the kernel counts it.

use std::fs;

use anyhow::{Context, Result};

/// Resident bytes. The arena is shared memory, the index anonymous.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Resident {
    pub(super) anonymous: u64,
    pub(super) shared: u64,
}

impl Resident {
    pub(super) fn now() -> Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let field = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|rest| rest.split_whitespace().next());
            let kib: u64 = kib.with_context(|| format!("/proc/self/status has no {name}"))?.parse()?;
            Ok(kib << 10)
        };
        Ok(Self { anonymous: field("RssAnon:")?, shared: field("RssShmem:")? })
    }

    /// Growth since an earlier moment.
    pub(super) fn since(self, before: Self) -> u64 {
        self.total().saturating_sub(before.total())
    }

    fn total(self) -> u64 {
        self.anonymous + self.shared
    }
}

/// Bytes that the machine can still give.
pub(super) fn available() -> Result<u64> {
    let info = fs::read_to_string("/proc/meminfo")?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next());
    let kib: u64 = kib.context("/proc/meminfo has no MemAvailable")?.parse()?;
    Ok(kib << 10)
}
