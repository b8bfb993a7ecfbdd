// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a kernel log must not contain after a test.

/// Beginnings of the kernel's own reports: oops and warning headers, the sanitizers,
/// lockdep, the hung-task and lockup detectors, the list and slab checkers, the OOM killer,
/// and the file systems' and block layer's words for lost data.
const MARKS: [&str; 25] = [
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
];

/// An allocation that failed. Reclaim of a kernel short of memory has such of its own, that it
/// copes with and reports all the same (the swap tables of 7.3, allocated in kswapd), so this
/// is a complaint only if one of the driver's functions is in the trace that follows.
const ALLOCATION_MARK: &str = "page allocation failure";

/// The line behind the trace of a failed allocation.
const TRACE_END: &str = "Mem-Info:";

/// How a trace names functions of the driver's modules.
const DRIVER_MARKS: [&str; 2] = ["[zcache", "[dm_zcache"];

/// Marks of data that came back wrong.
const DATA_MARKS: [&str; 6] =
    ["EXT4-fs error", "csum failed", "Read-error on swap-device", "Buffer I/O error", "blk_update_request", "Bad swap"];

/// The lines of a kernel log that are complaints.
pub(crate) fn in_log(log: &str) -> Vec<String> {
    let lines: Vec<&str> = log.lines().collect();
    let complains = |(number, line): &(usize, &&str)| {
        MARKS.iter().chain(&DATA_MARKS).any(|mark| line.contains(mark))
            || (line.contains(ALLOCATION_MARK) && driver_in_trace(&lines[number + 1..]))
    };
    lines.iter().enumerate().filter(complains).map(|(_, line)| (*line).to_owned()).collect()
}

/// Whether the trace at the beginning of these lines has a function of the driver.
fn driver_in_trace(lines: &[&str]) -> bool {
    lines
        .iter()
        .take_while(|line| !line.contains(TRACE_END))
        .any(|line| DRIVER_MARKS.iter().any(|mark| line.contains(mark)))
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

    #[test]
    fn only_allocations_of_the_driver_are_complaints() {
        let log = "[    6.1] kswapd0: page allocation failure: order:0, mode:0xc0de0(GFP_KERNEL)\n\
                   [    6.1]  swap_cluster_alloc_table+0x40/0x90\n\
                   [    6.1] Mem-Info:\n\
                   [    7.0] swaphog: page allocation failure: order:0, mode:0x800(GFP_NOIO)\n\
                   [    7.0]  zcs_write+0x80/0x300 [zcache_swap]\n\
                   [    7.0] Mem-Info:\n";
        let found = in_log(log);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains("swaphog"), "{found:#?}");
    }
}
