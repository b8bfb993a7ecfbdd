// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest and its daemon take of the host.

use anyhow::{Context, Result};
use procfs::process::all_processes;

use super::Pair;

/// Processor time so far, in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Processor {
    guest: f64,
    daemon: f64,
}

impl Processor {
    pub(super) fn of(pair: &Pair) -> Result<Self> {
        let daemon = pair.daemon.pid().context("The daemon is dead")?;
        Ok(Self { guest: seconds(pair.vm.process().pid())?, daemon: seconds(daemon)? })
    }

    /// What both have taken since `self`: guest, daemon.
    pub(super) fn since(self, pair: &Pair) -> Result<(f64, f64)> {
        let now = Self::of(pair)?;
        Ok((now.guest - self.guest, now.daemon - self.daemon))
    }
}

/// Of a process group, with all that have ended in it: the processes of a guest of user-mode Linux
/// are processes of the host.
fn seconds(group: i32) -> Result<f64> {
    let mut ticks = 0;
    for process in all_processes()? {
        // A process may end while we look at it.
        let Ok(stat) = process.and_then(|process| process.stat()) else { continue };
        if stat.pgrp == group {
            ticks += stat.utime + stat.stime + (stat.cutime + stat.cstime).unsigned_abs();
        }
    }
    Ok(ticks as f64 / procfs::ticks_per_second() as f64)
}

/// Host memory that the guest's pages take in the daemon, in MiB.
pub(super) fn store_mib(pair: &Pair) -> Result<f64> {
    Ok(pair.daemon.typed_stats()?.store.physical_bytes as f64 / f64::from(1 << 20))
}
