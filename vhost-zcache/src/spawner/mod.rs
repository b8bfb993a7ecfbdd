// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A small process that starts processes for the keeper.
//!
//! The keeper hears strangers, so it must not be able to execute or open anything; and what it
//! executed would have its filter of system calls, which would have to allow all that a worker
//! does. So a process that hears nobody but the keeper does it ([`process`]), and looks for it
//! whether a worker is [`exiting`]. It opens the [`programs`] as well, so that whoever has the
//! keeper can have nothing run but what the operator has named. What it starts is the keeper's
//! child all the same ([`sibling`]), which sees its end.

pub mod child;
pub mod exiting;
pub mod process;
pub mod programs;
pub mod sibling;

use std::cell::Cell;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags};
use serde::{Deserialize, Serialize};

use self::child::Child;
use crate::config::common::Common;
use crate::link::socket::Socket;

/// How long the spawner may take. It is a process without anything to do.
const PATIENCE: Duration = Duration::from_secs(1);

/// Of which program a worker is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// The one that is kept: the daemon's own at first.
    Kept,
    /// The one that has the path of newer ones now.
    Newest,
}

/// What the spawner is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Wish {
    /// A worker. It is to have the files that come along, the link first.
    Worker(Program),
    /// The newest program that was opened is kept for the workers to come.
    Keep,
    /// That somebody writes the report in the file that comes along to the directory for reports.
    Report,
    /// A process that reads the configuration again. It is to have the link that comes along.
    Reader,
    /// A process that saves what guests have. It is to have the link that comes along.
    Saver,
    /// To look whether a process is about to end.
    Look {
        /// Its number.
        process: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Request {
    /// The answer has it as well.
    number: u64,
    wish: Wish,
}

/// What has become of a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Outcome {
    /// The process was started; what it is known by comes along.
    Started {
        /// Its number.
        process: u32,
    },
    /// It was not, with this error. If a process has ended for it, what it is known by comes along.
    Failed(Option<i32>),
    /// The program is kept.
    Kept,
    /// The process is about to end, or not.
    Exiting(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Answer {
    number: u64,
    outcome: Outcome,
}

/// The spawner, as the keeper has it.
#[derive(Debug)]
pub struct Spawner {
    link: Socket,
    /// Requests so far.
    requests: Cell<u64>,
}

impl Spawner {
    /// Starts the spawner, with the command line that workers will have, and what they have to
    /// know. To be called while the process has one thread.
    ///
    /// # Errors
    ///
    /// When the host has no process for it.
    pub fn launch(arguments: &[OsString], common: &Common) -> io::Result<Self> {
        let (link, theirs) = Socket::pair()?;
        fcntl_setfd(&theirs, FdFlags::empty())?;
        // Not waited for: it ends after the keeper, or is gone until the keeper ends.
        Command::new("/proc/self/exe")
            .arg0("vhost-zcache")
            .args(arguments)
            .arg("--common")
            .arg(serde_json::to_string(common)?)
            .arg("--spawner-link")
            .arg(theirs.as_fd().as_raw_fd().to_string())
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Self { link, requests: Cell::new(0) })
    }

    /// Starts a worker, which gets these files, the link first.
    ///
    /// # Errors
    ///
    /// When the program cannot be executed, or the host has no process for it; `BrokenPipe` when
    /// there is no spawner any more.
    pub fn start(&self, program: Program, files: &[BorrowedFd<'_>]) -> io::Result<Child> {
        started(self.ask(Wish::Worker(program), files)?)
    }

    /// Makes the newest program that was started the one that is kept.
    ///
    /// # Errors
    ///
    /// When there is no spawner any more.
    pub fn keep(&self) -> io::Result<()> {
        self.ask(Wish::Keep, &[]).map(drop)
    }

    /// Has a report written, which is in a file.
    ///
    /// # Errors
    ///
    /// As for a worker.
    pub fn report(&self, file: BorrowedFd<'_>) -> io::Result<Child> {
        started(self.ask(Wish::Report, &[file])?)
    }

    /// Starts a process that reads the configuration again, and gets a link.
    ///
    /// # Errors
    ///
    /// As for a worker.
    pub fn read(&self, link: BorrowedFd<'_>) -> io::Result<Child> {
        started(self.ask(Wish::Reader, &[link])?)
    }

    /// Starts a process that saves what guests have, and gets a link.
    ///
    /// # Errors
    ///
    /// As for a worker.
    pub fn save(&self, link: BorrowedFd<'_>) -> io::Result<Child> {
        started(self.ask(Wish::Saver, &[link])?)
    }

    /// Whether a child does nothing any more, although it may not have ended. `false` if that
    /// cannot be told.
    #[must_use]
    pub fn is_exiting(&self, child: &Child) -> bool {
        let answer = self.ask(Wish::Look { process: child.number() }, &[]);
        matches!(answer, Ok((Outcome::Exiting(true), _)))
    }

    fn ask(&self, wish: Wish, files: &[BorrowedFd<'_>]) -> io::Result<(Outcome, Option<OwnedFd>)> {
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the process that starts workers was killed");
        let is_gone =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
        let number = self.requests.get() + 1;
        self.requests.set(number);
        self.link
            .send(&Request { number, wish }, files, SendFlags::DONTWAIT)
            .map_err(|error| if is_gone(&error) { gone() } else { error })?;
        loop {
            let mut answer = [PollFd::new(&self.link, PollFlags::IN)];
            let patience = Timespec::try_from(PATIENCE).ok();
            if retry_on_intr(|| poll(&mut answer, patience.as_ref()))? == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let received = match self.link.receive::<Answer>(RecvFlags::DONTWAIT) {
                Err(error) if is_gone(&error) => None,
                received => received?,
            };
            let Some((answer, files)) = received else { return Err(gone()) };
            // Another one is about what was given up; a worker will find its link closed.
            if answer.number == number {
                return Ok((answer.outcome, files.into_iter().next().map(OwnedFd::from)));
            }
        }
    }
}

fn started((outcome, file): (Outcome, Option<OwnedFd>)) -> io::Result<Child> {
    match (outcome, file) {
        (Outcome::Started { process }, Some(file)) => Ok(Child::new(process, file)),
        (Outcome::Failed(error), file) => {
            // It has ended, and its number is let go of.
            drop(file.map(|file| Child::new(0, file)));
            Err(io::Error::from_raw_os_error(error.unwrap_or(Errno::CHILD.raw_os_error())))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
