// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Gets a reactor out of a system call on a descriptor of a VMM's.
//!
//! Such a call is made only when the descriptor was seen to be ready. But the VMM has the same open
//! file, and can fill it or drain it at any moment, and whether it blocks is the VMM's choice too.
//! So a reactor says when it is in such a call, and whoever waits for it, or looks after it, sends
//! it a signal that does nothing but interrupt the call; again and again, as the signal may come
//! just before the call.
//!
//! Any other system call of the thread may be interrupted as well, and is then made again: by the
//! standard library, or by whoever made it.

use std::ffi::{c_int, c_void};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use libc::siginfo_t;
use rustix::io::Errno;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

/// Does nothing, but unlike an ignored signal it interrupts.
extern "C" fn nothing(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}

/// Prepares this process for interrupts, once. Without it an interrupt would end the process.
///
/// # Errors
///
/// When the signal's handler cannot be installed.
pub fn prepare() -> io::Result<()> {
    static PREPARED: OnceLock<Result<(), vmm_sys_util::errno::Error>> = OnceLock::new();
    // The handler is installed without SA_RESTART.
    let prepared = PREPARED.get_or_init(|| register_signal_handler(SIGRTMIN(), nothing));
    prepared.map_err(Into::into)
}

/// Interrupts a thread, once.
pub fn interrupt<T>(thread: &JoinHandle<T>) {
    // A thread that has just ended needs no interrupt.
    let _ = thread.kill(SIGRTMIN());
}

/// A system call that a VMM could block.
#[derive(Debug, Default)]
pub struct PeerCall(AtomicBool);

/// It was interrupted, and so did block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocked;

impl PeerCall {
    /// Makes such a call; its error is nobody's concern. A call is only interrupted while it waits,
    /// and so is not made again.
    ///
    /// # Errors
    ///
    /// [`Blocked`].
    pub fn make<T>(&self, call: impl FnOnce() -> Result<T, Errno>) -> Result<Result<T, Errno>, Blocked> {
        self.0.store(true, Ordering::Relaxed);
        let result = call();
        self.0.store(false, Ordering::Relaxed);
        if matches!(result, Err(Errno::INTR)) { Err(Blocked) } else { Ok(result) }
    }

    /// Interrupts the call, if `thread` is in one.
    pub fn interrupt<T>(&self, thread: &JoinHandle<T>) {
        if self.0.load(Ordering::Relaxed) {
            interrupt(thread);
        }
    }
}
