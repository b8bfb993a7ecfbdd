// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether modules and tool could be removed: nothing is in use, and nothing is wanted at boot.

use std::fs;

use crate::error::{Error, Result, Voice};
use crate::mapped::details::Details;
use crate::origin::check_free;
use crate::swapdisk::SwapDisk;
use crate::table;

const TABLES: [&str; 2] = ["/etc/fstab", "/etc/crypttab"];

/// What says where the root filesystem is: to the kernel that runs, and to those that come.
const COMMAND_LINES: [&str; 4] = ["/proc/cmdline", "/boot/grub/grub.cfg", "/etc/default/grub", "/etc/kernel/cmdline"];

/// Says all that is in the way, for who obeys one message and reboots must not miss another.
pub(crate) fn check() -> Result<()> {
    let obstacles = obstacles()?;
    for obstacle in &obstacles {
        Voice::default().say(obstacle);
    }
    if obstacles.is_empty() { Ok(()) } else { Err(Error::Said) }
}

fn obstacles() -> Result<Vec<String>> {
    let table = table::path();
    let devices = Details::of_all()?;
    // A table that is not there names nothing.
    let entries = table::read(&table).unwrap_or_default();
    let mut names: Vec<_> = devices.iter().map(|details| details.mapped.name.as_str()).collect();
    names.extend(entries.iter().map(|entry| entry.name.as_str()));
    names.sort_unstable();
    names.dedup();
    let paths: Vec<_> = names.iter().map(|name| format!("/dev/mapper/{name}")).collect();

    let mut obstacles = named_by_files(&paths);
    let disks = SwapDisk::all();
    let in_use = disks.iter().filter(|disk| disk.is_swapped_to()).map(SwapDisk::path);
    obstacles.extend(in_use.map(|disk| format!("{disk} is in use: zcachesetup swap off {disk} first")));
    let in_use = devices.iter().filter(|details| check_free("", details.mapped.number).is_err());
    obstacles.extend(in_use.map(|details| {
        format!(
            "/dev/mapper/{} is in use: unmount it and close it first; if it is /, take its line out of {}, \
             update-initramfs -u -k all (dracut: dracut -f --regenerate-all), reboot",
            details.mapped.name,
            table.display()
        )
    }));
    Ok(obstacles)
}

fn named_by_files(paths: &[String]) -> Vec<String> {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let mut found = Vec::new();
    for file in TABLES {
        let text = read(file);
        let named = paths.iter().filter(|path| names_device(&text, path));
        found.extend(named.map(|path| format!("{file} names {path}: write there what is below it, by UUID=")));
    }
    for file in COMMAND_LINES {
        let text = read(file);
        let named = paths.iter().filter(|path| has_root(&text, path));
        found.extend(named.map(|path| {
            format!("{file} has root={path}: it has to be root=UUID= before the line of {path} is taken out")
        }));
    }
    found
}

/// Whether the kernel is told that the root filesystem is on this device.
fn has_root(text: &str, device: &str) -> bool {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(|line| line.split(|c: char| c.is_whitespace() || "\"'".contains(c)))
        .any(|word| word.strip_prefix("root=") == Some(device))
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

    #[test]
    fn the_kernel_is_told_where_the_root_is() {
        let grub = "# root=/dev/mapper/a\n\tlinux\t/vmlinuz root=/dev/mapper/b ro\n\
                    GRUB_CMDLINE_LINUX=\"root=/dev/mapper/c\"\nx-root=/dev/mapper/d root=UUID=0f\n";
        for (device, named) in [("a", false), ("b", true), ("c", true), ("d", false), ("e", false)] {
            assert_eq!(has_root(grub, &format!("/dev/mapper/{device}")), named, "{device}");
        }
    }
}
