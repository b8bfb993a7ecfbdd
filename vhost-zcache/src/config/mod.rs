// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the operator wants: one [`Config`], whether it came from the command line, a file, or both.
//!
//! Both make a [`draft`] of it, in which each value knows where it was given; [`file`] reads
//! tables key by key ([`section`]), so that all faults are found at once. What is given on the
//! command line goes before the file. The draft becomes a [`Config`] when it has no [`fault`].
//! [`change`] says what becomes of a daemon that runs when there is another one. While it runs the
//! operator can have keys of it be others ([`alteration`]), which are kept apart from what was
//! read ([`source`]). [`settings`] is the worker's part, [`common`] what each process has to know
//! before it hears anything. A file is read again by a process of its own, the [`reader`].
//! `docs/configuration.md` has the keys.

pub mod alteration;
pub mod change;
pub mod common;
pub mod draft;
pub mod fault;
pub mod file;
pub mod reader;
pub mod section;
pub mod settings;
pub mod source;

use std::env;
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use log::LevelFilter;
use serde::{Deserialize, Serialize};

use self::draft::Draft;
use self::fault::Faults;
use self::source::Source;
use crate::access::{Peers, SocketAccess};
use crate::args::{Args, GuestWeight, Handed, HostPressure, PoolUuid, TrustDomain};
use crate::sandbox::SeccompMode;
use crate::saving::Saving;

/// Guests that can be added to a running daemon, if the operator does not say.
const SPARE_GUESTS: usize = 16;

/// What the operator wants, without a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Physical bytes of the store.
    pub memory_limit: u64,
    /// Queues of each guest's device.
    pub queues: u16,
    /// Threads that serve queues, if the operator says.
    pub workers: Option<NonZero<u8>>,
    /// Guests there can be without a restart, if the operator says.
    pub max_guests: Option<u16>,
    /// How much is logged.
    pub log_level: LevelFilter,
    /// What becomes of a system call without a rule.
    pub seccomp: SeccompMode,
    /// What is done when the host is short of memory.
    #[serde(default)]
    pub host_pressure: HostPressure,
    /// Where reports on workers that have died go, if anywhere but to the log.
    pub crash_directory: Option<PathBuf>,
    /// Where and how what guests have is saved, if it is.
    #[serde(default)]
    pub saving: Option<Saving>,
    /// Where a newer program is looked for, if not at the daemon's own path.
    pub upgrade_binary: Option<PathBuf>,
    /// Where statistics are read.
    pub stats_socket: Option<AdminSocket>,
    /// Where the operator's commands are heard.
    pub control_socket: Option<AdminSocket>,
    /// The guests. No two have the same name or socket.
    pub guests: Vec<GuestConfig>,
    /// Of what all this was made.
    pub source: Source,
}

/// A socket for operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminSocket {
    /// Where it is.
    pub path: PathBuf,
    /// Who may connect.
    pub access: SocketAccess,
    /// Whose processes may be at the other end.
    pub peers: Peers,
}

/// A guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestConfig {
    /// By what it is known: the name in the file, or the path or number of its socket.
    pub name: String,
    /// Where its VMM is met.
    pub place: Place,
    /// Whose processes may be at the other end.
    pub peers: Peers,
    /// Physical bytes it may use, if that is less than the store's.
    pub memory_limit: Option<u64>,
    /// Bytes it can count on for its persistent pages.
    pub reservation: u64,
    /// Its part of the memory for ephemeral pages, beside others'.
    #[serde(default)]
    pub weight: GuestWeight,
    /// Nothing new is stored for it.
    #[serde(default)]
    pub frozen: bool,
    /// Shared pools it may join.
    pub allow_shared: Vec<PoolUuid>,
    /// With whom it shares these.
    #[serde(default)]
    pub trust_domain: TrustDomain,
}

/// Where a VMM is met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// At a socket of this path.
    Path {
        /// The path.
        path: PathBuf,
        /// Who may connect.
        access: SocketAccess,
    },
    /// At a socket that was inherited.
    Inherited(Handed),
}

impl GuestConfig {
    /// The path of its socket, if it has one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::Path { path, .. } => Some(path),
            Place::Inherited(_) => None,
        }
    }
}

impl Config {
    /// Guests for whom there is to be room.
    #[must_use]
    pub fn room(&self) -> usize {
        self.max_guests.map_or(self.guests.len() + SPARE_GUESTS, usize::from)
    }

    /// Paths of all sockets that the daemon makes.
    pub fn sockets(&self) -> impl Iterator<Item = &Path> {
        let admin = [&self.stats_socket, &self.control_socket].into_iter().flatten();
        self.guests.iter().filter_map(GuestConfig::path).chain(admin.map(|socket| &*socket.path))
    }

    /// Where a newer program is looked for. To be asked at the start: the daemon's own program may
    /// have no name later.
    ///
    /// # Errors
    ///
    /// When `/proc` does not say what the own one is.
    pub fn upgrade_path(&self) -> io::Result<PathBuf> {
        self.upgrade_binary.clone().map_or_else(env::current_exe, Ok)
    }
}

/// Makes a configuration of the command line, and of the file that it names; and says which keys of
/// the file do not count because of the command line.
///
/// # Errors
///
/// All faults of both.
pub fn load(args: &Args) -> Result<(Config, Vec<&'static str>), Faults> {
    let given = Draft::from(args);
    let Some(path) = &args.config else {
        return Ok((given.settle().map_err(|faults| Faults::new(None, faults))?, Vec::new()));
    };
    let text = file::read(path)?;
    let (written, mut faults) = file::parse(&text);
    let (draft, overridden) = given.or(written);
    match draft.settle() {
        Ok(config) if faults.is_empty() => Ok((config, overridden)),
        Ok(_) => Err(Faults::new(Some(path), faults)),
        Err(more) => {
            faults.extend(more);
            Err(Faults::new(Some(path), faults))
        }
    }
}

/// Looks for faults in a file that would be the only source; the guests it has.
///
/// # Errors
///
/// All faults.
pub fn check(path: &Path) -> Result<usize, Faults> {
    let text = file::read(path)?;
    let (draft, mut faults) = file::parse(&text);
    let guests = match draft.settle() {
        Ok(config) => config.guests.len(),
        Err(more) => {
            faults.extend(more);
            0
        }
    };
    if faults.is_empty() { Ok(guests) } else { Err(Faults::new(Some(path), faults)) }
}
