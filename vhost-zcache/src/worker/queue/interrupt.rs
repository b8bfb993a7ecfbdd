// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Gets a thread out of a system call on a descriptor of the VMM's.
//!
//! Such a call is made only when the descriptor was seen to be ready. But the VMM has the same open
//! file, and can fill it or drain it at any moment, and whether it blocks is the VMM's choice too.
//! So whoever stops a thread sends it a signal that does nothing but interrupt the call, again and
//! again until the thread has noticed, as the signal may come just before the call.
//!
//! Any other system call of the thread may be interrupted as well, and is then made again: by the
//! standard library, or by whoever made it.

use std::ffi::{c_int, c_void};
use std::io;
use std::sync::OnceLock;
use std::thread::JoinHandle;

use libc::siginfo_t;
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
