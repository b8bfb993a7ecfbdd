// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What every thread does, by being a thread of a Rust program. It depends on the C library, whose
//! versions do it by different calls; these are rules for all that are known.

use libc::{EACCES, ENOTTY, PR_SET_VMA, PROT_EXEC};

use super::rule;
use crate::sandbox::rule::{Condition, Kind, Rule};

/// Everybody.
pub const EVERYBODY: &[Kind] = &Kind::ALL;

const NO_CODE: &[Condition] = &[Condition::lacks(2, PROT_EXEC.cast_unsigned())];

/// The rules.
pub const RULES: &[Rule] = &[
    // Memory.
    rule!(EVERYBODY, SYS_brk, "the allocator grows the heap"),
    rule!(EVERYBODY, SYS_mmap, "the allocator, stacks of threads; guest memory and the store in the worker")
        .only("no code", NO_CODE),
    rule!(EVERYBODY, SYS_mprotect, "the allocator, guard pages of stacks").only("no code", NO_CODE),
    rule!(EVERYBODY, SYS_munmap, "gives memory back"),
    rule!(EVERYBODY, SYS_mremap, "the allocator grows what is large")
        .only("not to an address", &[Condition::lacks(3, 2)])
        .with("buffers that grow beyond 128 KiB"),
    rule!(EVERYBODY, SYS_madvise, "the allocator, stacks of threads that end; huge pages of the store in the worker"),
    // Threads.
    rule!(EVERYBODY, SYS_futex, "locks, and the ends of threads"),
    rule!(EVERYBODY, SYS_sched_yield, "locks that are held for long").with("locks that are fought for"),
    rule!(EVERYBODY, SYS_rt_sigprocmask, "threads that begin or end; abort"),
    rule!(EVERYBODY, SYS_rt_sigaction, "handlers; the default is restored by abort and by faults that are nobody's"),
    rule!(EVERYBODY, SYS_rt_sigreturn, "a handler returns"),
    rule!(EVERYBODY, SYS_sigaltstack, "each thread has a stack for the fault of its stack"),
    rule!(EVERYBODY, SYS_set_robust_list, "a thread begins"),
    rule!(EVERYBODY, SYS_rseq, "a thread begins, or ends in some versions"),
    rule!(EVERYBODY, SYS_prctl, "the allocator names its memory")
        .only("memory's names", &[Condition::is(0, PR_SET_VMA.cast_unsigned())])
        .with("glibc's tunable decorate_maps"),
    rule!(EVERYBODY, SYS_gettid, "abort; names of threads that panic"),
    rule!(EVERYBODY, SYS_getpid, "abort, and signals to a thread").with("aborts and interrupts"),
    rule!(EVERYBODY, SYS_tgkill, "abort; a thread that serves rings is interrupted")
        .only("itself", &[Condition::is_self(0)])
        .with("aborts and interrupts"),
    rule!(EVERYBODY, SYS_exit, "a thread ends").with("the ends of threads; the first one's ends the process"),
    rule!(EVERYBODY, SYS_exit_group, "the process ends"),
    rule!(EVERYBODY, SYS_restart_syscall, "the kernel goes on with a call after SIGSTOP and SIGCONT")
        .with("a wait that was stopped"),
    rule!(EVERYBODY, SYS_sched_getaffinity, "how many processors there are, for the allocator and the store"),
    // Time and chance.
    rule!(EVERYBODY, SYS_clock_gettime, "time, where the kernel does not give it without a call")
        .with("clocks that are not in the vDSO"),
    rule!(EVERYBODY, SYS_clock_nanosleep, "sleeps").with("errors that are waited out"),
    rule!(EVERYBODY, SYS_getrandom, "seeds of hash tables, of the store, of the allocator"),
    // Files that are open.
    rule!(EVERYBODY, SYS_write, "the log; events"),
    rule!(EVERYBODY, SYS_writev, "the log, messages of abort").with("lines that are in pieces"),
    rule!(EVERYBODY, SYS_close, "files that came over a socket, and others"),
    #[cfg(debug_assertions)]
    rule!(EVERYBODY, SYS_fcntl, "builds for tests look whether what they close is open")
        .only("to look", &[Condition::is(1, libc::F_GETFD.cast_unsigned())])
        .with("builds for tests"),
    // What a library can do without. No file is reached by a path in any case.
    rule!(EVERYBODY, SYS_openat, "the C library and backtraces look at files of /proc and /sys, and go on without")
        .refused(EACCES),
    rule!(EVERYBODY, SYS_getcwd, "a backtrace shortens paths").refused(EACCES),
    #[cfg(target_arch = "x86_64")]
    rule!(EVERYBODY, SYS_readlink, "a backtrace looks where the program is").refused(EACCES),
    rule!(EVERYBODY, SYS_readlinkat, "the same").refused(EACCES),
    rule!(EVERYBODY, SYS_statx, "a backtrace looks for more about the program").refused(EACCES),
    rule!(EVERYBODY, SYS_newfstatat, "the same").refused(EACCES),
    rule!(EVERYBODY, SYS_ioctl, "the C library asks whether the log is a terminal").refused(ENOTTY),
];
