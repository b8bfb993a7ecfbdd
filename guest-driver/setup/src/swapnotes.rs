// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which swap disk a line of the table has got, until the next boot.

use std::fs;
use std::path::{Path, PathBuf};

use crate::block;
use crate::error::{Result, failed, reason};
use crate::swapdisk::SwapDisk;
use crate::values::Name;

const FOLDER: &str = "/run/zcache/swap";

/// The disk that a line has got, if it is still there and no other one has its name now.
pub(crate) fn disk_of(line: &Name) -> Option<SwapDisk> {
    let noted = fs::read_to_string(note_of(line)).ok()?;
    let disk = SwapDisk::find(noted.split_whitespace().next()?)?;
    (disk.identity() == noted.trim_end()).then_some(disk)
}

pub(crate) fn note(line: &Name, disk: &SwapDisk) -> Result<()> {
    fs::create_dir_all(FOLDER)
        .and_then(|()| fs::write(note_of(line), disk.identity() + "\n"))
        .map_err(|error| failed(format!("{line}: cannot be noted in {FOLDER}: {}", reason(&error))))
}

fn note_of(line: &Name) -> PathBuf {
    Path::new(FOLDER).join(line.as_str())
}

/// Turns swap to a disk off, removes it, and forgets whose it was.
pub(crate) fn turn_off(disk: &SwapDisk) -> Result<()> {
    let identity = disk.identity();
    disk.off()?;
    for noted in block::entries(Path::new(FOLDER)) {
        if fs::read_to_string(&noted).is_ok_and(|text| text.trim_end() == identity) {
            let _ = fs::remove_file(noted);
        }
    }
    Ok(())
}
