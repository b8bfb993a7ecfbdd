// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The keeper does not wait for swap, as far as that can be had: all machines stand still while it
//! is away, among them maybe the one whose swapping was to make room.

use log::debug;
use rustix::mm::{MlockAllFlags, mlockall};
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
    if let Err(error) = configure_io_flusher_behavior(true) {
        debug!("The keeper may wait for writes to swap: {error}");
    }
}
