// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The process that writes states to files and reads them again, for the keeper, who passes it the
//! pipes by which the worker gives or takes them. It may reach the one folder and nothing else, and
//! ends when the keeper closes the link.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::set_name;
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use thiserror::Error as ThisError;

use super::folder::Folder;
use super::key::Key;
use super::sealed::{OpenError, Opener, Sealer};
use super::{Saving, SavingError};
use crate::config::common::Common;
use crate::device_state::Moved;
use crate::device_state::stream::{Damage, Decoder};
use crate::error::Error;
use crate::link::socket::Socket;
use crate::sandbox;

/// Bytes that are read of a pipe at a time.
const READ: usize = 64 << 10;

/// What the keeper wants of a guest's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// It is to be written, as it comes out of the pipe that comes along.
    Save {
        /// Whose.
        guest: String,
    },
    /// It is to be read, into the pipe that comes along.
    Load {
        /// Whose.
        guest: String,
    },
    /// It is to be removed.
    Remove {
        /// Whose.
        guest: String,
    },
}

/// What has come of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is done; pages that were saved.
    Done(u64),
    /// It is not, in words.
    Failed(String),
}

#[derive(Debug, ThisError)]
enum Failure {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    State(#[from] Damage),
    #[error(transparent)]
    File(#[from] OpenError),
}

/// Does what the keeper wants, one thing after the other.
///
/// # Errors
///
/// [`Error`] when it cannot do what it is for.
pub fn run(common: &Common, link: i32) -> Result<(), Error> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| Error::Signals(error.into()))?;
    // A signal for all of the daemon's processes means the keeper.
    for signal in [SIGHUP, SIGINT, SIGTERM, SIGUSR2] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false))).map_err(Error::Signals)?;
    }
    let _ = set_name(c"zcache-saver");
    let link = Socket::inherit(link).map_err(Error::Link)?;
    let Some(saving) = &common.saving else { return Ok(()) };
    let Saving { directory, key, .. } = saving;
    let opened = Key::read(key).map_err(|error| SavingError::Key(key.clone(), error)).and_then(|key| {
        Ok((key, Folder::open(directory).map_err(|error| SavingError::Folder(directory.clone(), error))?))
    });
    sandbox::confine_saver(directory)?;
    while let Some((order, files)) = link.receive::<Order>(RecvFlags::empty()).map_err(Error::Link)? {
        let outcome = match &opened {
            Ok((key, folder)) => match carry_out(&order, files, key, folder) {
                Ok(pages) => Outcome::Done(pages),
                Err(failure) => Outcome::Failed(failure.to_string()),
            },
            Err(error) => Outcome::Failed(error.to_string()),
        };
        link.send(&outcome, &[], SendFlags::empty()).map_err(Error::Link)?;
    }
    Ok(())
}

fn carry_out(order: &Order, files: Vec<File>, key: &Key, folder: &Folder) -> Result<u64, Failure> {
    let pipe = || files.into_iter().next().ok_or(io::Error::from(io::ErrorKind::InvalidInput));
    match order {
        Order::Save { guest } => save(&mut pipe()?, key, folder, guest),
        Order::Load { guest } => load(&mut pipe()?, key, folder, guest),
        Order::Remove { guest } => Ok(folder.remove(guest).map(|()| 0)?),
    }
}

/// Writes what comes. It counts if it is a state from beginning to end.
fn save(pipe: &mut impl Read, key: &Key, folder: &Folder, guest: &str) -> Result<u64, Failure> {
    let unfinished = folder.create(guest)?;
    let mut sealer = Sealer::new(unfinished.file(), key, guest)?;
    let mut decoder = Decoder::default();
    let mut bytes = vec![0; READ];
    loop {
        let read = match pipe.read(&mut bytes) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        decoder.push(&bytes[..read]);
        while decoder.next_record()?.is_some() {}
        sealer.push(&bytes[..read])?;
    }
    let Moved { pages, .. } = decoder.finish()?;
    sealer.finish()?;
    unfinished.finish()?;
    Ok(pages)
}

/// Reads what was written. The worker sees whether that is all of it, as a state says where it
/// ends.
fn load(pipe: &mut impl Write, key: &Key, folder: &Folder, guest: &str) -> Result<u64, Failure> {
    let mut opener = Opener::new(folder.read(guest)?, key, guest)?;
    while let Some(bytes) = opener.next_chunk()? {
        pipe.write_all(bytes)?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_state::stream::{Encoder, Record};

    fn state() -> Vec<u8> {
        let mut encoder = Encoder::default();
        encoder.add(Record::Session { holds: Some(([3; 16], 9)), open: true });
        encoder.finish().0
    }

    #[test]
    fn a_state_that_is_cut_off_is_not_saved() {
        let directory = tempfile::tempdir().unwrap();
        let (key, folder) = (Key::of(&[1; 32]).unwrap(), Folder::open(directory.path()).unwrap());
        let state = state();
        for length in [0, 1, 20, state.len() - 1] {
            let failure = save(&mut &state[..length], &key, &folder, "a").unwrap_err();
            assert!(matches!(failure, Failure::State(Damage::Truncated)), "{length}: {failure}");
            assert!(folder.sweep().unwrap().is_empty());
        }
        assert_eq!(save(&mut &state[..], &key, &folder, "a").unwrap(), 0);
        let mut loaded = Vec::new();
        load(&mut loaded, &key, &folder, "a").unwrap();
        assert_eq!(loaded, state);
    }
}
