// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the daemon before has saved of a guest is taken back when its first ring starts: the worker
//! holds all rings, loads the state, and serves them when the file is gone.
//!
//! A state is believed once. So the file goes after all of it was loaded and before anything is
//! done with it; whoever dies before that leaves the file, and whoever dies after has no file that
//! is older than what the guest has put since. A file that is not loaded for another reason is of
//! no use to anybody: the guest is told another epoch.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::RawFd;

use log::{error, info, warn};

use super::{Guest, MOST_ATTEMPTS, State};
use crate::keeper::process::Worker;
use crate::keeper::saver::Saver;
use crate::link::message::{Change, Direction, RingChange};

/// How far it is.
#[derive(Default)]
pub(super) enum Saved {
    /// Nothing is saved of the guest.
    #[default]
    Nothing,
    /// There is a file; workers that have died while they read it.
    There(u32),
    /// It is being read. `refused` is why the worker does not take it.
    Loading { saver: Saver, attempts: u32, ticket: u64, refused: Option<String> },
    /// It was read, and the worker says whether that was all. `unread` is why it was not.
    Checking { saver: Saver, attempts: u32, ticket: u64, unread: Option<String> },
    /// The guest has it, or never will, and the file goes.
    Removing { saver: Saver, is_loaded: bool },
}

impl Saved {
    /// Whether it is on its way, so that no other state can be.
    pub(super) fn is_under_way(&self) -> bool {
        !matches!(self, Self::Nothing | Self::There(_))
    }
}

impl Guest {
    /// Finds what is saved of it, if it is among those of whom something is.
    pub fn find_saved(&mut self, saved: &mut BTreeSet<String>) {
        if saved.remove(self.log.name()) {
            self.saved = Saved::There(0);
        }
    }

    /// Leaves what is saved of it to be found again.
    pub fn leave_saved(&self, saved: &mut BTreeSet<String>) {
        if self.has_saved() {
            saved.insert(self.log.name().to_owned());
        }
    }

    /// Whether something is saved of it that it has not taken back.
    #[must_use]
    pub fn has_saved(&self) -> bool {
        matches!(self.saved, Saved::There(_))
    }

    /// Its saver's socket, if there is one to be heard.
    #[must_use]
    pub fn saver_socket(&self) -> Option<RawFd> {
        match &self.saved {
            Saved::Nothing | Saved::There(_) => None,
            Saved::Loading { saver, .. } | Saved::Checking { saver, .. } | Saved::Removing { saver, .. } => {
                Some(saver.socket())
            }
        }
    }

    /// Whether what was saved is on its way, so that the file may be gone soon.
    #[must_use]
    pub fn is_taking_back(&self) -> bool {
        self.saved.is_under_way()
    }

    /// Whether no ring may be served, by a worker that is told so.
    pub(super) fn is_held(&self) -> bool {
        self.is_held || matches!(self.saved, Saved::Removing { .. })
    }

    /// Begins, before a change is carried out by which a ring may be served.
    pub(super) fn take_back_before(&mut self, change: &Change, worker: &mut Worker) {
        if matches!(change, Change::Ring(_, RingChange::Kick(true))) && worker.is_up() {
            self.take_back(worker);
        }
    }

    /// Has a worker hold all rings and load what was saved, if something was.
    pub(super) fn take_back(&mut self, worker: &mut Worker) {
        let Saved::There(attempts) = self.saved else { return };
        if self.is_left {
            // It is for the next daemon.
            self.hold(true, worker);
            return;
        }
        let name = self.log.name().to_owned();
        let start = || -> io::Result<_> {
            let saver = Saver::start(worker.spawner())?;
            let file = saver.load(name.clone())?;
            Ok((saver, file))
        };
        let (saver, file) = match start() {
            Ok(started) => started,
            Err(error) => {
                error!("{name}: what was saved cannot be taken back: {error}");
                self.saved = Saved::Nothing;
                return;
            }
        };
        self.hold(true, worker);
        let ticket = self.ask(Change::MoveState(Direction::Load), vec![file], worker);
        self.saved = Saved::Loading { saver, attempts, ticket, refused: None };
    }

    /// Has a worker serve no ring, or serve them again.
    pub(super) fn hold(&mut self, is_held: bool, worker: &mut Worker) {
        self.ask(Change::Hold(is_held), Vec::new(), worker);
    }

    /// Its saver has said something.
    pub fn saver_says(&mut self, worker: &mut Worker) {
        match std::mem::take(&mut self.saved) {
            Saved::Loading { saver, attempts, ticket, refused } => match saver.outcome() {
                None => self.saved = Saved::Loading { saver, attempts, ticket, refused },
                Some(outcome) => {
                    let ticket = self.ask(Change::CheckState, Vec::new(), worker);
                    let unread = refused.or(outcome.err());
                    self.saved = Saved::Checking { saver, attempts, ticket, unread };
                }
            },
            Saved::Removing { saver, is_loaded } => match saver.outcome() {
                None => self.saved = Saved::Removing { saver, is_loaded },
                Some(removed) => {
                    worker.let_go(saver);
                    self.is_removed(removed.map(drop), is_loaded, worker);
                }
            },
            Saved::Checking { saver, attempts, ticket, unread } => match saver.outcome() {
                None => self.saved = Saved::Checking { saver, attempts, ticket, unread },
                // It has ended, and nobody is there to remove the file.
                Some(_) => {
                    worker.let_go(saver);
                    self.is_removed(Err("the process that does it has ended".into()), true, worker);
                }
            },
            other => self.saved = other,
        }
    }

    /// A worker has carried out a change of ours, or has not; whether it was ours.
    pub(super) fn saved_is_done(&mut self, done: u64, outcome: &Result<u16, String>, worker: &mut Worker) -> bool {
        match std::mem::take(&mut self.saved) {
            Saved::Loading { saver, attempts, ticket, refused } if ticket == done => {
                let refused = refused.or(outcome.clone().err());
                self.saved = Saved::Loading { saver, attempts, ticket, refused };
            }
            Saved::Checking { saver, ticket, unread, .. } if ticket == done => {
                let name = self.log.name();
                match outcome {
                    Ok(_) => info!("{name}: what was saved is there again"),
                    Err(why) => {
                        let why = unread.as_ref().unwrap_or(why);
                        error!("{name}: what was saved is not taken back, and is removed: {why}");
                    }
                }
                let removed = saver.remove(name.to_owned());
                let is_loaded = outcome.is_ok();
                match removed {
                    Ok(()) => self.saved = Saved::Removing { saver, is_loaded },
                    Err(error) => {
                        worker.let_go(saver);
                        self.is_removed(Err(error.to_string()), is_loaded, worker);
                    }
                }
            }
            other => {
                self.saved = other;
                return false;
            }
        }
        true
    }

    /// The file is gone, or cannot be removed: then it is nobody's.
    fn is_removed(&mut self, removed: Result<(), String>, is_loaded: bool, worker: &mut Worker) {
        let name = self.log.name();
        match removed {
            Err(why) if is_loaded => {
                error!("{name}: what was saved is not taken back, as the file cannot be removed: {why}");
                self.begin_anew(worker);
            }
            Err(why) => warn!("{name}: what was saved cannot be removed: {why}"),
            Ok(()) => {}
        }
        if !self.is_held {
            self.hold(false, worker);
        }
    }

    /// The guest has nothing, as if its VMM had just connected and said all that it has.
    fn begin_anew(&mut self, worker: &mut Worker) {
        if matches!(self.state, State::Connected(_)) {
            self.lives += 1;
            worker.forget(self.number);
            self.introduce(worker);
        }
    }

    /// The VMM has gone, or the worker has died, and with it what was not loaded to the end.
    pub(super) fn loses_saved(&mut self, by_death: bool, worker: &mut Worker) {
        match std::mem::take(&mut self.saved) {
            Saved::Loading { saver, attempts, .. } | Saved::Checking { saver, attempts, .. } => {
                worker.let_go(saver);
                let attempts = attempts + u32::from(by_death);
                if by_death {
                    // The next one is told of another connection, of which it knows nothing.
                    self.lives += 1;
                }
                if attempts < MOST_ATTEMPTS {
                    self.saved = Saved::There(attempts);
                } else {
                    error!("{}: what was saved is not taken back: workers have died of it", self.log.name());
                }
            }
            other => self.saved = other,
        }
    }
}
