// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sees each system call of a daemon: the kernel asks before it makes one (seccomp user
//! notification), and is told to go on.
//!
//! The daemon runs with `--seccomp log`, so that a call without a rule is seen and not the end.
//! Where its threads stand is told by what they have called: one that has given a filter to the
//! kernel is confined.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, PR_SET_NO_NEW_PRIVS, SECCOMP_FILTER_FLAG_NEW_LISTENER,
    SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF, SECCOMP_SET_MODE_FILTER, SECCOMP_USER_NOTIF_FLAG_CONTINUE, c_long,
    seccomp_notif, seccomp_notif_resp, sock_filter, sock_fprog,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use vhost_zcache::sandbox::rule::{Kind, Rule};
use vhost_zcache::sandbox::rules;

/// `SECCOMP_IOCTL_NOTIF_RECV` and `SECCOMP_IOCTL_NOTIF_SEND` of linux/seccomp.h.
const RECEIVE: u64 = 0xc050_2100;
const SEND: u64 = 0xc018_2101;

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Rules that allowed a call, by their number.
    pub used: BTreeSet<(Kind, usize)>,
    /// Calls without a rule, with the arguments they were last made with.
    pub without: BTreeMap<(Kind, c_long), [u64; 6]>,
}

/// Sees what a daemon calls.
pub(crate) struct Observer {
    seen: Arc<Mutex<Seen>>,
    thread: JoinHandle<()>,
}

impl Observer {
    /// Observes a command that has not been started.
    pub(crate) fn of(command: &mut Command) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("a socket");
        let prepare = move || install(theirs.as_raw_fd());
        // SAFETY: it makes system calls with what is on its stack, and nothing else.
        unsafe { command.pre_exec(prepare) };
        let seen = Arc::<Mutex<Seen>>::default();
        let watcher = Watcher { seen: Arc::clone(&seen), threads: BTreeMap::new() };
        let thread = thread::spawn(move || watcher.run(&receive(&ours)));
        Self { seen, thread }
    }

    /// All that was seen, once the daemon has ended.
    pub(crate) fn seen(self) -> Seen {
        self.thread.join().expect("the observer");
        std::mem::take(&mut *self.seen.lock().expect("the calls"))
    }
}

/// In the new process: asks for each call from now on, and sends where to listen over a socket.
fn install(socket: RawFd) -> io::Result<()> {
    let step = |code: u32, jt, jf, k| sock_filter { code: u16::try_from(code).unwrap_or(0), jt, jf, k };
    let number = u32::try_from(libc::SYS_sendmsg).unwrap_or(0);
    // That one message goes unasked, as nobody listens yet.
    let steps = [
        step(BPF_LD | BPF_W | BPF_ABS, 0, 0, 0),
        step(BPF_JMP | BPF_JEQ | BPF_K, 0, 3, number),
        step(BPF_LD | BPF_W | BPF_ABS, 0, 0, 16),
        step(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, socket.cast_unsigned()),
        step(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW),
        step(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_USER_NOTIF),
    ];
    let program = sock_fprog { len: 6, filter: steps.as_ptr().cast_mut() };
    // SAFETY: sets a flag of this process.
    unsafe { libc::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the program is on the stack, as long as it says, and only read.
    let listener = unsafe {
        libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &raw const program)
    };
    let listener = RawFd::try_from(listener).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    send(socket, listener)
}

/// Sends a descriptor, by a call that is made in one way only.
fn send(socket: RawFd, descriptor: RawFd) -> io::Result<()> {
    let mut byte = [0u8];
    let mut bytes = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut space = [0u64; 3];
    // SAFETY: all zeros is a message of nothing.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut bytes;
    message.msg_iovlen = 1;
    message.msg_control = space.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&space);
    // SAFETY: the message has space for a header and a descriptor.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: computes a length.
    let length = unsafe { libc::CMSG_LEN(4) };
    let contents = libc::cmsghdr {
        cmsg_len: usize::try_from(length).unwrap_or(0),
        cmsg_level: libc::SOL_SOCKET,
        cmsg_type: libc::SCM_RIGHTS,
    };
    // SAFETY: there is space for the header.
    unsafe { header.write(contents) };
    // SAFETY: computes where the data begins.
    let data = unsafe { libc::CMSG_DATA(header) };
    // SAFETY: there is space for the descriptor there.
    unsafe { data.cast::<RawFd>().write(descriptor) };
    // SAFETY: all that the message refers to is on the stack.
    if unsafe { libc::sendmsg(socket, &raw const message, 0) } == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Receives the descriptor.
fn receive(socket: &UnixStream) -> OwnedFd {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(socket, &mut [io::IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC).expect("a message");
    let files = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    files.expect("the new process sends where to listen")
}

/// What is known of a thread.
#[derive(Debug, Clone, Copy)]
struct Thread {
    process: u32,
    confined: bool,
}

struct Watcher {
    seen: Arc<Mutex<Seen>>,
    threads: BTreeMap<u32, Thread>,
}

impl Watcher {
    /// Notes calls until there is nobody who could make one.
    fn run(mut self, listener: &OwnedFd) {
        loop {
            let mut events = [PollFd::new(listener, PollFlags::IN)];
            poll(&mut events, None).expect("an event");
            if !events[0].revents().contains(PollFlags::IN) {
                return;
            }
            // SAFETY: the kernel wants it to be zeros, and all zeros is a valid value.
            let mut asked: seccomp_notif = unsafe { MaybeUninit::zeroed().assume_init() };
            // SAFETY: the kernel writes a value of this type.
            if unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), RECEIVE, &raw mut asked) } != 0 {
                // Who was about to call has died.
                continue;
            }
            self.note(asked.pid, &asked.data);
            let flags = u32::try_from(SECCOMP_USER_NOTIF_FLAG_CONTINUE).expect("a flag");
            let mut answer = seccomp_notif_resp { id: asked.id, val: 0, error: 0, flags };
            // SAFETY: the kernel reads a value of this type. It fails when the caller has died.
            unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), SEND, &raw mut answer) };
        }
    }

    fn note(&mut self, thread: u32, data: &libc::seccomp_data) {
        let Ok(name) = fs::read_to_string(format!("/proc/{thread}/comm")) else { return };
        let known =
            self.threads.entry(thread).or_insert_with(|| Thread { process: process_of(thread), confined: false });
        let number = c_long::from(data.nr);
        let is_filter = number == libc::SYS_seccomp;
        let is_promise = number == libc::SYS_prctl && data.args[0] == 38;
        if known.confined && (is_filter || is_promise) {
            // It goes on to be confined.
            return;
        }
        let first = known.process == thread;
        let kind = match (name.trim_end(), known.confined) {
            ("vhost-zcache", true) => Some(Kind::Keeper),
            ("zcache-worker", true) => Some(Kind::Control),
            ("queue", true) => Some(Kind::Queue),
            ("zcache-store" | "limits", true) => Some(Kind::Store),
            ("statistics", true) => Some(Kind::Statistics),
            ("sentinel", true) => Some(Kind::Sentinel),
            ("state", true) => Some(Kind::State),
            // Other threads begin under the rules of the process.
            ("zcache-worker" | "queue" | "zcache-store" | "limits" | "statistics" | "sentinel" | "state", false)
                if !first =>
            {
                Some(Kind::Control)
            }
            _ => None,
        };
        known.confined |= is_filter;
        if let Some(kind) = kind {
            let about = |rule: &Rule| rule.who.contains(&kind) && rule.is_about(number, &data.args, known.process);
            let used: Vec<usize> = rules::all().enumerate().filter(|(_, rule)| about(rule)).map(|(at, _)| at).collect();
            let mut seen = self.seen.lock().expect("what was seen");
            if used.is_empty() {
                seen.without.insert((kind, number), data.args);
            }
            seen.used.extend(used.into_iter().map(|at| (kind, at)));
        }
    }
}

/// The process that a thread is of.
fn process_of(thread: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}
