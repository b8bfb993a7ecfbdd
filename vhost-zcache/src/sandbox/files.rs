// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which files a process may reach by a path (Landlock). Files that are open or come over a socket
//! are not concerned.

use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope,
};
use log::warn;

/// What a process needs of the file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// To remove what is in these folders: its own sockets and their locks.
    Remove(Vec<PathBuf>),
    /// To execute, which takes reading libraries as well.
    Execute,
    /// Nothing.
    Nothing,
}

/// Leaves the process what it needs. Kernels without Landlock, or with a part of it, do what they
/// can.
///
/// # Errors
///
/// When the kernel knows Landlock and does not let the process be confined.
pub fn confine(reach: &Reach) -> Result<(), RulesetError> {
    // The newest that the crate's enums were checked against here; the kernel's may be older.
    let abi = ABI::V6;
    let ruleset = Ruleset::default().handle_access(AccessFs::from_all(abi))?.handle_access(AccessNet::from_all(abi))?;
    // The keeper's signals are for the worker, which is confined otherwise than it is itself.
    let scope = match reach {
        Reach::Remove(_) | Reach::Execute => Scope::AbstractUnixSocket.into(),
        Reach::Nothing => Scope::from_all(abi),
    };
    let mut ruleset = ruleset.scope(scope)?.create()?;
    let (folders, access): (&[PathBuf], BitFlags<AccessFs>) = match reach {
        Reach::Remove(folders) => (folders, AccessFs::RemoveFile.into()),
        Reach::Execute => (&[PathBuf::from("/")], AccessFs::from_read(abi)),
        Reach::Nothing => (&[], BitFlags::empty()),
    };
    for folder in folders {
        // One that has gone needs nothing to be removed from it.
        if let Ok(folder) = PathFd::new(folder) {
            ruleset = ruleset.add_rule(PathBeneath::new(folder, access))?;
        }
    }
    let status = ruleset.restrict_self()?;
    if status.ruleset == RulesetStatus::NotEnforced && *reach == Reach::Execute {
        // Said by the first process, and once.
        warn!("This kernel has no Landlock: files are kept from the daemon by the other means only");
    }
    Ok(())
}
