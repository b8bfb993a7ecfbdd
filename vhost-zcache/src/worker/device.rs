// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One guest's device while its VMM is connected: memory and rings, which change as the keeper
//! says.

use std::fs::File;
use std::io;
use std::sync::Arc;

use log::Level;
use thiserror::Error;

use super::guest::{Connection, GuestPlace};
use super::memory_table::{self, MemoryError};
use super::queue::event::PeerEvent;
use super::vring::{Settings, Vring};
use crate::device::session::handover::NotEmpty;
use crate::device_state::transfer::{Reply, Subject, Transfer};
use crate::frontend::features::Acknowledged;
use crate::link::message::{Change, Direction, RingChange};

/// Why a change was not carried out, or not in full.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// The memory table stays as it was.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The state of a guest is moved while its rings are stopped, or it is held.
    #[error("a queue is not stopped")]
    NotStopped,
    /// A state is not moved.
    #[error(transparent)]
    State(#[from] NotEmpty),
    /// The pipe is none, or there is no thread.
    #[error("the state cannot be moved: {0}")]
    Move(io::Error),
    /// There is no such ring, or not the file that belongs to it. The keeper does not ask for it.
    #[error("the change makes no sense")]
    Nonsense,
}

/// A device.
pub struct Device {
    // Declared, and so dropped, before the memory they use.
    vrings: Vec<Vring>,
    connection: Connection,
    guest: Arc<GuestPlace>,
    /// The last transfer of the guest's state.
    transfer: Option<Transfer>,
    /// `None` until the VMM has said so.
    features: Option<Acknowledged>,
    /// No ring is served, for now.
    is_held: bool,
}

impl Device {
    /// The device of a connection, of which nothing is set up.
    #[must_use]
    pub fn new(guest: Arc<GuestPlace>, connection: Connection) -> Self {
        let vrings = guest.queues().iter().enumerate();
        let vrings = vrings.map(|(queue, ledger)| Vring::unset(queue, ledger, &guest, &connection)).collect();
        Self { vrings, connection, guest, transfer: None, features: None, is_held: false }
    }

    /// Carries out a change; where a ring was stopped, if that was it.
    ///
    /// # Errors
    ///
    /// [`ChangeError`].
    pub fn change(&mut self, change: Change, files: Vec<File>) -> Result<u16, ChangeError> {
        let done = match change {
            Change::Connect(_) | Change::Disconnect | Change::CheckState => return Err(ChangeError::Nonsense),
            Change::Hold(is_held) => self.change_all(|device| {
                device.is_held = is_held;
                Ok(())
            }),
            Change::MoveState(direction) => return self.move_state(direction, files),
            Change::Features(features) => {
                let features = Acknowledged::new(features).ok_or(ChangeError::Nonsense)?;
                self.change_all(|device| {
                    device.features = Some(features);
                    device.connection.log.switch(features.logs_writes());
                    Ok(())
                })
            }
            Change::Table(regions) => {
                self.change_all(|device| memory_table::replace(&device.connection, &regions, &files))
            }
            Change::AddRegion(region) => {
                let [file] = &files[..] else { return Err(ChangeError::Nonsense) };
                self.change_all(|device| memory_table::add(&device.connection, &region, file))
            }
            Change::RemoveRegion(region) => {
                self.change_all(|device| memory_table::remove(&device.connection.memory, &region))
            }
            Change::Log(area) => {
                let [file] = &files[..] else { return Err(ChangeError::Nonsense) };
                memory_table::replace_log(&self.connection, &area, file).map_err(ChangeError::from)
            }
            Change::Ring(index, change) => return self.change_ring(index, change, files),
        };
        done.map(|()| 0)
    }

    /// Begins to move the guest's state. One that is under way is given up.
    fn move_state(&mut self, direction: Direction, files: Vec<File>) -> Result<u16, ChangeError> {
        self.transfer = None;
        let Ok([file]) = <[File; 1]>::try_from(files) else { return Err(ChangeError::Nonsense) };
        if !self.is_held && self.vrings.iter().any(Vring::is_started) {
            return Err(ChangeError::NotStopped);
        }
        let session = Arc::clone(&self.connection.session);
        if direction == Direction::Load && !session.is_new() {
            return Err(NotEmpty.into());
        }
        let log = Arc::clone(self.guest.transfer_log());
        let subject = Subject { name: self.guest.name().to_owned(), session, queues: self.vrings.len(), log };
        self.transfer = Some(Transfer::start(direction, file, subject).map_err(ChangeError::Move)?);
        Ok(0)
    }

    /// Has it told how the transfer of the guest's state came out, as soon as that is known.
    pub fn check_state(&self, reply: Reply) {
        match &self.transfer {
            Some(transfer) => transfer.check(reply),
            None => reply(Err("no state is on its way".into())),
        }
    }

    fn change_ring(&mut self, index: usize, change: RingChange, files: Vec<File>) -> Result<u16, ChangeError> {
        let features = self.features_to_serve();
        let event = match files.into_iter().next() {
            None => None,
            Some(file) => self.event(index, file),
        };
        let vring = self.vrings.get_mut(index).ok_or(ChangeError::Nonsense)?;
        let set = |settings: &mut Settings| match change {
            RingChange::Size(size) => settings.size = size,
            RingChange::Place(addresses) => settings.addresses = addresses,
            RingChange::Base(base) => settings.base = base,
            RingChange::Kick(_) => settings.kick = event,
            RingChange::Call(_) => settings.call = event,
            RingChange::Enable(enabled) => settings.enabled = enabled,
            RingChange::Stop => {}
        };
        if change == RingChange::Stop {
            return Ok(vring.stop());
        }
        let settings = vring.pause();
        let begins_anew = match change {
            RingChange::Base(_) => true,
            // It may be said again, to have it logged what is written there.
            RingChange::Place(place) => place != settings.addresses,
            _ => false,
        };
        set(settings);
        if begins_anew {
            vring.begins_anew();
        }
        vring.resume(features, &self.connection.memory);
        Ok(0)
    }

    /// The features with which rings are served, if they are to be.
    fn features_to_serve(&self) -> Option<Acknowledged> {
        self.features.filter(|_| !self.is_held)
    }

    /// Changes what concerns all rings, while none is served.
    fn change_all(&mut self, change: impl FnOnce(&mut Self) -> Result<(), MemoryError>) -> Result<(), ChangeError> {
        for vring in &mut self.vrings {
            vring.pause();
        }
        let changed = change(self);
        let features = self.features_to_serve();
        for vring in &mut self.vrings {
            vring.resume(features, &self.connection.memory);
        }
        Ok(changed?)
    }

    /// An event that the VMM passes for a ring. One that is none counts as if it had passed none:
    /// the ring is not served, or gives no interrupts, and the connection goes on.
    fn event(&self, index: usize, file: File) -> Option<Arc<PeerEvent>> {
        PeerEvent::new(file)
            .map(Arc::new)
            .inspect_err(|error| {
                let text = format_args!("{}: an event of queue {index} is {error}", self.guest.name());
                self.guest.conduct().log(Level::Warn, text);
            })
            .ok()
    }
}
