// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A VMM takes a snapshot of its guest, or moves it: the messages about the device's state, and
//! about the log of the memory that it writes.
//!
//! The state itself goes between VMM and worker, through a file that is passed along. These
//! messages have answers of their own, in which an error can be told.

use vhost::vhost_user::message::FrontendReq;
use vhost::vhost_user::{Error, Result};
use zerocopy::{FromBytes, IntoBytes};

use super::dispatch::{Answer, Step};
use crate::frontend::message::Message;
use crate::link::message::{Change, Direction, LogArea, RingChange};

/// Numbers of the specification.
const SAVE: u32 = 0;
const LOAD: u32 = 1;
const STOPPED: u32 = 0;

/// Bytes of a log that is for 32 TiB of memory.
const LARGEST_LOG: u64 = 1 << 30;

/// No file comes with the answer: the VMM's own is used.
const NO_FILE: u64 = 0x100;

/// What is to be done about a message, if it is one of these.
///
/// # Errors
///
/// The message, if it is another one.
pub fn step(request: FrontendReq, message: Message) -> std::result::Result<Step, Message> {
    match request {
        FrontendReq::SET_DEVICE_STATE_FD => Ok(match transfer(&message) {
            Ok(direction) => Step::Change(Change::MoveState(direction), message.files, Answer::Transfer),
            Err(error) => Step::Answer(Some(started(false)), Err(error)),
        }),
        FrontendReq::CHECK_DEVICE_STATE => Ok(Step::Change(Change::CheckState, Vec::new(), Answer::Verdict)),
        FrontendReq::SET_LOG_BASE => Ok(match log(&message) {
            Ok(area) => Step::Change(Change::Log(area), message.files, Answer::Log(area)),
            Err(error) => Step::Answer(Some(log_taken(None)), Err(error)),
        }),
        _ => Err(message),
    }
}

fn log(message: &Message) -> Result<LogArea> {
    if message.files.len() != 1 {
        return Err(Error::IncorrectFds);
    }
    match <[u64; 2]>::read_from_bytes(&message.body) {
        Ok([size @ 1..=LARGEST_LOG, offset]) => Ok(LogArea { size, offset }),
        Ok(_) => Err(Error::InvalidParam),
        Err(_) => Err(Error::InvalidMessage),
    }
}

/// The answer to SET_LOG_BASE: what was asked, or zeros.
#[must_use]
pub fn log_taken(area: Option<LogArea>) -> Vec<u8> {
    area.map_or([0, 0], |area| [area.size, area.offset]).as_bytes().to_vec()
}

fn transfer(message: &Message) -> Result<Direction> {
    if message.files.len() != 1 {
        return Err(Error::IncorrectFds);
    }
    match <[u32; 2]>::read_from_bytes(&message.body) {
        Ok([SAVE, STOPPED]) => Ok(Direction::Save),
        Ok([LOAD, STOPPED]) => Ok(Direction::Load),
        Ok(_) => Err(Error::InvalidParam),
        Err(_) => Err(Error::InvalidMessage),
    }
}

/// The answer to SET_DEVICE_STATE_FD.
#[must_use]
pub fn started(done: bool) -> Vec<u8> {
    (NO_FILE | u64::from(!done)).as_bytes().to_vec()
}

/// The answer to CHECK_DEVICE_STATE.
#[must_use]
pub fn verdict(done: bool) -> Vec<u8> {
    u64::from(!done).as_bytes().to_vec()
}

/// Whether a state is being loaded, or was, of which the VMM does not know how it came out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loading(bool);

impl Loading {
    /// Takes note that a change was carried out, or refused. A guest that is served goes on with
    /// what it has.
    pub fn settle(&mut self, change: &Change, done: bool) {
        match change {
            Change::MoveState(Direction::Load) => self.0 = done,
            Change::CheckState | Change::Ring(_, RingChange::Kick(true)) => self.0 = false,
            _ => {}
        }
    }

    /// Takes note that the worker has died; whether the guest has to begin with nothing, as the VMM
    /// will be told that the state was not loaded.
    pub fn worker_ended(&mut self) -> bool {
        std::mem::take(&mut self.0)
    }
}
