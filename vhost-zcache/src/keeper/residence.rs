// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The keeper does not wait for swap, as far as that can be had: all machines stand still while it
//! is away, among them maybe the one whose swapping was to make room.

use std::io;
use std::ptr;

use log::debug;
use rustix::mm::{MlockAllFlags, mlockall, munlock, munlockall};
use rustix::process::configure_io_flusher_behavior;

/// Locks what the keeper has, which is all that it will ever need but for a little of each
/// connection, and has its allocations wait for nobody's writes. To be called when everything is
/// set up, and before privileges are given up. Who may not do it (`LimitMEMLOCK=`,
/// CAP_SYS_RESOURCE) does without.
pub fn settle() {
    // Not of what comes later: at the limit that would be memory that cannot be had.
    if let Err(error) = mlockall(MlockAllFlags::CURRENT) {
        debug!("The keeper's memory is not locked: {error}");
    }
    if let Err(error) = let_go_of_stack() {
        debug!("The keeper's memory is not locked, for its stack must not be: {error}");
        let _ = munlockall();
    }
    if let Err(error) = configure_io_flusher_behavior(true) {
        debug!("The keeper may wait for writes to swap: {error}");
    }
}

/// The stack grows by itself, but no further than the limit on locked memory while it is locked,
/// which the rest may have reached: the next page would be the end.
fn let_go_of_stack() -> io::Result<()> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let range = maps.lines().find(|line| line.ends_with("[stack]")).and_then(|line| line.split(' ').next());
    let address = |text: &str| usize::from_str_radix(text, 16).ok();
    let (start, end) = range
        .and_then(|range| range.split_once('-'))
        .and_then(|(start, end)| Some((address(start)?, address(end)?)))
        .ok_or(io::ErrorKind::NotFound)?;
    // SAFETY: what is not locked is as it was, but may be swapped out.
    Ok(unsafe { munlock(ptr::without_provenance_mut(start), end - start) }?)
}
