// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tells a thread to stop, whether it works or sleeps.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// A flag for a thread that works, and an eventfd for one that sleeps in poll.
#[derive(Debug)]
pub struct StopSignal {
    raised: AtomicBool,
    event: OwnedFd,
}

impl StopSignal {
    /// A signal that is not raised.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { raised: AtomicBool::new(false), event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// Raises the signal.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::Relaxed);
        // The counter is far from full, so that adding 1 neither fails nor blocks.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    /// Whether the signal is raised.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Relaxed)
    }
}

impl AsFd for StopSignal {
    /// Is readable once the signal was raised.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
