// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the keeper does: it waits, and moves messages and files between sockets that are open.

use libc::{F_GETFL, SOL_SOCKET};

use super::rule;
use crate::sandbox::rule::{Condition, Kind, Rule};

const KEEPER: &[Kind] = &[Kind::Keeper];

/// The rules.
pub const RULES: &[Rule] = &[
    #[cfg(target_arch = "x86_64")]
    rule!(KEEPER, SYS_epoll_wait, "waits for sockets, timer, signals and the worker"),
    #[cfg(not(target_arch = "x86_64"))]
    rule!(KEEPER, SYS_epoll_pwait, "waits for sockets, timer, signals and the worker"),
    rule!(KEEPER, SYS_epoll_ctl, "what it waits for changes"),
    rule!(KEEPER, SYS_timerfd_settime, "when it is to wake up"),
    rule!(KEEPER, SYS_read, "the timer; whether a sentinel has ended; a configuration that was read"),
    rule!(KEEPER, SYS_accept4, "a VMM connects"),
    rule!(KEEPER, SYS_recvmsg, "messages of VMMs, of the worker, the spawner and a reader"),
    rule!(KEEPER, SYS_recvfrom, "messages of VMMs, but for their beginning"),
    rule!(KEEPER, SYS_sendto, "answers to VMMs; a signal's handler says that there was one"),
    rule!(KEEPER, SYS_sendmsg, "messages to the worker, the spawner, a reader and the service manager"),
    rule!(KEEPER, SYS_socketpair, "a link for the next worker, or a reader").only("Unix", &[Condition::is(0, 1)]),
    rule!(KEEPER, SYS_pipe2, "what the next worker's sentinels hold"),
    rule!(KEEPER, SYS_memfd_create, "a report on a worker that has died; a worker's settings"),
    rule!(KEEPER, SYS_pwrite64, "its text"),
    rule!(KEEPER, SYS_ppoll, "whether a VMM is still there; for the spawner's answer"),
    rule!(KEEPER, SYS_fcntl, "whether a file of memory can be written to")
        .only("to ask", &[Condition::is(1, F_GETFL.cast_unsigned())]),
    rule!(KEEPER, SYS_getsockopt, "whether an event is a Unix socket; who is at the other end")
        .only("of sockets", &[Condition::is(1, SOL_SOCKET.cast_unsigned())]),
    rule!(KEEPER, SYS_kcmp, "whether a VMM passes a file that the service manager has already")
        .only("itself", &[Condition::is_self(0), Condition::is_self(1)]),
    rule!(KEEPER, SYS_fstat, "what kind of file a VMM has passed"),
    rule!(KEEPER, SYS_pidfd_send_signal, "ends a worker. It can get at no other process"),
    rule!(KEEPER, SYS_waitid, "how a worker has ended"),
    #[cfg(target_arch = "x86_64")]
    rule!(KEEPER, SYS_unlink, "removes sockets when it ends, or a guest goes; Landlock says where"),
    #[cfg(not(target_arch = "x86_64"))]
    rule!(KEEPER, SYS_unlinkat, "removes sockets when it ends, or a guest goes; Landlock says where"),
];
