// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The configuration becomes another: it is read again, or the operator wants keys of it to be
//! others. A process that may open files and look users up ([`crate::config::reader`]) finds out
//! what that means; what it says is taken as a whole or not at all.
//!
//! One thing is under way at a time: a file that is being read, or settings that a worker is coming
//! to go by.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::Rc;

use rustix::net::{RecvFlags, SendFlags};

use super::guest::Guest;
use crate::admin::wish::Alteration;
use crate::config::Config;
use crate::config::reader::{FromReader, Order, ToReader};
use crate::link::parcel;
use crate::link::socket::Socket;
use crate::spawner::Spawner;
use crate::spawner::child::Child;

/// Beats that reading may take. Whoever knows the names of users may be far away.
const PATIENCE: u32 = 240;

/// What was read, to be taken or not. Sockets that were made for it are removed if it is not.
pub struct Proposal {
    /// The configuration.
    pub config: Config,
    /// Sockets of guests that come, with their locks.
    pub sockets: BTreeMap<String, Vec<File>>,
    /// Of what it was made.
    pub cause: Cause,
    reader: Rc<Socket>,
}

/// Why the configuration is to be another.
#[derive(Debug, Clone)]
pub enum Cause {
    /// The file may be another.
    File {
        /// Whether VMMs of guests that go may be sent away.
        disconnect: bool,
    },
    /// The operator wants it.
    Operator(Alteration),
}

impl Cause {
    /// Whether VMMs of guests that go may be sent away.
    #[must_use]
    pub const fn disconnects(&self) -> bool {
        match self {
            Self::File { disconnect } | Self::Operator(Alteration::Remove { disconnect, .. }) => *disconnect,
            Self::Operator(_) => false,
        }
    }
}

impl Proposal {
    /// Has the sockets stay.
    pub fn take(&self) {
        // A reader that is gone cannot remove them.
        let _ = self.reader.send(&ToReader::Taken, &[], SendFlags::DONTWAIT);
    }
}

struct Reading {
    link: Rc<Socket>,
    sockets: BTreeMap<String, Vec<File>>,
    cause: Cause,
    beats: u32,
}

enum Stage {
    Idle,
    Reading(Reading),
    /// The worker comes to go by what was taken.
    Settling {
        /// Guests that have gone, until nobody does anything for them.
        _gone: Vec<Guest>,
        /// What has changed, in words.
        summary: String,
        /// Number of the last worker that was started before.
        worker: u64,
    },
}

/// How far it is.
pub struct Reload {
    /// Whether there is a file.
    has_file: bool,
    stage: Stage,
    /// The file is to be read once more.
    again: bool,
    /// Links that nobody reads any more, as long as they are waited on.
    closed: Vec<Rc<Socket>>,
    /// Readers that may not have ended.
    readers: Vec<Child>,
}

impl Reload {
    /// Nothing is under way.
    #[must_use]
    pub fn new(has_file: bool) -> Self {
        Self { has_file, stage: Stage::Idle, again: false, closed: Vec::new(), readers: Vec::new() }
    }

    /// Has it found out what the configuration becomes.
    ///
    /// # Errors
    ///
    /// Why nothing can come of it.
    pub fn begin(&mut self, spawner: &Spawner, current: &Config, cause: Cause) -> Result<(), String> {
        if !self.has_file && matches!(cause, Cause::File { .. }) {
            return Err("there is no --config to read again".into());
        }
        if !matches!(self.stage, Stage::Idle) {
            return Err("one is under way".into());
        }
        let start = || -> io::Result<(Child, Socket)> {
            let alteration = match &cause {
                Cause::File { .. } => None,
                Cause::Operator(alteration) => Some(alteration.clone()),
            };
            let order = parcel::pack(&Order { current: current.clone(), alteration })?;
            let (link, theirs) = Socket::pair()?;
            link.send(&ToReader::Order, &[order.as_fd()], SendFlags::DONTWAIT)?;
            Ok((spawner.read(theirs.as_fd())?, link))
        };
        let (reader, link) = start().map_err(|error| format!("there is no process to read it: {error}"))?;
        self.readers.push(reader);
        let link = Rc::new(link);
        self.stage = Stage::Reading(Reading { link, sockets: BTreeMap::new(), cause, beats: 0 });
        Ok(())
    }

    /// Whether there is a file that can be read again.
    #[must_use]
    pub const fn has_file(&self) -> bool {
        self.has_file
    }

    /// Puts reading off while something is under way; whether that is so.
    pub fn is_put_off(&mut self) -> bool {
        self.again = !matches!(self.stage, Stage::Idle);
        self.again
    }

    /// Whether reading was put off, once.
    pub fn was_put_off(&mut self) -> bool {
        matches!(self.stage, Stage::Idle) && mem::take(&mut self.again)
    }

    /// What is to be waited for.
    #[must_use]
    pub fn watched(&self) -> Option<RawFd> {
        match &self.stage {
            Stage::Reading(reading) => Some(reading.link.as_fd().as_raw_fd()),
            Stage::Idle | Stage::Settling { .. } => None,
        }
    }

    /// Closes what nobody waits on any more.
    pub fn close(&mut self) {
        self.closed.clear();
    }

    /// What the reader says, if it has come to an end: what was read, or why nothing was, in lines.
    pub fn hear(&mut self) -> Option<Result<Proposal, Vec<String>>> {
        loop {
            let Stage::Reading(reading) = &mut self.stage else { return None };
            let read = match reading.link.receive::<FromReader>(RecvFlags::DONTWAIT) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) => Err(vec![format!("it is not understood what was read: {error}")]),
                Ok(None) => Err(vec!["the process that reads it has ended".into()]),
                Ok(Some((FromReader::Refused(lines), _))) => Err(lines),
                Ok(Some((FromReader::Socket { guest }, files))) => {
                    reading.sockets.insert(guest, files);
                    continue;
                }
                Ok(Some((FromReader::Config, files))) => {
                    parcel::unpack(files).map_err(|error| vec![format!("it is not understood what was read: {error}")])
                }
            };
            return self.give_up().map(|reading| {
                let Reading { link: reader, sockets, cause, .. } = reading;
                read.map(|config| Proposal { config, sockets, cause, reader })
            });
        }
    }

    fn give_up(&mut self) -> Option<Reading> {
        match mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Reading(reading) => {
                self.closed.push(Rc::clone(&reading.link));
                Some(reading)
            }
            other => {
                self.stage = other;
                None
            }
        }
    }

    /// A beat has passed. Whether reading takes too long, so that it was given up.
    #[must_use]
    pub fn beat(&mut self) -> bool {
        self.readers.retain(|reader| matches!(reader.status(), Ok(None)));
        let Stage::Reading(reading) = &mut self.stage else { return false };
        reading.beats += 1;
        if reading.beats <= PATIENCE {
            return false;
        }
        self.readers.iter().for_each(Child::kill);
        self.give_up().is_some()
    }

    /// Something was taken, and the worker of this number, if it is there, is told of it.
    pub fn taken(&mut self, gone: Vec<Guest>, summary: String, worker: u64) {
        self.stage = Stage::Settling { _gone: gone, summary, worker };
    }

    /// The worker goes by what it was told last; what has changed, if that was not known yet.
    pub fn settled(&mut self) -> Option<String> {
        match mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Settling { summary, .. } => Some(summary),
            other => {
                self.stage = other;
                None
            }
        }
    }

    /// The worker of this number is ready, and goes by what it was told at its start; as
    /// [`Reload::settled`] if that was the last.
    pub fn ready(&mut self, number: u64) -> Option<String> {
        let is_last = matches!(&self.stage, Stage::Settling { worker, .. } if number > *worker);
        is_last.then(|| self.settled()).flatten()
    }
}
