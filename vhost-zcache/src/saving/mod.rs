// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What guests have is kept in files from one daemon to the next, if the operator wants it.
//!
//! At an orderly end each guest's state ([`crate::device_state`]) is written to a file of its own
//! in a [`folder`], [`sealed`] with the operator's [`key`]. The next daemon takes it back when a
//! ring of that guest is about to be served, and before it is the file is gone. A process of its
//! own does both ([`process`]), which alone has the key. `docs/saving.md` says why it is right.

pub mod folder;
pub mod key;
pub mod process;
pub mod sealed;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::folder::Folder;
use self::key::{Key, KeyError};
use self::sealed::{OpenError, Opener};

/// How states are saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saving {
    /// Where their files are.
    pub directory: PathBuf,
    /// The file that has the key.
    pub key: PathBuf,
    /// How long the daemon's end may take for it.
    pub timeout: Duration,
}

/// Why states cannot be saved, or taken back.
#[derive(Debug, Error)]
pub enum SavingError {
    /// There is no key.
    #[error("{0} cannot be used as --save-key: {1}")]
    Key(PathBuf, KeyError),
    /// The folder is none, or everybody's.
    #[error("{0} cannot be used as --save-directory: {1}")]
    Folder(PathBuf, io::Error),
    /// A file is none of ours.
    #[error("{0}: {1}. Remove the file if what the guest has swapped out need not come back")]
    File(PathBuf, OpenError),
    /// What a guest has is another by now.
    #[error("What was saved of {0} is not to be taken back, and cannot be removed: {1}")]
    Remove(String, io::Error),
}

impl Saving {
    /// Makes sure that states can be saved and taken back, and removes what is left of those that
    /// were not saved to the end. The guests of whom there is one.
    ///
    /// # Errors
    ///
    /// [`SavingError`], for one state that was sealed with another key, too.
    pub fn look(&self) -> Result<BTreeSet<String>, SavingError> {
        let key = Key::read(&self.key).map_err(|error| SavingError::Key(self.key.clone(), error))?;
        let in_folder = |error| SavingError::Folder(self.directory.clone(), error);
        let folder = Folder::open(&self.directory).map_err(in_folder)?;
        let guests = folder.sweep().map_err(in_folder)?;
        for guest in &guests {
            let opened = folder.read(guest).map_err(OpenError::from).and_then(|file| Opener::new(file, &key, guest));
            opened.map_err(|error| SavingError::File(folder.path(guest), error))?;
        }
        Ok(guests)
    }

    /// Removes what was saved of a guest who goes on without it.
    ///
    /// # Errors
    ///
    /// [`SavingError::Remove`].
    pub fn forget(&self, guest: &str) -> Result<(), SavingError> {
        let removed = match Folder::open(&self.directory) {
            Ok(folder) => folder.remove(guest),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        removed.map_err(|error| SavingError::Remove(guest.into(), error))
    }
}
