// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The process that saves states and reads them again, as the keeper has it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use rustix::net::{RecvFlags, SendFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use thiserror::Error;

use crate::link::socket::Socket;
use crate::saving::process::{Order, Outcome};
use crate::spawner::Spawner;
use crate::spawner::child::Child;

/// Why an order was not carried out.
#[derive(Debug, Error)]
pub enum Failure {
    /// Somebody has killed the process, which says nothing of the state.
    #[error("the process that does it has ended")]
    Ended,
    /// It says so.
    #[error("{0}")]
    Said(String),
}

/// A process, which ends with this.
pub struct Saver {
    child: Child,
    link: Socket,
}

impl Saver {
    /// Starts one.
    ///
    /// # Errors
    ///
    /// When the host has no process for it.
    pub fn start(spawner: &Spawner) -> io::Result<Self> {
        let (link, theirs) = Socket::pair()?;
        Ok(Self { child: spawner.save(theirs.as_fd())?, link })
    }

    /// Has a guest's state written, and returns where it is to come from.
    ///
    /// # Errors
    ///
    /// When the process has ended, or there is no descriptor left.
    pub fn save(&self, guest: String) -> io::Result<Rc<File>> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        self.order(&Order::Save { guest }, Some(reader))?;
        Ok(Rc::new(writer.into()))
    }

    /// Has a guest's state read, and returns where it will come out.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn load(&self, guest: String) -> io::Result<Rc<File>> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        self.order(&Order::Load { guest }, Some(writer))?;
        Ok(Rc::new(reader.into()))
    }

    /// Has a guest's state removed.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn remove(&self, guest: String) -> io::Result<()> {
        self.order(&Order::Remove { guest }, None)
    }

    fn order(&self, order: &Order, file: Option<OwnedFd>) -> io::Result<()> {
        let files: Vec<_> = file.iter().map(AsFd::as_fd).collect();
        self.link.send(order, &files, SendFlags::DONTWAIT)
    }

    /// What has come of the last order, as soon as that is known.
    #[must_use]
    pub fn outcome(&self) -> Option<Result<u64, Failure>> {
        match self.link.receive(RecvFlags::DONTWAIT) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => Some(Err(Failure::Said(error.to_string()))),
            Ok(None) => Some(Err(Failure::Ended)),
            Ok(Some((Outcome::Done(pages), _))) => Some(Ok(pages)),
            Ok(Some((Outcome::Failed(why), _))) => Some(Err(Failure::Said(why))),
        }
    }

    /// What to wait for.
    #[must_use]
    pub fn socket(&self) -> RawFd {
        self.link.as_fd().as_raw_fd()
    }

    /// Has it end, if it has not.
    pub fn kill(&self) {
        self.child.kill();
    }

    /// Whether it has ended, so that it can be let go of.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        !matches!(self.child.status(), Ok(None))
    }
}
