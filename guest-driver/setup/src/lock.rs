// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whoever makes, changes or removes something holds the lock of its name and that of the device
//! below, in this order. Others are not held up, however long udev or a disk takes.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::block::Number;
use crate::error::{Result, failed, reason};
use crate::values::Name;

/// Nobody but root can hold up root here.
const FOLDER: &str = "/run/zcache/lock";

/// Held until it is dropped, or the process ends. The programs that we call do not inherit it.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    pub(crate) fn of_name(name: &Name) -> Result<Self> {
        Self::wait(&format!("name-{name}"))
    }

    pub(crate) fn of_origin(number: Number) -> Result<Self> {
        Self::wait(&format!("origin-{number}"))
    }

    pub(crate) fn of_swap_disk(disk: &str) -> Result<Self> {
        Self::wait(&format!("swap-{disk}"))
    }

    fn wait(file: &str) -> Result<Self> {
        let path = Path::new(FOLDER).join(file);
        Self::wait_at(&path).map_err(|error| failed(format!("cannot lock {}: {}", path.display(), reason(&error))))
    }

    fn wait_at(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all("/run/zcache")?;
        match DirBuilder::new().mode(0o700).create(FOLDER) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(Self { _file: file })
    }
}
