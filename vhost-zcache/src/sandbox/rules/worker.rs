// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the worker's kinds of threads do.

use libc::{CLONE_THREAD, ENOSYS, F_DUPFD_CLOEXEC, F_SETLK, PR_SET_NAME, PR_SET_NO_NEW_PRIVS, SOL_SOCKET};

use super::rule;
use crate::sandbox::rule::{Condition, Kind, Rule};

const CONTROL: &[Kind] = &[Kind::Control];
const QUEUE: &[Kind] = &[Kind::Queue];
const STATISTICS: &[Kind] = &[Kind::Statistics];
const SENTINEL: &[Kind] = &[Kind::Sentinel];
const STORE: &[Kind] = &[Kind::Store];
const STATE: &[Kind] = &[Kind::State];
const OTHERS: &[Kind] = &[Kind::Queue, Kind::Store, Kind::Statistics];
/// Who may find the store full and make room in it: whatever one of them does for that, all do.
const SERVING: &[Kind] = &[Kind::Control, Kind::Queue, Kind::Store];
/// Who looks at guests that may leave at that moment, and is then the last to let go of them.
const LOOKING: &[Kind] = &[Kind::State, Kind::Statistics];
#[cfg(debug_assertions)]
const STORING: &[Kind] = &[Kind::Control, Kind::Queue, Kind::Store, Kind::State, Kind::Statistics];

/// The rules.
pub const RULES: &[Rule] = &[
    // The link.
    rule!(CONTROL, SYS_recvmsg, "what the keeper says"),
    rule!(CONTROL, SYS_sendmsg, "what the keeper is told"),
    rule!(OTHERS, SYS_sendmsg, "the keeper is told of a panic").with("threads that panic"),
    // The store's memory, and guests'.
    rule!(CONTROL, SYS_memfd_create, "the store's memory"),
    rule!(CONTROL, SYS_ftruncate, "its size"),
    rule!(CONTROL, SYS_fcntl, "another handle on it, for the keeper")
        .only("to duplicate", &[Condition::is(1, F_DUPFD_CLOEXEC.cast_unsigned())]),
    rule!(CONTROL, SYS_fcntl, "the next keeper sees by it that this worker has ended")
        .only("to lock", &[Condition::is(1, F_SETLK.cast_unsigned())]),
    rule!(CONTROL, SYS_fstat, "sizes and kinds of files that come over the link"),
    rule!(CONTROL, SYS_fstatfs, "the size of their pages"),
    rule!(SERVING, SYS_fallocate, "gives memory of the store back to the host"),
    rule!(SERVING, SYS_lseek, "whether that was given back; which parts of the store's memory are in use"),
    rule!(CONTROL, SYS_pread64, "whose each part of the store's memory is, after another worker"),
    rule!(STORE, SYS_ppoll, "waits until the kernel tells that memory is short").with("kernels that can tell"),
    rule!(LOOKING, SYS_fallocate, "the same, of a guest that has left meanwhile, or when the store is full")
        .with("guests that leave"),
    rule!(LOOKING, SYS_lseek, "the same").with("guests that leave"),
    // Rings.
    rule!(CONTROL, SYS_eventfd2, "wakes a thread that serves rings"),
    rule!(CONTROL, SYS_epoll_create1, "by which that thread waits"),
    rule!(CONTROL, SYS_epoll_ctl, "for being woken"),
    rule!(CONTROL, SYS_getsockopt, "whether an event is a Unix socket")
        .only("of sockets", &[Condition::is(1, SOL_SOCKET.cast_unsigned())]),
    rule!(QUEUE, SYS_epoll_ctl, "a ring comes or leaves, or rests"),
    rule!(QUEUE, SYS_epoll_pwait, "waits for kicks"),
    rule!(QUEUE, SYS_read, "it was woken; a kick"),
    rule!(QUEUE, SYS_ppoll, "looks for room for an interrupt"),
    // Threads.
    rule!(CONTROL, SYS_clone, "starts a thread").only("threads", &[Condition::has(0, CLONE_THREAD.cast_unsigned())]),
    rule!(CONTROL, SYS_clone3, "its flags cannot be looked at; the C library goes back to clone").refused(ENOSYS),
    rule!(CONTROL, SYS_prctl, "a thread begins: its name")
        .only("names", &[Condition::is(0, PR_SET_NAME.cast_unsigned())]),
    rule!(CONTROL, SYS_prctl, "a thread narrows its rules down")
        .only("fewer rights", &[Condition::is(0, PR_SET_NO_NEW_PRIVS.cast_unsigned())]),
    rule!(CONTROL, SYS_seccomp, "a thread narrows its rules down").only("a filter", &[Condition::is(0, 1)]),
    rule!(SENTINEL, SYS_close_range, "keeps one file only, in a table of its own"),
    // A guest's state.
    rule!(CONTROL, SYS_read, "settings; whether a pipe is the end that is read"),
    rule!(STATE, SYS_ppoll, "waits for the VMM"),
    rule!(STATE, SYS_read, "a state, out of a pipe"),
    rule!(STATE, SYS_recvfrom, "a state, out of a socket"),
    rule!(STATE, SYS_sendto, "a state, into a socket"),
    rule!(STATE, SYS_sendmsg, "the keeper is told how it came out, or of a panic")
        .with("a VMM that asks before the end"),
    // Statistics.
    rule!(STATISTICS, SYS_accept4, "a reader connects"),
    rule!(STATISTICS, SYS_sendto, "the document"),
    rule!(STATISTICS, SYS_ppoll, "waits for readers"),
    rule!(STATISTICS, SYS_getsockopt, "who is at the other end")
        .only("of sockets", &[Condition::is(1, SOL_SOCKET.cast_unsigned())])
        .with("a socket with peer="),
    // Tests have a worker die by its own hand; a release cannot.
    #[cfg(debug_assertions)]
    rule!(STORING, SYS_kill, "a death to order").only("itself", &[Condition::is_self(0)]).with("builds for tests"),
];
