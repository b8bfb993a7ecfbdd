// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the keeper before has left.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use log::error;
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::net::{Shutdown, shutdown};

use super::manifest::{Manifest, ManifestError};
use super::note::{DaemonNote, GuestNote};
use super::{ARENA, LEDGER, MANIFEST, PASSED, connection, door};
use crate::error::Error;
use crate::keeper::numbers::Numbers;

/// How long the worker of the keeper before may take to end. It ends with its keeper, but the
/// kernel takes its memory apart first.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time between two looks.
const LOOKS: Duration = Duration::from_millis(2);

/// What is left of one guest.
pub struct Left {
    /// What is known of it.
    pub note: GuestNote,
    /// Nobody knows how far the last message was answered.
    pub touched: bool,
    /// The socket, if there is a connection.
    pub socket: Option<UnixStream>,
}

/// Files with their names, and what they are for.
pub struct Found {
    /// Where it says so.
    pub manifest: Manifest,
    /// What is known of the daemon.
    pub daemon: DaemonNote,
    /// The ledger.
    pub ledger: File,
    /// The store's memory, if there was a store.
    pub arena: Option<Rc<File>>,
    /// What VMMs have passed.
    pub passed: BTreeMap<u64, Rc<File>>,
    /// Sockets.
    others: BTreeMap<String, OwnedFd>,
}

impl Found {
    /// Looks what the files are for. `None` if there are none.
    ///
    /// # Errors
    ///
    /// When they are of another version, so that they are left for a program that knows it.
    pub fn look(mut files: BTreeMap<String, OwnedFd>) -> Result<Option<Self>, Error> {
        if files.is_empty() {
            return Ok(None);
        }
        let manifest = match files.remove(MANIFEST).map(|manifest| Manifest::open(manifest.into())) {
            Some(Ok(manifest)) => Some(manifest),
            Some(Err(error @ ManifestError::Version(..))) => return Err(Error::Manifest(error)),
            Some(Err(ManifestError::Damaged)) | None => None,
        };
        let found = manifest.and_then(|manifest| Some((manifest.daemon()?, files.remove(LEDGER)?, manifest)));
        let Some((daemon, ledger, manifest)) = found else {
            error!("What the keeper before has left is not complete: its guests' pages are lost");
            // Nobody else is at these sockets, whoever has them open. (Other files are none.)
            for file in files.values() {
                let _ = shutdown(file, Shutdown::Both);
            }
            return Ok(None);
        };
        let arena = files.remove(ARENA).map(|file| Rc::new(file.into()));
        let mut passed = BTreeMap::new();
        let mut others = BTreeMap::new();
        for (name, file) in files {
            match name.strip_prefix(PASSED).and_then(|number| number.parse().ok()) {
                Some(number) => drop(passed.insert(number, Rc::new(File::from(file)))),
                None => drop(others.insert(name, file)),
            }
        }
        Ok(Some(Self { manifest, daemon, ledger: ledger.into(), arena, passed, others }))
    }

    /// Waits until the worker of the keeper before does nothing any more. It has the ledger locked
    /// for as long as it can.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn wait_for_worker(&self) -> Result<(), Error> {
        let start = Instant::now();
        while let Err(error) = fcntl_lock(&self.ledger, FlockOperation::NonBlockingLockExclusive) {
            if start.elapsed() > PATIENCE {
                return Err(Error::Worker(error.into()));
            }
            thread::sleep(LOOKS);
        }
        fcntl_lock(&self.ledger, FlockOperation::Unlock).map_err(|error| Error::Worker(error.into()))
    }

    /// Files of connections.
    #[must_use]
    pub fn of_connections(&self) -> usize {
        self.passed.len() + self.others.len()
    }

    /// A guest's listening socket.
    pub fn door(&mut self, guest: &str) -> Option<UnixListener> {
        self.others.remove(&door(guest)).map(UnixListener::from)
    }

    /// What is left of a guest.
    pub fn guest(&mut self, guest: &str) -> Option<Left> {
        let number = self.number(guest)?;
        let (note, touched) = self.manifest.guest(number)?;
        let socket = self.others.remove(&connection(guest, note.lives)).map(UnixStream::from);
        Some(Left { note, touched, socket })
    }

    /// The number that a guest had.
    #[must_use]
    pub fn number(&self, guest: &str) -> Option<usize> {
        self.daemon.numbers.of(guest)
    }

    /// The name that the socket of a guest's connection is kept under, if there is one.
    #[must_use]
    pub fn connection(&self, guest: &str) -> Option<String> {
        let (note, _) = self.manifest.guest(self.number(guest)?)?;
        Some(connection(guest, note.lives)).filter(|name| self.others.contains_key(name))
    }

    /// Names of files that are of none of these guests.
    pub fn stale<'a>(&'a self, guests: &'a Numbers) -> impl Iterator<Item = &'a str> {
        let known = |file: &&String| {
            guests.iter().any(|(_, guest)| **file == door(guest) || self.connection(guest).as_ref() == Some(*file))
        };
        self.others.keys().filter(move |file| !known(file)).map(String::as_str)
    }
}
