// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Devices below ours are hidden from whoever looks for filesystems and volumes.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::block::Number;
use crate::values::Name;

/// A link for each device below one of ours, by its number, to the holder that the kernel shows:
/// the udev rule hides the device while the link leads anywhere.
const FOLDER: &str = "/run/zcache/origins";

/// Has udev look at a device again, which is below one of ours now: what is on it is to be found on
/// that alone. It is not worth a failure.
pub(crate) fn hide(name: &Name, origin: Number) {
    for holder in origin.holders() {
        let its_name = fs::read_to_string(holder.join("dm/name")).unwrap_or_default();
        if its_name.trim_end() == name.as_str() {
            let _ = link(origin, &holder);
        }
    }
    origin.announce_change();
}

fn link(origin: Number, holder: &Path) -> io::Result<()> {
    let path = origin_link(origin);
    fs::create_dir_all(FOLDER)?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(holder, path)
}

/// Undoes that.
pub(crate) fn show(origin: Number) {
    let _ = fs::remove_file(origin_link(origin));
    origin.announce_change();
}

fn origin_link(origin: Number) -> PathBuf {
    Path::new(FOLDER).join(origin.to_string())
}
