// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is known until the next boot, in `/run/zcache`.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::block::Number;
use crate::swapdisk::SwapDisk;
use crate::values::Name;

/// A link for each device below one of ours, by its number, to the holder that the kernel shows: the
/// udev rule hides the device while the link leads anywhere.
const ORIGINS: &str = "/run/zcache/origins";

/// Which swap disk a line of the table has got.
const SWAP: &str = "/run/zcache/swap";

/// Has udev look at a device again, which is below one of ours now. Whoever looks for filesystems
/// and volumes is to find them on that alone. It is not worth a failure.
pub(crate) fn hide_origin(name: &Name, origin: Number) {
    for holder in origin.holders() {
        let its_name = fs::read_to_string(holder.join("dm/name")).unwrap_or_default();
        if its_name.trim_end() == name.as_str() {
            let _ = link_origin(origin, &holder);
        }
    }
    origin.announce_change();
}

fn link_origin(origin: Number, holder: &Path) -> io::Result<()> {
    let link = origin_link(origin);
    fs::create_dir_all(ORIGINS)?;
    match fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(holder, link)
}

/// Undoes that.
pub(crate) fn show_origin(origin: Number) {
    let _ = fs::remove_file(origin_link(origin));
    origin.announce_change();
}

fn origin_link(origin: Number) -> PathBuf {
    Path::new(ORIGINS).join(origin.to_string())
}

/// The disk that a line has got, if it is still there and no other one has its name now.
pub(crate) fn swap_of_line(line: &Name) -> Option<SwapDisk> {
    let noted = fs::read_to_string(Path::new(SWAP).join(line.as_str())).ok()?;
    let disk = SwapDisk::find(noted.split_whitespace().next()?)?;
    (disk.identity() == noted.trim_end()).then_some(disk)
}

pub(crate) fn note_swap(line: &Name, disk: &SwapDisk) -> io::Result<()> {
    fs::create_dir_all(SWAP)?;
    fs::write(Path::new(SWAP).join(line.as_str()), disk.identity() + "\n")
}

/// Of a disk that is no more.
pub(crate) fn forget_swap(identity: &str) {
    for noted in crate::block::entries(Path::new(SWAP)) {
        if fs::read_to_string(&noted).is_ok_and(|text| text.trim_end() == identity) {
            let _ = fs::remove_file(noted);
        }
    }
}
