// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether modules and tool could be removed: nothing is in use, and nothing is wanted at boot.

use std::fs;

use crate::error::{Result, failed};
use crate::mapped::details::Details;
use crate::origin::check_free;
use crate::swapdisk::SwapDisk;
use crate::table;

const TABLES: [&str; 2] = ["/etc/fstab", "/etc/crypttab"];

pub(crate) fn check() -> Result<()> {
    let table = table::path();
    let devices = Details::of_all()?;
    for Details { mapped, .. } in &devices {
        if check_free("", mapped.number).is_err() {
            return Err(failed(format!(
                "/dev/mapper/{} is in use: unmount it and close it first; if it is /, take its line out of {}, \
                 update-initramfs -u, reboot",
                mapped.name,
                table.display()
            )));
        }
    }
    if let Some(disk) = SwapDisk::all().iter().find(|disk| disk.is_swapped_to()) {
        return Err(failed(format!("{0} is in use: zcachesetup swap off {0} first", disk.path())));
    }
    // A table that is not there names nothing.
    let entries = table::read(&table).unwrap_or_default();
    let of_table = entries.iter().filter(|entry| entry.line.is_ok()).map(|entry| entry.name.as_str());
    for name in devices.iter().map(|details| details.mapped.name.as_str()).chain(of_table) {
        let path = format!("/dev/mapper/{name}");
        for file in TABLES {
            if names_device(&fs::read_to_string(file).unwrap_or_default(), &path) {
                return Err(failed(format!("{file} names {path}: write there what is below it, by UUID=")));
            }
        }
    }
    Ok(())
}

/// Whether a line of fstab or crypttab does.
fn names_device(file: &str, device: &str) -> bool {
    file.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .any(|line| line.split_whitespace().take(2).any(|field| field == device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_by_either_of_two_fields() {
        let file = "# /dev/mapper/a\n/dev/mapper/b /srv ext4 x=/dev/mapper/c\nlow /dev/mapper/d none\n";
        for (device, named) in [("a", false), ("b", true), ("c", false), ("d", true), ("e", false)] {
            assert_eq!(names_device(file, &format!("/dev/mapper/{device}")), named, "{device}");
        }
    }
}
