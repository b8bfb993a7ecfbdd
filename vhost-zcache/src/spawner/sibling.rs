// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Executes this program anew, as a process that has the same parent as this one.

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// What to execute. All of it is made beforehand: nothing may be allocated between the two system
/// calls.
pub struct Program {
    arguments: Vec<CString>,
    /// The descriptor that it gets.
    given: RawFd,
}

impl Program {
    /// This program with these arguments, the name first.
    #[must_use]
    pub fn new(arguments: &[CString]) -> Self {
        Self { arguments: arguments.to_vec(), given: -1 }
    }

    /// Gives it a descriptor, whose number becomes its last argument.
    pub fn give(&mut self, descriptor: RawFd) {
        self.given = descriptor;
        self.arguments.push(c"--worker-link".into());
        self.arguments.extend(CString::new(descriptor.to_string()));
    }
}

/// Starts a process that executes the program; what it is known by.
///
/// # Errors
///
/// When the host has no process for it.
pub fn start(program: &Program) -> io::Result<OwnedFd> {
    let mut pointers: Vec<*const c_char> = program.arguments.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(ptr::null());
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_PARENT | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: without CLONE_VM the new process has a copy of all memory, the stack included. It is
    // of a process with one thread, so that nobody else can have held a lock; and it does nothing
    // but make the two calls below. The arguments behind the third one differ between machines,
    // and are for flags that are not set.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) };
    match pid {
        0 => execute(program, &pointers),
        // SAFETY: the kernel has made the descriptor for the new process, and nobody else has it.
        1.. => Ok(unsafe { OwnedFd::from_raw_fd(pidfd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Becomes the program.
fn execute(program: &Program, arguments: &[*const c_char]) -> ! {
    const SELF: &CStr = c"/proc/self/exe";
    // SAFETY: changes a flag of a descriptor, or fails.
    unsafe { libc::fcntl(program.given, libc::F_SETFD, 0) };
    // SAFETY: path and arguments end with zeros, and the list with a null pointer; all live on.
    unsafe { libc::execv(SELF.as_ptr(), arguments.as_ptr()) };
    let message = b"vhost-zcache: A worker cannot be executed\n";
    // SAFETY: writes a constant to a descriptor.
    unsafe { libc::write(libc::STDERR_FILENO, message.as_ptr().cast(), message.len()) };
    // SAFETY: ends the process without what belongs to the one it is a copy of.
    unsafe { libc::_exit(127) }
}
