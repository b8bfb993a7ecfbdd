// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How a keeper begins: with nothing, or where the one before has ended.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use log::info;

use super::door::Door;
use super::handover::Handover;
use super::handover::found::Found;
use super::handover::manager::Manager;
use super::handover::manifest::Manifest;
use super::handover::note::DaemonNote;
use super::handover::shelf::Shelf;
use super::numbers::Numbers;
use crate::args::Handed;
use crate::config::{Config, Place};
use crate::error::Error;
use crate::frontend::listener::{BoundSocket, Endpoint, is_socket};
use crate::ledger::Ledger;

const GOES_ON: &str = "Going on where the daemon before has ended";

/// What all workers write to, and what of it the keeper before has left.
pub struct Books {
    /// The ledger.
    pub ledger: Ledger,
    /// Its file.
    pub file: File,
    /// The manifest, unless it is to be another one.
    manifest: Option<Manifest>,
}

/// The guests' numbers: those that they had, if all is as it was.
#[must_use]
pub fn numbers(found: Option<&Found>, config: &Config) -> Numbers {
    let names = || config.guests.iter().map(|guest| &*guest.name);
    let before = found.map(|found| &found.daemon.numbers).filter(|numbers| numbers.are_of(config.room(), names()));
    before.cloned().unwrap_or_else(|| Numbers::new(config.room(), names()))
}

/// The ledger, with what of these guests is in the one before. The last worker that wrote to that
/// has ended when this returns.
///
/// # Errors
///
/// [`Error`], one line for the user.
pub fn books(found: Option<&Found>, numbers: &Numbers, queues: u16) -> Result<Books, Error> {
    let Some(found) = found else {
        let (ledger, file) = Ledger::create(numbers.room(), queues).map_err(Error::Descriptors)?;
        return Ok(Books { ledger, file, manifest: None });
    };
    if found.daemon.config.queues != queues {
        return Err(Error::Queues(found.daemon.config.queues, queues));
    }
    found.wait_for_worker()?;
    let before = match Ledger::open(&found.ledger) {
        Ok(ledger) if found.daemon.numbers == *numbers => {
            info!("{GOES_ON}");
            let file = found.ledger.try_clone().map_err(Error::Descriptors)?;
            return Ok(Books { ledger, file, manifest: Some(found.manifest.clone()) });
        }
        Ok(ledger) => ledger,
        Err(_) => Ledger::convert(&found.ledger).map_err(Error::Link)?.0,
    };
    info!("{GOES_ON}");
    let (ledger, file) = Ledger::create(numbers.room(), queues).map_err(Error::Descriptors)?;
    for (number, name) in numbers.iter() {
        if let Some(old) = found.number(name) {
            ledger.adopt(number, &before, old);
        }
    }
    Ok(Books { ledger, file, manifest: None })
}

/// Where the guests' VMMs are met, by the guests' numbers. Of an inherited socket nothing may be
/// left.
pub struct Sockets {
    /// Doors, and whether the manager has their sockets.
    pub doors: BTreeMap<usize, (Door, bool)>,
    /// VMMs at the other ends of inherited sockets.
    pub connected: Vec<(usize, UnixStream)>,
}

impl Sockets {
    /// Makes them, or goes on with those that were found. `inherited` are those that were given, if
    /// nothing was found.
    ///
    /// # Errors
    ///
    /// [`Error`], one line for the user.
    pub fn new(
        config: &Config,
        numbers: &Numbers,
        mut inherited: BTreeMap<Handed, Endpoint>,
        mut found: Option<&mut Found>,
    ) -> Result<Self, Error> {
        let mut sockets = Self { doors: BTreeMap::new(), connected: Vec::new() };
        if let Some(found) = &mut found {
            remove_sockets_of_others(config, found);
        }
        for guest in &config.guests {
            let Some(number) = numbers.of(&guest.name) else { continue };
            let door = found.as_mut().and_then(|found| found.door(&guest.name));
            match &guest.place {
                Place::Path { path, access } => {
                    // One that was removed cannot be put back.
                    let door = door.filter(|_| is_socket(path));
                    let is_kept = door.is_some();
                    let socket = match door {
                        Some(listener) => BoundSocket::take_over(path, listener)?,
                        None => BoundSocket::bind(path, *access)?,
                    };
                    sockets.doors.insert(number, (Door::new(socket.into()), is_kept));
                }
                Place::Inherited(socket) => match (door, inherited.remove(socket)) {
                    (Some(listener), _) => drop(sockets.doors.insert(number, (Door::new(listener.into()), true))),
                    (None, Some(Endpoint::Listening(listener))) => {
                        sockets.doors.insert(number, (Door::new(listener.into()), false));
                    }
                    (None, Some(Endpoint::Connected(stream))) => sockets.connected.push((number, stream)),
                    (None, None) => {}
                },
            }
        }
        Ok(sockets)
    }

    /// Has those kept that are not.
    pub fn keep(&self, numbers: &Numbers, handover: &mut Handover) {
        for (number, (door, is_kept)) in &self.doors {
            if let (Some(name), false) = (numbers.name(*number), is_kept) {
                handover.keep_door(name, door.listener());
            }
        }
    }
}

/// Removes sockets of guests that there were and that are not to be any more.
fn remove_sockets_of_others(config: &Config, found: &mut Found) {
    let before = found.daemon.config.guests.clone();
    for guest in before.iter().filter(|before| config.guests.iter().all(|guest| guest.name != before.name)) {
        let door = found.door(&guest.name).zip(guest.path());
        if let Some((listener, path)) = door.filter(|(_, path)| config.sockets().all(|socket| socket != *path)) {
            // Removed when dropped; who has it meanwhile keeps it.
            drop(BoundSocket::take_over(path, listener));
        }
    }
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
    let room = daemon.numbers.room();
    let is_new = books.manifest.is_none();
    let manifest = match &books.manifest {
        Some(manifest) => manifest.clone(),
        None => Manifest::create(room).map_err(Error::Descriptors)?,
    };
    let (mut connections, mut shelf, mut has_arena) = (vec![None; room], Shelf::new(room, []), false);
    if let Some(found) = found {
        let passed = found.passed.iter().map(|(number, file)| (*number, Rc::clone(file)));
        shelf = Shelf::new(room, passed);
        has_arena = found.arena.is_some();
        for (number, name) in daemon.numbers.iter() {
            connections[number] = found.connection(name);
        }
        found.stale(&daemon.numbers).for_each(|name| manager.forget(name));
    } else {
        manager.forget_all();
    }
    let books = is_new.then_some(ledger);
    Ok(Handover::new(manager, manifest, daemon, shelf, connections, has_arena, books))
}
