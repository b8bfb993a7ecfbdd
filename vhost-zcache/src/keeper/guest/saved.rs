// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the daemon before has saved of a guest is taken back when its first ring starts: the worker
//! holds all rings, loads the state, and serves them when the file is gone.
//!
//! A state is believed once. So the file goes after all of it was loaded and before anything is
//! done with it; whoever dies before that leaves the file, and whoever dies after has no file that
//! is older than what the guest has put since. A file that is not loaded for another reason goes
//! as well, before a ring is served. While it can be neither read nor removed the rings wait: so no
//! guest is ever served while there is a file of it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;

use log::{error, info, warn};

use super::{Guest, MOST_ATTEMPTS};
use crate::keeper::process::Worker;
use crate::keeper::saver::{Failure, Saver};
use crate::link::message::{Change, Direction, RingChange};

/// What there may be of a guest when it comes to the keeper.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It takes it back.
    There,
    /// It has gone on without it, so the file is to go before it is served again.
    Outdated,
}

/// How far it is.
#[derive(Default)]
pub(super) enum Saved {
    /// Nothing is saved of the guest.
    #[default]
    Nothing,
    /// There is a file; workers that have died while they read it.
    There(u32),
    /// It is to be read, as soon as there is a process for it.
    Delayed(u32),
    /// It is being read. `refused` is why the worker does not take it.
    Loading { saver: Saver, attempts: u32, ticket: u64, refused: Option<String> },
    /// It was read, and the worker says whether that was all. `unread` is why it was not. The saver
    /// is none if it has ended.
    Checking { saver: Option<Saver>, attempts: u32, ticket: u64, unread: Option<String> },
    /// The guest has it, or never will, and the file goes. `is_told` says that it did not once.
    Removing { saver: Saver, is_loaded: bool, is_told: bool },
    /// The file is to go, as soon as it can.
    Stuck { is_loaded: bool, is_told: bool },
}

impl Saved {
    /// Whether it is on its way, or is to be, so that no other state can be.
    pub(super) fn is_under_way(&self) -> bool {
        !matches!(self, Self::Nothing | Self::There(_))
    }
}

impl Guest {
    /// Finds what is saved of it, if it is among those of whom something is.
    pub fn find_saved(&mut self, saved: &mut BTreeMap<String, Left>) {
        match saved.remove(self.log.name()) {
            Some(Left::There) => self.saved = Saved::There(0),
            Some(Left::Outdated) => self.saved = Saved::Stuck { is_loaded: false, is_told: false },
            None => {}
        }
    }

    /// Leaves what is saved of it to be found again.
    pub fn leave_saved(&self, saved: &mut BTreeMap<String, Left>) {
        let left = match self.saved {
            Saved::Stuck { is_loaded: false, .. } => Left::Outdated,
            _ => Left::There,
        };
        if self.has_saved() {
            saved.insert(self.log.name().to_owned(), left);
        }
    }

    /// Whether something is saved of it that it has not taken back.
    #[must_use]
    pub fn has_saved(&self) -> bool {
        matches!(self.saved, Saved::There(_) | Saved::Delayed(_) | Saved::Stuck { .. })
    }

    /// Its saver's socket, if there is one to be heard.
    #[must_use]
    pub fn saver_socket(&self) -> Option<RawFd> {
        match &self.saved {
            Saved::Nothing | Saved::There(_) | Saved::Delayed(_) | Saved::Stuck { .. } => None,
            Saved::Loading { saver, .. } | Saved::Removing { saver, .. } => Some(saver.socket()),
            Saved::Checking { saver, .. } => saver.as_ref().map(Saver::socket),
        }
    }

    /// Whether what was saved is on its way, so that the file may be gone soon.
    #[must_use]
    pub fn is_taking_back(&self) -> bool {
        matches!(self.saved, Saved::Loading { .. } | Saved::Checking { .. } | Saved::Removing { .. })
    }

    /// Whether no ring may be served, by a worker that is told so.
    pub(super) fn is_held(&self) -> bool {
        let waits = matches!(self.saved, Saved::Delayed(_) | Saved::Removing { .. } | Saved::Stuck { .. });
        self.is_held || waits
    }

    /// Begins, before a change is carried out by which a ring may be served.
    pub(super) fn take_back_before(&mut self, change: &Change, worker: &mut Worker) {
        if matches!(change, Change::Ring(_, RingChange::Kick(true))) && worker.is_up() {
            self.take_back(worker);
        }
    }

    /// Has a worker hold all rings and load what was saved, if something was.
    pub(super) fn take_back(&mut self, worker: &mut Worker) {
        let (attempts, is_told) = match self.saved {
            Saved::There(attempts) => (attempts, false),
            Saved::Delayed(attempts) => (attempts, true),
            _ => return,
        };
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
                if !is_told {
                    error!("{name}: no queue is served before what was saved can be taken back: {error}");
                    self.hold(true, worker);
                }
                self.saved = Saved::Delayed(attempts);
                return;
            }
        };
        self.hold(true, worker);
        let ticket = self.ask(Change::MoveState(Direction::Load), vec![file], worker);
        self.saved = Saved::Loading { saver, attempts, ticket, refused: None };
    }

    /// Tries again what could not be done.
    pub(super) fn retry_saved(&mut self, worker: &mut Worker) {
        if self.is_left || !worker.is_ready() {
            return;
        }
        match self.saved {
            Saved::Delayed(_) => self.take_back(worker),
            Saved::Stuck { is_loaded, is_told } => self.remove_saved(is_loaded, is_told, worker),
            _ => {}
        }
    }

    /// Has the file removed.
    fn remove_saved(&mut self, is_loaded: bool, is_told: bool, worker: &mut Worker) {
        let started = Saver::start(worker.spawner());
        match started.and_then(|saver| saver.remove(self.log.name().to_owned()).map(|()| saver)) {
            Ok(saver) => self.saved = Saved::Removing { saver, is_loaded, is_told },
            Err(error) => self.is_removed(Err(error.to_string()), is_loaded, is_told, worker),
        }
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
                    let (saver, unread) = match outcome {
                        Ok(_) => (Some(saver), None),
                        Err(Failure::Said(why)) => (Some(saver), Some(why)),
                        Err(Failure::Ended) => {
                            worker.let_go(saver);
                            (None, None)
                        }
                    };
                    let unread = refused.or(unread);
                    self.saved = Saved::Checking { saver, attempts, ticket, unread };
                }
            },
            Saved::Removing { saver, is_loaded, is_told } => match saver.outcome() {
                None => self.saved = Saved::Removing { saver, is_loaded, is_told },
                Some(removed) => {
                    worker.let_go(saver);
                    let removed = removed.map(drop).map_err(|failure| failure.to_string());
                    self.is_removed(removed, is_loaded, is_told, worker);
                }
            },
            Saved::Checking { saver: Some(saver), attempts, ticket, unread } => {
                // If it says something, then that it has ended.
                let saver = if saver.outcome().is_none() {
                    Some(saver)
                } else {
                    worker.let_go(saver);
                    None
                };
                self.saved = Saved::Checking { saver, attempts, ticket, unread };
            }
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
            Saved::Checking { saver: None, attempts, ticket, unread: None }
                if ticket == done && outcome.is_err() && attempts + 1 < MOST_ATTEMPTS =>
            {
                // The worker has seen half of it, and knows nothing of it any more.
                warn!("{}: what was saved was not read to its end: {}; once more", self.log.name(), Failure::Ended);
                self.saved = Saved::There(attempts + 1);
                self.take_back(worker);
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
                let is_loaded = outcome.is_ok();
                match saver {
                    Some(saver) if saver.remove(name.to_owned()).is_ok() => {
                        self.saved = Saved::Removing { saver, is_loaded, is_told: false };
                    }
                    ended => {
                        ended.into_iter().for_each(|saver| worker.let_go(saver));
                        self.remove_saved(is_loaded, false, worker);
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

    /// The file is gone, or could not be removed. Then somebody may believe it later, so nothing is
    /// done with what the guest has until it is.
    fn is_removed(&mut self, removed: Result<(), String>, is_loaded: bool, is_told: bool, worker: &mut Worker) {
        let name = self.log.name();
        match removed {
            Err(why) => {
                if !is_told {
                    error!("{name}: no queue is served before the file of what was saved can be removed: {why}");
                }
                self.saved = Saved::Stuck { is_loaded, is_told: true };
                return;
            }
            Ok(()) if is_told => info!("{name}: the file of what was saved is removed"),
            Ok(()) => {}
        }
        if !self.is_held {
            self.hold(false, worker);
        }
    }

    /// The VMM has gone, or the worker has died, and with it what was not loaded to the end.
    pub(super) fn loses_saved(&mut self, by_death: bool, worker: &mut Worker) {
        let (saver, attempts) = match std::mem::take(&mut self.saved) {
            Saved::Loading { saver, attempts, .. } => (Some(saver), attempts),
            Saved::Checking { saver, attempts, .. } => (saver, attempts),
            // A VMM that has gone has what was loaded dropped, and a file that is there is as good
            // as before.
            Saved::Delayed(attempts) if !by_death => return self.saved = Saved::There(attempts),
            Saved::Stuck { is_loaded: true, .. } if !by_death => return self.saved = Saved::There(0),
            Saved::Removing { saver, is_told, .. } if !by_death => {
                return self.saved = Saved::Removing { saver, is_loaded: false, is_told };
            }
            other => return self.saved = other,
        };
        saver.into_iter().for_each(|saver| worker.let_go(saver));
        let attempts = attempts + u32::from(by_death);
        if by_death {
            // The next one is told of another connection, of which it knows nothing.
            self.lives += 1;
        }
        self.saved = if attempts < MOST_ATTEMPTS {
            Saved::There(attempts)
        } else {
            let name = self.log.name();
            error!("{name}: what was saved is not taken back, and is removed: workers have died of it");
            Saved::Stuck { is_loaded: false, is_told: false }
        };
    }
}
