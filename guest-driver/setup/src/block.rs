// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Block devices as the kernel shows them in `/sys`.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{FileType, major, minor};

/// How the UUIDs of our devices begin.
pub(crate) const OUR_UUIDS: &str = "ZCACHE-";

/// A block device by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number {
    major: u32,
    minor: u32,
}

impl Number {
    /// Of the block device that a file is.
    pub(crate) fn of_file(path: &Path) -> Option<Self> {
        let stat = rustix::fs::stat(path).ok()?;
        let device = stat.st_rdev;
        (FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice)
            .then(|| Self { major: major(device), minor: minor(device) })
    }

    fn folder(self) -> PathBuf {
        PathBuf::from(format!("/sys/dev/block/{self}"))
    }

    /// What a file of it has, without the newline.
    pub(crate) fn attribute(self, file: &str) -> Option<String> {
        Some(fs::read_to_string(self.folder().join(file)).ok()?.trim_end().to_owned())
    }

    /// Its path for people.
    pub(crate) fn path(self) -> String {
        if let Some(name) = self.attribute("dm/name") {
            return format!("/dev/mapper/{name}");
        }
        let uevent = self.attribute("uevent").unwrap_or_default();
        match uevent.lines().find_map(|line| line.strip_prefix("DEVNAME=")) {
            Some(name) => format!("/dev/{name}"),
            None => self.to_string(),
        }
    }

    /// Whether this tool made it.
    pub(crate) fn is_ours(self) -> bool {
        self.mapped_uuid().starts_with(OUR_UUIDS)
    }

    fn mapped_uuid(self) -> String {
        self.attribute("dm/uuid").unwrap_or_default()
    }

    pub(crate) fn sectors(self) -> u64 {
        self.attribute("size").and_then(|size| size.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn is_read_only(self) -> bool {
        self.attribute("ro").is_some_and(|ro| ro != "0")
    }

    /// Whether partitions are known of it.
    pub(crate) fn has_partitions(self) -> bool {
        entries(&self.folder()).iter().any(|entry| entry.join("partition").exists())
    }

    /// Links to the devices over it.
    pub(crate) fn holders(self) -> Vec<PathBuf> {
        entries(&self.folder().join("holders"))
    }

    /// Whether it, or a device below it, is made by dm-crypt.
    pub(crate) fn is_encrypted(self) -> bool {
        self.mapped_uuid().starts_with("CRYPT-")
            || entries(&self.folder().join("slaves"))
                .iter()
                .filter_map(|below| number_in(below))
                .any(Self::is_encrypted)
    }

    /// Has udev look at it again. Where there is no udev nobody does.
    pub(crate) fn announce_change(self) {
        let _ = fs::write(self.folder().join("uevent"), "change\n");
    }
}

/// The number of the device that a folder of `/sys` is about.
pub(crate) fn number_in(folder: &Path) -> Option<Number> {
    fs::read_to_string(folder.join("dev")).ok()?.trim_end().parse().ok()
}

/// What is in a folder, in order; nothing where there is none.
pub(crate) fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

impl FromStr for Number {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (major, minor) = text.split_once(':').ok_or(())?;
        let number = |text: &str| text.parse().map_err(drop);
        Ok(Self { major: number(major)?, minor: number(minor)? })
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}
