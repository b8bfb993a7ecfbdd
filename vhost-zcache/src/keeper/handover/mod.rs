// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a keeper leaves to the next one, so that its end is not the end of what guests have.
//!
//! A service manager keeps files for a service, each with a name, and gives them to the next
//! process that it starts for it ([`manager`]). The keeper gives it each file that must not be
//! lost as soon as it is there: sockets, guest memory, events, the store's memory and the ledger
//! ([`shelf`]). What they are for, and all else that a keeper knows of a guest ([`note`]), is in
//! one more such file, the [`manifest`], which it keeps current. The next keeper goes by it
//! ([`found`]), and has its first worker take over, as after any worker's death.

pub mod found;
pub mod manager;
pub mod manifest;
pub mod note;
pub mod shelf;

use std::fs::File;
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;

use log::{error, info};
use twox_hash::XxHash3_64;

use self::manager::Manager;
use self::manifest::Manifest;
use self::note::{DaemonNote, GuestNote};
use self::shelf::Shelf;
use super::numbers::Numbers;
use crate::config::Config;

/// Names of files: how all begin, and what is there once.
pub const PREFIX: &str = "zcache-";
/// The manifest.
pub const MANIFEST: &str = "zcache-manifest";
/// The ledger.
pub const LEDGER: &str = "zcache-ledger";
/// The store's memory.
pub const ARENA: &str = "zcache-arena";

/// Name of the listening socket of a guest, which is the same wherever the command line has it.
#[must_use]
pub fn door(guest: &str) -> String {
    format!("{PREFIX}d{:016x}", XxHash3_64::oneshot(guest.as_bytes()))
}

/// Name of the socket of a guest's connection.
#[must_use]
pub fn connection(guest: &str, life: u64) -> String {
    format!("{PREFIX}c{:016x}-{life}", XxHash3_64::oneshot(guest.as_bytes()))
}

/// How names of files begin that VMMs have passed; a number follows.
pub const PASSED: &str = "zcache-f";

/// Name of a file that a VMM has passed.
#[must_use]
pub fn passed(file: u64) -> String {
    format!("{PASSED}{file}")
}

/// What is known of one guest at one moment.
pub struct Snapshot {
    /// All but the files.
    pub note: GuestNote,
    /// The socket, if there is a connection.
    pub socket: Option<Rc<UnixStream>>,
}

/// What a service manager has for the next keeper.
pub struct Handover {
    manager: Manager,
    manifest: Manifest,
    shelf: Shelf,
    daemon: DaemonNote,
    /// Names of the sockets of connections, by guest.
    connections: Vec<Option<String>>,
    has_arena: bool,
    /// The ledger's file, if ledger and manifest are others than those that are kept, until all
    /// guests are in them.
    books: Option<Rc<File>>,
}

impl Handover {
    /// Begins with nothing, or with what the keeper before has left, of which the names of the
    /// sockets of guests' connections are given. `books` is the ledger, unless it is the one that
    /// is kept.
    #[must_use]
    pub fn new(
        manager: Manager,
        manifest: Manifest,
        daemon: DaemonNote,
        shelf: Shelf,
        connections: Vec<Option<String>>,
        has_arena: bool,
        books: Option<Rc<File>>,
    ) -> Self {
        Self { manager, manifest, shelf, daemon, connections, has_arena, books }
    }

    /// Has the ledger and the manifest kept, in place of others if there are any.
    fn keep_books(&mut self, ledger: Rc<File>) {
        self.note_daemon();
        self.manager.forget(MANIFEST);
        self.manager.forget(LEDGER);
        self.manager.keep(LEDGER, ledger);
        self.manager.keep(MANIFEST, self.manifest.file());
    }

    /// Has a guest's listening socket kept, in place of another one if there is any.
    pub fn keep_door(&mut self, guest: &str, socket: Rc<UnixListener>) {
        self.manager.forget(&door(guest));
        self.manager.keep_door(&door(guest), socket);
        self.manager.flush();
    }

    /// Other guests are known from now on, and another configuration. Nothing is kept of those who
    /// had these numbers.
    pub fn rename(&mut self, numbers: &Numbers, config: &Config, gone: &[(usize, String)]) {
        for (number, name) in gone {
            self.manager.forget(&door(name));
            self.connections[*number].take().inspect(|name| self.manager.forget(name));
            self.shelf.set(*number, Vec::new(), &mut self.manager);
            self.manifest.note_guest(*number, &GuestNote { lives: 0, connection: None });
        }
        self.daemon.numbers = numbers.clone();
        self.daemon.config = config.clone();
        self.note_daemon();
        self.manager.flush();
    }

    /// Takes note of how many workers there were, and of the store's memory.
    pub fn note_worker(&mut self, number: u64, arena: Option<&Rc<File>>) {
        if let Some(arena) = arena.filter(|_| !self.has_arena) {
            self.has_arena = true;
            self.manager.keep(ARENA, Rc::clone(arena));
        }
        if self.daemon.worker != number {
            self.daemon.worker = number;
            self.note_daemon();
        }
        self.manager.flush();
    }

    /// Writes down what is known of the daemon.
    pub fn note_daemon(&mut self) {
        if !self.manifest.note_daemon(&self.daemon) {
            error!("What is known of the daemon is too long to be left to another keeper");
        }
    }

    /// Something of a guest's begins to change. Until it is noted, nobody knows how far that is.
    pub fn touch(&self, guest: usize) {
        self.manifest.touch(guest);
    }

    /// Takes note of a guest. Its files are kept before anybody is told of them, and until nobody
    /// is.
    pub fn note_guest(&mut self, guest: usize, look: impl FnOnce(&mut dyn FnMut(&Rc<File>) -> u64) -> Snapshot) {
        let mut files = Vec::new();
        let Self { manager, shelf, .. } = self;
        let Snapshot { note, socket } = look(&mut |file| {
            let number = shelf.number_of(file, manager);
            files.push(number);
            number
        });
        let guest_name = self.daemon.numbers.name(guest).unwrap_or_default().to_owned();
        let name = socket.as_ref().map(|_| connection(&guest_name, note.lives));
        if let (Some(name), Some(socket)) = (&name, socket)
            && self.connections[guest].as_ref() != Some(name)
        {
            self.manager.keep_connection(name, socket);
        }
        self.manager.flush();
        if !self.manifest.note_guest(guest, &note) {
            error!("{guest_name}: too much to be left to another keeper");
        }
        let before = std::mem::replace(&mut self.connections[guest], name);
        if let Some(before) = before.filter(|before| self.connections[guest].as_ref() != Some(before)) {
            self.manager.forget(&before);
        }
        self.shelf.set(guest, files, &mut self.manager);
        self.manager.flush();
    }

    /// All guests were noted, so the manifest can be gone by, and what of the keeper before nobody
    /// has is not kept any more.
    pub fn sweep(&mut self) {
        if let Some(ledger) = self.books.take() {
            self.keep_books(ledger);
        }
        self.shelf.sweep(&mut self.manager);
        self.manager.flush();
    }

    /// Keeper and worker are well, of which the manager may want signs.
    pub fn are_well(&mut self) {
        self.manager.give_sign_of_life();
        self.manager.flush();
    }

    /// Tells the manager that guests are served.
    pub fn ready(&mut self) {
        info!("What guests have is kept by the service manager as well");
        self.manager.say("READY=1");
        self.manager.flush();
    }
}
