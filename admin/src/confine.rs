// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the process gives up before it hears anybody: it can execute and open nothing, connect to
//! Unix sockets only, and make no system call but those that have a rule here, or in the rules for
//! all Rust programs that the daemon has (`vhost_zcache::sandbox::rules::runtime`).

use libc::{AF_UNIX, SOL_SOCKET};
use vhost_zcache::sandbox::files::Reach;
use vhost_zcache::sandbox::rule::{Condition, Rule};
use vhost_zcache::sandbox::rules::runtime::EVERYBODY;
use vhost_zcache::sandbox::{self, SandboxError, SeccompMode};

/// By what tests of the sandbox know the process.
pub const NAME: &str = "admin";

macro_rules! rule {
    ($call:ident, $why:expr) => {
        Rule::new(EVERYBODY, stringify!($call), libc::$call, $why)
    };
}

/// The rules of its own.
pub const RULES: &[Rule] = &[
    #[cfg(target_arch = "x86_64")]
    rule!(SYS_epoll_wait, "waits for peers, the daemon, signals and time"),
    #[cfg(not(target_arch = "x86_64"))]
    rule!(SYS_epoll_pwait, "waits for peers, the daemon, signals and time"),
    rule!(SYS_epoll_ctl, "what it waits for changes"),
    rule!(SYS_accept4, "a peer connects"),
    rule!(SYS_getsockopt, "who is at the other end; whether a connection has come about")
        .only("of sockets", &[Condition::is(1, SOL_SOCKET.cast_unsigned())]),
    rule!(SYS_recvfrom, "requests, answers of the daemon, signals"),
    rule!(SYS_sendto, "answers, what the daemon is asked; a signal's handler says that there was one"),
    rule!(SYS_shutdown, "the end of a conversation"),
    rule!(SYS_socket, "asks the daemon, and tells the service manager that it is ready")
        .only("Unix", &[Condition::is(0, AF_UNIX.cast_unsigned())]),
    rule!(SYS_connect, "the daemon's sockets"),
    #[cfg(target_arch = "x86_64")]
    rule!(SYS_unlink, "removes its socket when it ends; Landlock says where"),
    #[cfg(not(target_arch = "x86_64"))]
    rule!(SYS_unlinkat, "removes its socket when it ends; Landlock says where"),
];

/// Confines the process, which has everything open that it listens at.
///
/// # Errors
///
/// [`SandboxError`].
pub fn confine(mode: SeccompMode, reach: &Reach) -> Result<(), SandboxError> {
    sandbox::confine_beside(NAME, mode, reach, RULES)
}
