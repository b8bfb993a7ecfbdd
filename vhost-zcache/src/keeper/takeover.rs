// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a keeper begins: with nothing, or where the one before has ended.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use log::info;

use super::handover::found::Found;
use super::handover::manager::Manager;
use super::handover::manifest::Manifest;
use super::handover::note::DaemonNote;
use super::handover::shelf::Shelf;
use super::handover::{self, Handover};
use crate::args::{Args, FdGuest, PathGuest};
use crate::error::Error;
use crate::frontend::listener::{BoundSocket, Endpoint, is_socket};
use crate::ledger::Ledger;

/// What all workers write to, and what of it the keeper before has left.
pub struct Books {
    /// The ledger.
    pub ledger: Ledger,
    /// Its file.
    pub file: File,
    /// The manifest, unless it is to be another one.
    manifest: Option<Manifest>,
}

/// The ledger, with what of these guests is in the one before. The last worker that wrote to that
/// has ended when this returns.
///
/// # Errors
///
/// [`Error`], one line for the user.
pub fn books(found: Option<&Found>, names: &[String], queues: u16) -> Result<Books, Error> {
    let Some(found) = found else {
        let (ledger, file) = Ledger::create(names.len(), queues).map_err(Error::Descriptors)?;
        return Ok(Books { ledger, file, manifest: None });
    };
    if found.daemon.queues != queues {
        return Err(Error::Queues(found.daemon.queues, queues));
    }
    found.wait_for_worker()?;
    let before = Ledger::open(&found.ledger).map_err(Error::Link)?;
    info!("Going on where the daemon before has ended");
    if found.daemon.names == names {
        let file = found.ledger.try_clone().map_err(Error::Descriptors)?;
        return Ok(Books { ledger: before, file, manifest: Some(found.manifest.clone()) });
    }
    let (ledger, file) = Ledger::create(names.len(), queues).map_err(Error::Descriptors)?;
    for (number, name) in names.iter().enumerate() {
        if let Some(old) = found.number(name) {
            ledger.adopt(number, &before, old);
        }
    }
    Ok(Books { ledger, file, manifest: None })
}

/// The guests' sockets, in the order of the command line, and which of these the manager has; those
/// at a path separately as well, to be removed at the end. Of an inherited one nothing may be left.
pub struct Sockets {
    /// The sockets.
    pub endpoints: Vec<Option<Endpoint>>,
    /// Whether the manager has them.
    pub are_kept: Vec<bool>,
    /// Those at a path.
    pub bound: Vec<BoundSocket>,
}

impl Sockets {
    /// Makes them, or goes on with those that were found.
    ///
    /// # Errors
    ///
    /// [`Error`], one line for the user.
    pub fn new(args: &Args, inherited: Vec<Endpoint>, mut found: Option<&mut Found>) -> Result<Self, Error> {
        let mut sockets = Self { endpoints: Vec::new(), are_kept: Vec::new(), bound: Vec::new() };
        for PathGuest { path, access, .. } in &args.socket_path {
            let door = found.as_mut().and_then(|found| found.door(&path.display().to_string()));
            // One that was removed cannot be put back.
            let door = door.filter(|_| is_socket(path));
            sockets.are_kept.push(door.is_some());
            let socket = match door {
                Some(listener) => BoundSocket::take_over(path, listener)?,
                None => BoundSocket::bind(path, access.or(args.socket_access()))?,
            };
            let listener = socket.listener().map_err(Error::Descriptors)?;
            sockets.endpoints.push(Some(Endpoint::Listening(listener)));
            sockets.bound.push(socket);
        }
        match found {
            None => {
                sockets.are_kept.extend(inherited.iter().map(|_| false));
                sockets.endpoints.extend(inherited.into_iter().map(Some));
            }
            Some(found) => {
                for door in args.fd.iter().map(|guest| found.door(&name_of(guest))) {
                    sockets.are_kept.push(door.is_some());
                    sockets.endpoints.push(door.map(Endpoint::Listening));
                }
            }
        }
        Ok(sockets)
    }

    /// Has those kept that are not.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptor left.
    pub fn keep(&self, names: &[String], handover: &mut Handover) -> Result<(), Error> {
        for ((name, endpoint), is_kept) in names.iter().zip(&self.endpoints).zip(&self.are_kept) {
            if let (Some(Endpoint::Listening(listener)), false) = (endpoint, is_kept) {
                let listener = listener.try_clone().map_err(Error::Descriptors)?;
                handover.forget(&handover::door(name));
                handover.keep(&handover::door(name), Rc::new(OwnedFd::from(listener).into()));
            }
        }
        Ok(())
    }
}

/// The name of a guest on an inherited socket.
#[must_use]
pub fn name_of(guest: &FdGuest) -> String {
    format!("fd:{}", guest.number)
}

/// What is left to the next keeper, beginning with what was found.
///
/// # Errors
///
/// When the host does not give what it takes.
pub fn handover(
    mut manager: Manager,
    books: &Books,
    daemon: DaemonNote,
    found: Option<&Found>,
    ledger: Rc<File>,
) -> Result<Handover, Error> {
    let guests = daemon.names.len();
    let is_new = books.manifest.is_none();
    let manifest = match &books.manifest {
        Some(manifest) => manifest.clone(),
        None => Manifest::create(guests).map_err(Error::Descriptors)?,
    };
    let (mut connections, mut shelf, mut has_arena) = (vec![None; guests], Shelf::new(guests, []), false);
    if let Some(found) = found {
        let passed = found.passed.iter().map(|(number, file)| (*number, Rc::clone(file)));
        shelf = Shelf::new(guests, passed);
        has_arena = found.arena.is_some();
        for (connection, name) in connections.iter_mut().zip(&daemon.names) {
            *connection = found.connection(name);
        }
        found.stale(&daemon.names).for_each(|name| manager.forget(name));
    } else {
        manager.forget_all();
    }
    let books = is_new.then_some(ledger);
    Ok(Handover::new(manager, manifest, daemon, shelf, connections, has_arena, books))
}
