// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A process that the spawner has started, as the keeper has it: its child.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid};

/// A process. It stays known, if it has ended, until this is dropped.
#[derive(Debug)]
pub struct Child {
    number: u32,
    file: OwnedFd,
}

impl Child {
    pub(super) fn new(number: u32, file: OwnedFd) -> Self {
        Self { number, file }
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Ends it.
    pub fn kill(&self) {
        // It fails when the process has ended.
        let _ = pidfd_send_signal(&self.file, Signal::KILL);
    }

    /// How it has ended, if it has.
    ///
    /// # Errors
    ///
    /// When nobody can say.
    pub fn status(&self) -> io::Result<Option<ExitStatus>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::PidFd(self.as_fd()), options)?.map(|status| exit_status(&status)))
    }
}

/// The same as `wait` would have it.
fn exit_status(status: &WaitIdStatus) -> ExitStatus {
    let code = status.exit_status().map(|code| (code & 0xff) << 8);
    ExitStatus::from_raw(code.or_else(|| status.terminating_signal()).unwrap_or(0))
}

impl AsFd for Child {
    /// Becomes readable when the process ends.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Lets go of the number of a process that has ended. One that has not ends with the keeper.
        let _ = waitid(WaitId::PidFd(self.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    fn end_of(script: &str) -> ExitStatus {
        let mut process = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let child = Child::new(process.id(), pidfd_open(Pid::from_child(&process), PidfdFlags::empty()).unwrap());
        poll(&mut [PollFd::new(&child, PollFlags::IN)], None).unwrap();
        let status = child.status().unwrap();
        // It is known as long as nobody has waited for it.
        assert_eq!(Some(process.wait().unwrap()), status);
        status.unwrap()
    }

    #[test]
    fn ends_are_what_they_are() {
        assert_eq!(end_of("exit 3").code(), Some(3));
        assert_eq!(end_of("exit 0").code(), Some(0));
        assert_eq!(end_of("kill -9 $$").signal(), Some(9));
        assert_eq!(end_of("kill -9 $$").code(), None);
    }
}
