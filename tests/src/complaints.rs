// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a kernel log must not contain after a test.

/// Beginnings of the kernel's own reports: oops and warning headers, the sanitizers,
/// lockdep, the hung-task and lockup detectors, the list and slab checkers, the OOM killer,
/// and the file systems' and block layer's words for lost data.
const MARKS: [&str; 26] = [
    "BUG:",
    "WARNING:",
    "KASAN:",
    "UBSAN:",
    "Oops:",
    "general protection fault",
    "Kernel panic",
    "kernel BUG at",
    "INFO: task",
    "INFO: rcu",
    "rcu: INFO",
    "possible circular locking",
    "possible recursive locking",
    "possible irq lock inversion",
    "inconsistent lock state",
    "suspicious RCU usage",
    "held lock freed",
    "sleeping function called",
    "scheduling while atomic",
    "soft lockup",
    "hard LOCKUP",
    "list_add corruption",
    "list_del corruption",
    "refcount_t:",
    "Out of memory: Killed",
    "page allocation failure",
];

/// Marks of data that came back wrong.
const DATA_MARKS: [&str; 6] =
    ["EXT4-fs error", "csum failed", "Read-error on swap-device", "Buffer I/O error", "blk_update_request", "Bad swap"];

/// The lines of a kernel log that are complaints.
pub(crate) fn in_log(log: &str) -> Vec<String> {
    log.lines()
        .filter(|line| MARKS.iter().chain(&DATA_MARKS).any(|mark| line.contains(mark)))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_found_and_ordinary_lines_are_not() {
        let log = "[    0.0] Linux version 5.10.0\n\
                   [    1.2] BUG: KASAN: use-after-free in zcache_put+0x1/0x2\n\
                   [    1.3] EXT4-fs (vdb): mounted filesystem with ordered data mode\n\
                   [    2.0] WARNING: possible circular locking dependency detected\n\
                   [    3.0] INFO: task swaphog:80 blocked for more than 120 seconds.\n\
                   [    4.0] BTRFS warning (device vdc): csum failed root 5 ino 257 off 0\n";
        let found = in_log(log);
        assert_eq!(found.len(), 4, "{found:#?}");
        assert!(found.iter().all(|line| !line.contains("ordered data mode")));
    }
}
