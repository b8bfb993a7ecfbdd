// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What each process of the daemon has to know before it hears anything: how it is confined, and
//! where it logs and reports. Its keeper says so on the command line.

use std::collections::BTreeSet;
use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use log::LevelFilter;
use serde::{Deserialize, Serialize};

use super::Config;
use crate::args::Args;
use crate::sandbox::SeccompMode;
use crate::saving::Saving;

/// What each process knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Common {
    /// What becomes of a system call without a rule.
    pub seccomp: SeccompMode,
    /// How much is logged at first.
    pub log_level: LevelFilter,
    /// Where reports on workers that have died go, if anywhere but to the log.
    pub crash_directory: Option<PathBuf>,
    /// Where and how what guests have is saved, if it is.
    #[serde(default)]
    pub saving: Option<Saving>,
    /// Where a newer program is looked for.
    pub upgrade_path: PathBuf,
    /// The folders of the daemon's sockets, in which others may be made later; none if there can be
    /// no others.
    pub socket_folders: BTreeSet<PathBuf>,
}

impl Common {
    /// That of a configuration, which can become another or not.
    ///
    /// # Errors
    ///
    /// When `/proc` does not say what the process's own program is.
    pub fn of(config: &Config, can_change: bool) -> io::Result<Self> {
        let folders = config.sockets().filter(|_| can_change).map(folder);
        Ok(Self {
            seccomp: config.seccomp,
            log_level: config.log_level,
            crash_directory: config.crash_directory.clone(),
            saving: config.saving.clone(),
            upgrade_path: config.upgrade_path()?,
            socket_folders: folders.collect(),
        })
    }

    /// That of the command line alone, for a worker whose keeper does not know of any other: it
    /// will say that the two do not go together.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn of_arguments(args: &Args) -> io::Result<Self> {
        Ok(Self {
            seccomp: args.seccomp.unwrap_or_default(),
            log_level: args.log_level.unwrap_or(LevelFilter::Info),
            crash_directory: args.crash_directory.clone().or_else(directory_of_systemd),
            saving: None,
            upgrade_path: args.upgrade_binary.clone().map_or_else(env::current_exe, Ok)?,
            socket_folders: BTreeSet::new(),
        })
    }
}

impl FromStr for Common {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

/// The folder that a path is in.
#[must_use]
pub fn folder(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new(".")).into()
}

/// The folder that systemd has made for the service.
#[must_use]
pub fn directory_of_systemd() -> Option<PathBuf> {
    let first = |variable| {
        // There may be several, separated by colons.
        let directories = env::var(variable).ok()?;
        directories.split(':').next().filter(|first| !first.is_empty()).map(PathBuf::from)
    };
    first("STATE_DIRECTORY").or_else(|| first("LOGS_DIRECTORY"))
}
