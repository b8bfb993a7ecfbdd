// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Swap disks: made, set up, swapped to, removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::block;
use crate::error::{Error, Result, failed, reason};
use crate::kernel;
use crate::lock::Lock;
use crate::origin::{Origin, swapped_to};
use crate::program;
use crate::spec::Spec;
use crate::values::{Priority, Size};

const CONTROL: &str = "/sys/class/zcswap-control";

/// What a swap disk is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    place: Place,
    priority: Option<Priority>,
}

/// Where pages go that the host does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// To a device, whose size is the disk's unless it has another.
    Backed { device: Spec, size: Option<Size>, writethrough: bool },
    /// Nowhere.
    HostOnly { size: Size },
}

impl Options {
    pub(crate) fn new(
        backing: Option<Spec>,
        size: Option<Size>,
        writethrough: bool,
        priority: Option<Priority>,
    ) -> Result<Self, String> {
        let size = size.filter(|size| size.0 > 0);
        let place = match (backing, size) {
            (Some(device), size) => Place::Backed { device, size, writethrough },
            (None, None) => return Err("a swap disk without a backing device needs a size".to_owned()),
            (None, Some(_)) if writethrough => return Err("writethrough needs a backing device".to_owned()),
            (None, Some(size)) => Place::HostOnly { size },
        };
        Ok(Self { place, priority })
    }

    pub(crate) fn backing(&self) -> Option<&Spec> {
        match &self.place {
            Place::Backed { device, .. } => Some(device),
            Place::HostOnly { .. } => None,
        }
    }
}

/// A swap disk that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SwapDisk {
    /// `zcswapN`
    pub(crate) name: String,
}

impl SwapDisk {
    /// By its name or path.
    pub(crate) fn find(name: &str) -> Option<Self> {
        let name = name.strip_prefix("/dev/").unwrap_or(name);
        let number = name.strip_prefix("zcswap")?;
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let disk = Self { name: name.to_owned() };
        (is_number && disk.folder().is_dir()).then_some(disk)
    }

    pub(crate) fn all() -> Vec<Self> {
        let folders = block::entries(Path::new("/sys/block"));
        folders.iter().filter_map(|folder| Self::find(folder.file_name()?.to_str()?)).collect()
    }

    pub(crate) fn path(&self) -> String {
        format!("/dev/{}", self.name)
    }

    fn folder(&self) -> PathBuf {
        Path::new("/sys/block").join(&self.name)
    }

    pub(crate) fn attribute(&self, file: &str) -> Option<String> {
        Some(fs::read_to_string(self.folder().join(file)).ok()?.trim_end().to_owned())
    }

    /// Tells it from one that has its name later.
    pub(crate) fn identity(&self) -> String {
        format!("{} {}", self.name, self.attribute("diskseq").unwrap_or_default()).trim_end().to_owned()
    }

    pub(crate) fn is_swapped_to(&self) -> bool {
        swapped_to().contains(&self.path())
    }

    /// Makes one, sets it up and turns swap on.
    pub(crate) fn on(options: &Options) -> Result<Self> {
        let backing = options.backing().map(Origin::claim).transpose()?;
        if let Some(backing) = &backing {
            check_content(backing)?;
        }
        kernel::load("zcache_swap")?;
        kernel::load_transport();
        let number = fs::read_to_string(format!("{CONTROL}/hot_add"))
            .map_err(|error| failed(format!("no swap disk: {}; see dmesg", reason(&error))))?;
        let disk = Self { name: format!("zcswap{}", number.trim_end()) };
        match disk.set_up(options, backing.as_ref()) {
            Ok(()) => Ok(disk),
            Err(error) => match disk.remove() {
                Ok(()) => Err(error),
                Err(and) => Err(failed(format!("{error}; and {and}"))),
            },
        }
    }

    fn set_up(&self, options: &Options, backing: Option<&Origin>) -> Result<()> {
        if let Some(backing) = backing {
            self.set("backing_dev", &backing.path.to_string_lossy())?;
        }
        // 0: as the backing device.
        let (size, writethrough) = match &options.place {
            Place::Backed { size, writethrough, .. } => (size.map_or(0, |size| size.0), *writethrough),
            Place::HostOnly { size } => (size.0, false),
        };
        self.set("writethrough", if writethrough { "1" } else { "0" })?;
        self.set("disksize", &size.to_string())?;
        program::run("mkswap", &[self.path()])?.or_complain()?;
        let mut arguments = Vec::new();
        if let Some(priority) = options.priority {
            arguments.extend(["-p".to_owned(), priority.to_string()]);
        }
        arguments.push(self.path());
        program::run("swapon", &arguments)?.or_complain()?;
        Ok(())
    }

    fn set(&self, file: &str, value: &str) -> Result<()> {
        fs::write(self.folder().join(file), format!("{value}\n")).map_err(|error| {
            failed(format!("{}/{file} does not take '{value}': {}; see dmesg", self.name, reason(&error)))
        })
    }

    /// Turns swap off and removes the disk. Every page is brought back from the host, which takes
    /// as long as it takes.
    pub(crate) fn off(&self) -> Result<()> {
        let _lock = Lock::of_swap_disk(&self.name)?;
        if self.is_swapped_to() {
            program::run("swapoff", &[self.path()])?.or_complain()?;
        }
        self.remove()
    }

    /// Tries again for a while, for udev looks into a disk that is new or has changed.
    fn remove(&self) -> Result<()> {
        const TRIES: usize = 5;
        let number = self.name.trim_start_matches("zcswap");
        let mut tries = 1;
        loop {
            match fs::write(format!("{CONTROL}/hot_remove"), format!("{number}\n")) {
                Ok(()) => return Ok(()),
                Err(error) if tries == TRIES => return Err(self.cannot_be_removed(&reason(&error))),
                Err(_) => thread::sleep(Duration::from_secs(1)),
            }
            tries += 1;
        }
    }

    fn cannot_be_removed(&self, why: &str) -> Error {
        failed(format!("{0} cannot be removed: {why}; lsblk /dev/{0} shows who has it", self.name))
    }
}

/// Swapping destroys what is on a device. An old swap space may go.
fn check_content(backing: &Origin) -> Result<()> {
    let spec = &backing.spec;
    if backing.number.has_partitions() {
        return Err(failed(format!("{spec}: has partitions; name one of them, or if all may go: wipefs -a {spec}")));
    }
    let path = backing.path.to_string_lossy();
    let content = program::run("blkid", &["-o", "value", "-s", "TYPE", &*path])?.output;
    match content.trim() {
        "" | "swap" => Ok(()),
        content => Err(failed(format!("{spec}: has {content} on it; if that may go: wipefs -a {spec}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_needs_room_somewhere() {
        let Ok(device) = "/dev/vdc".parse::<Spec>();
        let zero = Some(Size(0));
        assert!(Options::new(None, None, false, None).is_err());
        assert!(Options::new(None, zero, false, None).is_err());
        assert!(Options::new(None, Some(Size(1)), true, None).is_err());
        assert!(Options::new(None, Some(Size(1)), false, None).is_ok_and(|options| options.backing().is_none()));
        assert!(Options::new(Some(device), zero, true, None).is_ok_and(|options| options.backing().is_some()));
    }
}
