// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a process or thread that was taken over could still do: as little as possible.
//!
//! Each process gives up its [`privileges`] and the file system ([`files`]) when all that it needs
//! is open, and before it hears the first word of a peer. From then on it may make the system calls
//! that [`rules`] has for its [`Kind`], each with a reason. Threads of the worker narrow these down
//! to their own at their start. `docs/sandbox.md` is about the whole.

pub mod files;
pub mod filter;
pub mod privileges;
pub mod probe;
pub mod rule;
pub mod rules;

use std::io;
use std::path::Path;
use std::sync::OnceLock;

use clap::ValueEnum;
use log::error;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::files::Reach;
use self::filter::{Filter, FilterError};
use self::rule::{Kind, Rule};
use crate::config::common::Common;

/// What becomes of a system call without a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum SeccompMode {
    /// The process is killed.
    #[default]
    Kill,
    /// It is carried out, and the kernel logs it.
    Log,
    /// There are no rules.
    None,
}

/// Why a process is not confined.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// The kernel keeps the process privileged.
    #[error("privileges cannot be given up: {0}")]
    Privileges(#[from] io::Error),
    /// Landlock refuses.
    #[error("files cannot be kept away: {0}")]
    Files(#[from] landlock::RulesetError),
    /// The filter is not taken.
    #[error("system calls cannot be filtered: {0}")]
    Calls(#[from] FilterError),
}

/// Gives up privileges and files. What a library wants to know once and for all it is asked before.
fn give_up(reach: &Reach) -> Result<(), SandboxError> {
    let _ = rustix::param::page_size();
    privileges::drop_all()?;
    files::confine(reach)?;
    Ok(())
}

/// The filters of the worker's threads, once it is confined.
static THREADS: OnceLock<Vec<(Kind, Filter)>> = OnceLock::new();

/// Closes the daemon off from other processes. To be called before it has a second process.
///
/// # Errors
///
/// [`SandboxError`].
pub fn close_off() -> Result<(), SandboxError> {
    Ok(files::close_off()?)
}

/// Confines the keeper, which needs `reach` when it ends.
///
/// # Errors
///
/// [`SandboxError`].
pub fn confine_keeper(mode: SeccompMode, reach: &Reach) -> Result<(), SandboxError> {
    give_up(reach)?;
    Filter::new(&rules::of(Kind::Keeper), mode, std::process::id())?.apply()?;
    probe::confined(Kind::Keeper.name());
    Ok(())
}

/// Confines the spawner, which has reports and what guests have written to directories, and sockets
/// made in folders. Its filter is of another kind, because all that it executes keeps it.
///
/// # Errors
///
/// [`SandboxError`].
pub fn confine_spawner(common: &Common) -> Result<(), SandboxError> {
    let (reports, sockets) = (common.crash_directory.clone(), common.socket_folders.iter().cloned().collect());
    let saved = common.saving.as_ref().map(|saving| saving.directory.clone());
    give_up(&Reach::Execute { reports, sockets, saved })?;
    Ok(Filter::denying(rules::spawner::NEVER, common.seccomp)?.apply()?)
}

/// Confines the process that writes a report to a directory, which has the spawner's filter.
///
/// # Errors
///
/// [`SandboxError`].
pub fn confine_report(directory: &Path) -> Result<(), SandboxError> {
    give_up(&Reach::Report(directory.into()))
}

/// Confines the process that saves what guests have to a directory, which has the spawner's filter.
///
/// # Errors
///
/// [`SandboxError`].
pub fn confine_saver(directory: &Path) -> Result<(), SandboxError> {
    give_up(&Reach::Save(directory.into()))
}

/// Confines the process that reads the configuration again, which has the spawner's filter.
///
/// # Errors
///
/// [`SandboxError`].
pub fn confine_reader(common: &Common) -> Result<(), SandboxError> {
    give_up(&Reach::Read { sockets: common.socket_folders.iter().cloned().collect() })
}

/// Confines the worker, of which this is the only thread yet.
///
/// # Errors
///
/// [`SandboxError`].
pub fn confine_worker(mode: SeccompMode) -> Result<(), SandboxError> {
    give_up(&Reach::Nothing)?;
    let filter = |kind| Ok::<_, FilterError>((kind, Filter::new(&rules::of(kind), mode, std::process::id())?));
    let threads = [Kind::Queue, Kind::Store, Kind::Statistics, Kind::Sentinel, Kind::State].into_iter().map(filter);
    let threads = threads.collect::<Result<_, _>>()?;
    Filter::new(&rules::of_worker(), mode, std::process::id())?.apply()?;
    let _ = THREADS.set(threads);
    probe::confined(Kind::Control.name());
    Ok(())
}

/// Confines a process beside the daemon, which needs `reach` when it ends, to what all Rust
/// programs do and to calls of its `own`. Its tests know it by a name.
///
/// # Errors
///
/// [`SandboxError`].
pub fn confine_beside(name: &str, mode: SeccompMode, reach: &Reach, own: &[Rule]) -> Result<(), SandboxError> {
    close_off()?;
    give_up(reach)?;
    let rules: Vec<&Rule> = rules::runtime::RULES.iter().chain(own).collect();
    Filter::new(&rules, mode, std::process::id())?.apply()?;
    probe::confined(name);
    Ok(())
}

/// Confines this thread of the worker to what its kind does, if the process is confined. One that
/// cannot be is the end of the process: it goes on as the next one.
pub fn confine_thread(kind: Kind) {
    let Some(threads) = THREADS.get() else { return };
    let filter = threads.iter().find(|(whose, _)| *whose == kind).map(|(_, filter)| filter);
    if let Some(Err(error)) = filter.map(Filter::apply) {
        error!("{}", SandboxError::Calls(error));
        std::process::abort();
    }
    probe::confined(kind.name());
}
