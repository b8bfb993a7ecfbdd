// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which files a process may reach by a path, and which processes by a signal (Landlock). Files
//! that are open or come over a socket are not concerned.

use std::path::{Path, PathBuf};

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
    Execute {
        /// Where others write reports, which have no more than the process has.
        reports: Option<PathBuf>,
        /// Where others make sockets, with their locks.
        sockets: Vec<PathBuf>,
        /// Where others save what guests have.
        saved: Option<PathBuf>,
    },
    /// To read, and to make sockets.
    Read {
        /// Where, with their locks.
        sockets: Vec<PathBuf>,
    },
    /// To write reports to this folder, and to remove old ones.
    Report(PathBuf),
    /// To read, write and remove what guests have, in this folder.
    Save(PathBuf),
    /// Nothing.
    Nothing,
}

/// The newest version of Landlock that is made use of; the kernel's may be older.
const NEWEST: ABI = ABI::V6;

/// Closes this process off, with all that it starts: signals and abstract sockets of theirs reach
/// nobody else.
///
/// # Errors
///
/// When the kernel knows Landlock and does not let the process be confined.
pub fn close_off() -> Result<(), RulesetError> {
    Ruleset::default().scope(Scope::from_all(NEWEST))?.create()?.restrict_self()?;
    Ok(())
}

/// Leaves the process what it needs. Kernels without Landlock, or with a part of it, do what they
/// can.
///
/// # Errors
///
/// When the kernel knows Landlock and does not let the process be confined.
pub fn confine(reach: &Reach) -> Result<(), RulesetError> {
    let ruleset = Ruleset::default().handle_access(AccessFs::from_all(NEWEST))?;
    let ruleset = ruleset.handle_access(AccessNet::from_all(NEWEST))?;
    // The keeper's signals are for the worker, with which it was closed off.
    let mut ruleset = match reach {
        Reach::Remove(_) | Reach::Execute { .. } => ruleset,
        Reach::Read { .. } | Reach::Report(_) | Reach::Save(_) | Reach::Nothing => {
            ruleset.scope(Scope::from_all(NEWEST))?
        }
    }
    .create()?;
    let report = AccessFs::ReadDir | AccessFs::MakeReg | AccessFs::WriteFile | AccessFs::RemoveFile;
    let save = report | AccessFs::ReadFile;
    let socket = AccessFs::MakeSock | AccessFs::MakeReg | AccessFs::WriteFile | AccessFs::RemoveFile;
    let folders: Vec<(&Path, BitFlags<AccessFs>)> = match reach {
        Reach::Remove(folders) => folders.iter().map(|folder| (&**folder, AccessFs::RemoveFile.into())).collect(),
        Reach::Execute { reports, sockets, saved } => {
            let reports = reports.iter().map(|folder| (&**folder, report));
            let sockets = sockets.iter().map(|folder| (&**folder, socket));
            let saved = saved.iter().map(|folder| (&**folder, save));
            let all = [(Path::new("/"), AccessFs::from_read(NEWEST))].into_iter();
            all.chain(reports).chain(sockets).chain(saved).collect()
        }
        Reach::Read { sockets } => {
            let sockets = sockets.iter().map(|folder| (&**folder, socket));
            [(Path::new("/"), AccessFs::ReadFile | AccessFs::ReadDir)].into_iter().chain(sockets).collect()
        }
        Reach::Report(folder) => vec![(folder.as_path(), report)],
        Reach::Save(folder) => vec![(folder.as_path(), save)],
        Reach::Nothing => Vec::new(),
    };
    for (folder, access) in folders {
        // One that has gone needs nothing to be removed from it.
        if let Ok(folder) = PathFd::new(folder) {
            ruleset = ruleset.add_rule(PathBeneath::new(folder, access))?;
        }
    }
    let status = ruleset.restrict_self()?;
    if status.ruleset == RulesetStatus::NotEnforced && matches!(reach, Reach::Execute { .. }) {
        // Said by the first process, and once.
        warn!("This kernel has no Landlock: files are kept from the daemon by the other means only");
    }
    Ok(())
}
