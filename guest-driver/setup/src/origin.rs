// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device below one of ours, or the backing device of a swap disk: nobody else may use it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::block::{Number, number_in};
use crate::error::{Result, failed};
use crate::lock::Lock;
use crate::spec::Spec;

/// A device that nobody uses and that others of us keep away from.
#[derive(Debug)]
pub(crate) struct Origin {
    /// As somebody wrote it.
    pub(crate) spec: String,
    pub(crate) path: PathBuf,
    pub(crate) number: Number,
    _lock: Lock,
}

impl Origin {
    pub(crate) fn claim(spec: &Spec) -> Result<Self> {
        let spec_text = spec.to_string();
        let found = spec.resolve().ok_or_else(|| {
            failed(format!("{spec_text}: no such block device; those that are there: lsblk -o PATH,SIZE,UUID,LABEL"))
        })?;
        let lock = Lock::of_origin(found.number)?;
        if found.number.is_ours() {
            return Err(failed(format!("{spec_text}: is itself a zcache device; name the device below it")));
        }
        check_free(&spec_text, found.number)?;
        Ok(Self { spec: spec_text, path: found.path, number: found.number, _lock: lock })
    }
}

/// That nobody uses a device.
///
/// The kernel would refuse a mounted one too, for the target has its origin to itself. It would not
/// refuse another device-mapper device over one origin, and the pages of the first would be stale
/// when that one writes.
pub(crate) fn check_free(what: &str, number: Number) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if let Some(folder) = mounted_on(&mounts, &number.to_string()) {
        return Err(failed(format!("{what}: mounted on {folder}; unmount it first")));
    }
    if is_swap(number) {
        return Err(failed(format!("{what}: in use as swap; swapoff it first")));
    }
    match number.holders().iter().find_map(|holder| number_in(holder)) {
        Some(holder) => {
            let holder = holder.path();
            Err(failed(format!("{what}: in use by {holder}; close that first")))
        }
        None => Ok(()),
    }
}

/// The folder of the first mount of a device in `/proc/self/mountinfo`.
fn mounted_on<'a>(mounts: &'a str, number: &str) -> Option<&'a str> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        (fields.nth(2)? == number).then(|| fields.nth(1))?
    })
}

fn is_swap(number: Number) -> bool {
    swapped_to().iter().any(|path| Number::of_file(Path::new(path)) == Some(number))
}

/// The files that the kernel swaps to.
pub(crate) fn swapped_to() -> Vec<String> {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_its_device() {
        let mounts = "22 1 254:0 / / rw - ext4 /dev/root rw\n28 22 0:25 / /proc rw - proc proc rw\n";
        assert_eq!(mounted_on(mounts, "254:0"), Some("/"));
        assert_eq!(mounted_on(mounts, "0:25"), Some("/proc"));
        assert_eq!(mounted_on(mounts, "25:0"), None);
        assert_eq!(mounted_on("nonsense\n\n1 2 3:4\n", "3:4"), None);
    }
}
