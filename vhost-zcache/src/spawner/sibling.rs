// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Executes a program as a process that has the same parent as this one.

use std::ffi::{CStr, CString, c_char, c_int};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::{fs::File, ptr};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use rustix::pipe::{PipeFlags, pipe_with};

/// What to execute. All of it is made beforehand: nothing may be allocated between the system calls
/// of the new process.
pub struct Execution<'a> {
    /// The program.
    pub program: BorrowedFd<'a>,
    /// Its arguments, the name first.
    pub arguments: Vec<CString>,
    /// Its standard input, if it is not this process's.
    pub input: Option<BorrowedFd<'a>>,
    /// Descriptors that it gets by their numbers.
    pub given: Vec<BorrowedFd<'a>>,
}

/// A process that was started.
pub struct Sibling {
    /// Its number.
    pub number: u32,
    /// What it is known by.
    pub file: OwnedFd,
}

/// Why none was.
pub struct Failure {
    /// Why.
    pub error: io::Error,
    /// The process that was there for a moment, and has ended.
    pub ended: Option<OwnedFd>,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self { error, ended: None }
    }
}

/// Starts a process that executes the program. To be called by a process with one thread.
///
/// # Errors
///
/// When the program cannot be executed, or the host has no process for it.
pub fn start(execution: &Execution<'_>) -> Result<Sibling, Failure> {
    let mut arguments: Vec<*const c_char> = execution.arguments.iter().map(|argument| argument.as_ptr()).collect();
    arguments.push(ptr::null());
    // Closed by the kernel when the program is executed.
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?;
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_PARENT | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: without CLONE_VM the new process has a copy of all memory, the stack included. It is
    // of a process with one thread, so that nobody else can have held a lock; and it does nothing
    // but make the calls below. The arguments behind the third one differ between machines, and are
    // for flags that are not set.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) };
    let number = match pid {
        0 => execute(execution, &arguments, writer.as_raw_fd()),
        1.. => u32::try_from(pid).unwrap_or(0),
        _ => return Err(io::Error::last_os_error().into()),
    };
    // SAFETY: the kernel has made the descriptor for the new process, and nobody else has it.
    let file = unsafe { OwnedFd::from_raw_fd(pidfd) };
    drop(writer);
    let mut error = [0; 4];
    if File::from(reader).read_exact(&mut error).is_err() {
        // It has said nothing, as it is the program now.
        return Ok(Sibling { number, file });
    }
    // Whoever hears of it finds it ended.
    retry_on_intr(|| poll(&mut [PollFd::new(&file, PollFlags::IN)], None)).map_err(io::Error::from)?;
    Err(Failure { error: io::Error::from_raw_os_error(i32::from_ne_bytes(error)), ended: Some(file) })
}

/// Becomes the program.
fn execute(execution: &Execution<'_>, arguments: &[*const c_char], says: RawFd) -> ! {
    const ITSELF: &CStr = c"";
    for given in &execution.given {
        // SAFETY: changes a flag of a descriptor, or fails.
        unsafe { libc::fcntl(given.as_raw_fd(), libc::F_SETFD, 0) };
    }
    if let Some(input) = &execution.input {
        // SAFETY: nothing in this process has standard input for something else.
        unsafe { libc::dup2(input.as_raw_fd(), libc::STDIN_FILENO) };
    }
    // SAFETY: the C library's list, of a process with one thread.
    let environment = unsafe { environ };
    // SAFETY: path and arguments end with zeros, and the lists with a null pointer; all live on.
    unsafe {
        libc::execveat(
            execution.program.as_fd().as_raw_fd(),
            ITSELF.as_ptr(),
            arguments.as_ptr().cast(),
            environment.cast(),
            libc::AT_EMPTY_PATH,
        )
    };
    let error = io::Error::last_os_error().raw_os_error().unwrap_or(libc::ENOEXEC).to_ne_bytes();
    // SAFETY: writes what is on the stack.
    unsafe { libc::write(says, error.as_ptr().cast(), error.len()) };
    // SAFETY: ends the process without what belongs to the one it is a copy of.
    unsafe { libc::_exit(127) }
}

unsafe extern "C" {
    /// The environment, which the program gets as it is.
    static environ: *const *const c_char;
}
