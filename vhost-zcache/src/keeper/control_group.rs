// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether the control group that the daemon is in has room for the store. Where it has not, the
//! kernel kills the worker in place of refusing it memory.

use std::fs;
use std::path::{Path, PathBuf};

use log::warn;

/// What the daemon's processes take besides the store.
const BESIDES: u64 = 64 << 20;

/// Says so when the store may take more than there is room for.
pub fn compare(store: u64) {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups, Path::new("/sys/fs/cgroup")).into_iter().filter_map(|file| {
        // "max" is none.
        fs::read_to_string(file).ok()?.trim().parse::<u64>().ok()
    });
    if let Some(limit) = limits.min().filter(|limit| *limit < store.saturating_add(BESIDES)) {
        warn!(
            "The store may take {store} bytes, but the control group has {limit} (systemd's MemoryMax): the worker is \
             killed, again and again, when guests use them; give a smaller --memory-limit"
        );
    }
}

/// Files of limits for the groups of a process, by its `/proc/PID/cgroup`: of either hierarchy,
/// from the group up to the root.
fn limit_files(groups: &str, mount: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, name) = match controllers {
            "" => (mount.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                (mount.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let group = Path::new(path.trim_start_matches('/'));
        files.extend(group.ancestors().map(|group| root.join(group).join(name)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_of_the_group_and_all_above_it() {
        let files = limit_files("9:name=systemd:/\n4:cpu,memory:/a/b\n1:cpu:/c\n0::/d\n", Path::new("/sys/fs/cgroup"));
        let expected = [
            "memory/a/b/memory.limit_in_bytes",
            "memory/a/memory.limit_in_bytes",
            "memory/memory.limit_in_bytes",
            "d/memory.max",
            "memory.max",
        ];
        assert_eq!(files, expected.map(|file| Path::new("/sys/fs/cgroup").join(file)));
    }
}
