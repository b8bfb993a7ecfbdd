// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the spawner, and whatever it executes, never does.
//!
//! It is no list of what is allowed: a worker keeps its filter for good, and the next release's may
//! make a call that this one does not know of. A worker adds the list of its own release.

use std::ffi::c_long;

/// A call that is denied.
#[derive(Debug, Clone, Copy)]
pub struct Denial {
    symbol: &'static str,
    /// Its number.
    pub number: c_long,
    /// What it would be good for.
    pub why: &'static str,
}

impl Denial {
    /// Name of the call.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.symbol.trim_start_matches("SYS_")
    }
}

macro_rules! never {
    ($($why:literal: $($call:ident)*;)*) => {
        &[$($(Denial { symbol: stringify!($call), number: libc::$call, why: $why },)*)*]
    };
}

/// The calls.
pub const NEVER: &[Denial] = never! {
    "other processes' memory and files":
        SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_process_madvise SYS_kcmp SYS_pidfd_getfd;
    "the host's file systems":
        SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_open_by_handle_at SYS_name_to_handle_at SYS_mknodat
        SYS_swapon SYS_swapoff SYS_quotactl SYS_fsopen SYS_fsmount SYS_fspick SYS_move_mount SYS_open_tree
        SYS_mount_setattr SYS_fanotify_init;
    "other namespaces": SYS_unshare SYS_setns;
    "the kernel itself":
        SYS_init_module SYS_finit_module SYS_delete_module SYS_kexec_load SYS_bpf SYS_perf_event_open
        SYS_userfaultfd SYS_io_uring_setup SYS_syslog SYS_acct SYS_reboot;
    "the host's clock and name":
        SYS_settimeofday SYS_clock_settime SYS_clock_adjtime SYS_adjtimex SYS_sethostname SYS_setdomainname;
    "keys": SYS_add_key SYS_request_key SYS_keyctl;
    "another user's rights":
        SYS_setuid SYS_setgid SYS_setreuid SYS_setregid SYS_setresuid SYS_setresgid SYS_setfsuid SYS_setfsgid
        SYS_setgroups;
    "where others run and their memory is":
        SYS_migrate_pages SYS_move_pages;
};
