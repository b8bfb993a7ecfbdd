// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Threads that do nothing, by whose end the keeper sees at once that the process was killed.
//!
//! The kernel closes a process's files when it has unmapped all its memory, which takes long. But a
//! thread with a table of files of its own has these closed as soon as it ends itself; only the
//! last thread of all has to unmap first. So one of two is always early.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::mpsc::channel;
use std::thread;

use libc::c_uint;

use crate::sandbox;
use crate::sandbox::rule::Kind;

/// Sentinels of a process.
pub const SENTINELS: usize = 2;

/// Starts a sentinel that holds a file and no other. To be called while few files are open.
///
/// # Errors
///
/// When the process cannot have the thread, or the system does not separate files.
pub fn post(file: OwnedFd) -> io::Result<()> {
    let (ready, is_ready) = channel();
    let number = file.as_raw_fd();
    thread::Builder::new().name("sentinel".into()).spawn(move || {
        sandbox::confine_thread(Kind::Sentinel);
        let alone = keep_only(number);
        let is_alone = alone.is_ok();
        let _ = ready.send(alone);
        if is_alone {
            loop {
                thread::park();
            }
        }
    })?;
    // From here on the file is the sentinel's only.
    is_ready.recv().map_err(io::Error::other)?
}

/// Gives this thread a table of files of its own, with one file in it.
fn keep_only(number: RawFd) -> io::Result<()> {
    let close = |first: RawFd, last: RawFd, flags: c_uint| {
        // SAFETY: no file that anybody knows of is closed: the thread's table is its own from the
        // first of these calls on, it owns nothing in it, and never opens, closes or uses a file
        // again.
        match unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // There are files in front, as those of the standard are always open.
    close(0, number - 1, libc::CLOSE_RANGE_UNSHARE)?;
    close(number + 1, RawFd::MAX, libc::CLOSE_RANGE_UNSHARE)
}
