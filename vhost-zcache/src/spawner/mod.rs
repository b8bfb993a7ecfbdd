// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A small process that starts workers for the keeper.
//!
//! The keeper hears strangers, so it must not be able to execute anything; and what it executed
//! would have its filter of system calls, which would have to allow all that a worker does. So a
//! process that hears nobody but the keeper does it ([`process`]). A worker is the keeper's child
//! all the same ([`sibling`]), so the keeper sees its end, and it dies with the keeper.

pub mod process;
pub mod sibling;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid};
use serde::{Deserialize, Serialize};

use crate::link::socket::Socket;

/// How long the spawner may take. It is a process without anything to do.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks for a worker, which is to have the file that comes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Request {
    /// Which one; the answer says so again.
    worker: u64,
}

/// It was started; what its process is known by comes along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Answer {
    worker: u64,
    /// Why it was not, if it was not.
    error: Option<i32>,
}

/// The spawner, as the keeper has it.
#[derive(Debug)]
pub struct Spawner {
    link: Socket,
}

impl Spawner {
    /// Starts the spawner, with the command line that workers will have. To be called while the
    /// process has one thread.
    ///
    /// # Errors
    ///
    /// When the host has no process for it.
    pub fn launch(arguments: &[OsString]) -> io::Result<Self> {
        let (link, theirs) = Socket::pair()?;
        fcntl_setfd(&theirs, FdFlags::empty())?;
        // Not waited for: it ends after the keeper, or is gone until the keeper ends.
        Command::new("/proc/self/exe")
            .arg0("vhost-zcache")
            .args(arguments)
            .arg("--spawner-link")
            .arg(theirs.as_fd().as_raw_fd().to_string())
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Self { link })
    }

    /// Starts a worker, which gets `link`.
    ///
    /// # Errors
    ///
    /// When the host has no process for it; `BrokenPipe` when there is no spawner any more.
    pub fn start(&self, worker: u64, link: &Socket) -> io::Result<Child> {
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the process that starts workers was killed");
        self.link.send(&Request { worker }, &[link.as_fd()], SendFlags::DONTWAIT).map_err(|error| {
            match error.kind() {
                io::ErrorKind::BrokenPipe => gone(),
                _ => error,
            }
        })?;
        loop {
            let mut answer = [PollFd::new(&self.link, PollFlags::IN)];
            let patience = Timespec::try_from(PATIENCE).ok();
            if retry_on_intr(|| poll(&mut answer, patience.as_ref()))? == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let Some((answer, files)) = self.link.receive::<Answer>(RecvFlags::DONTWAIT)? else { return Err(gone()) };
            let child = files.into_iter().next().map(|file| Child(file.into()));
            if answer.worker != worker {
                // One that was given up, and will find its link closed.
                continue;
            }
            let error = answer.error.unwrap_or(Errno::CHILD.raw_os_error());
            return child.ok_or_else(|| io::Error::from_raw_os_error(error));
        }
    }
}

/// A worker's process.
#[derive(Debug)]
pub struct Child(OwnedFd);

impl Child {
    /// Ends it.
    pub fn kill(&self) {
        // It fails when the process has ended.
        let _ = pidfd_send_signal(&self.0, Signal::KILL);
    }

    /// How it has ended, if it has.
    ///
    /// # Errors
    ///
    /// When nobody can say.
    pub fn status(&self) -> io::Result<Option<WaitIdStatus>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::PidFd(self.as_fd()), options)?)
    }
}

impl AsFd for Child {
    /// Becomes readable when the process ends.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Lets go of the number of a process that has ended. One that has not ends with the keeper.
        let _ = waitid(WaitId::PidFd(self.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
}
