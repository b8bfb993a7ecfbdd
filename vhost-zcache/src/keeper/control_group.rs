// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How much room the control group that the daemon is in has for the store. Where there is less
//! than the store takes, the kernel kills the worker in place of refusing it memory, or makes it
//! wait for memory that it does not find; so the store takes less.

use std::fs;
use std::path::{Path, PathBuf};

use log::warn;

/// What the daemon's processes take besides the store, and the kernel for them; and the part of the
/// group's memory that is if that is more, as page tables grow with the store.
const BESIDES: u64 = 64 << 20;
const BESIDES_PARTS: u64 = 16;

/// The most that the store may take for what there is room for. Says so when that is less than it
/// is to take.
#[must_use]
pub fn room_for(store: u64) -> u64 {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups, Path::new("/sys/fs/cgroup")).into_iter().filter_map(|file| {
        // "max" is none.
        fs::read_to_string(file).ok()?.trim().parse::<u64>().ok()
    });
    let Some(limit) = limits.min() else { return u64::MAX };
    let room = room_in(limit);
    if room < store {
        warn!(
            "The store takes up to {room} bytes in place of {store}: the control group has {limit} (systemd's \
             MemoryMax or MemoryHigh), some of which the daemon takes besides"
        );
    }
    room
}

/// Bytes for the store in a group with a limit.
fn room_in(limit: u64) -> u64 {
    // Of a small group, half.
    limit - BESIDES.max(limit / BESIDES_PARTS).min(limit / 2)
}

/// Files of limits for the groups of a process, by its `/proc/PID/cgroup`: of either hierarchy,
/// from the group up to the root.
fn limit_files(groups: &str, mount: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, names) = match controllers {
            "" => (mount.to_owned(), &["memory.max", "memory.high"][..]),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                (mount.join("memory"), &["memory.limit_in_bytes"][..])
            }
            _ => continue,
        };
        let group = Path::new(path.trim_start_matches('/'));
        let of_group = |group: &Path| names.iter().map(|name| root.join(group).join(name)).collect::<Vec<_>>();
        files.extend(group.ancestors().flat_map(of_group));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_group_is_left_to_the_processes() {
        let rooms = [0, 64 << 20, 128 << 20, 1 << 30, 64 << 30].map(room_in);
        assert_eq!(rooms, [0, 32 << 20, 64 << 20, 960 << 20, 60 << 30]);
        assert!(room_in(u64::MAX) > u64::MAX / 16 * 14, "a limit that is none is no limit for the store");
    }

    #[test]
    fn limits_are_of_the_group_and_all_above_it() {
        let files = limit_files("9:name=systemd:/\n4:cpu,memory:/a/b\n1:cpu:/c\n0::/d\n", Path::new("/sys/fs/cgroup"));
        let expected = [
            "memory/a/b/memory.limit_in_bytes",
            "memory/a/memory.limit_in_bytes",
            "memory/memory.limit_in_bytes",
            "d/memory.max",
            "d/memory.high",
            "memory.max",
            "memory.high",
        ];
        assert_eq!(files, expected.map(|file| Path::new("/sys/fs/cgroup").join(file)));
    }
}
