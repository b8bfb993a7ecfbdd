// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A service manager that keeps files for a service, as systemd's does (`sd_notify(3)`,
//! `sd_listen_fds(3)`).

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, Signal, getuid, kill_process};
use tempfile::{NamedTempFile, TempDir};
use vhost_zcache::keeper::handover::manifest::Manifest;

use crate::client::daemon::{is_alive, wait};
use crate::client::{PATIENCE, eventually};

/// What is kept.
#[derive(Debug, Default)]
struct Store {
    files: Vec<(String, OwnedFd)>,
    ready: usize,
    /// Signs of life.
    signs: usize,
    /// Files that were given a second time, and not taken.
    refused: usize,
}

/// The manager, and the service.
pub(crate) struct Managed {
    store: Arc<Mutex<Store>>,
    directory: TempDir,
    log: NamedTempFile,
    guests: Vec<String>,
    arguments: Vec<String>,
    child: Child,
}

impl Managed {
    /// Starts a daemon with guests of these names, which come after the socket's path with their
    /// options.
    pub(crate) fn start(guests: &[&str], arguments: &[&str]) -> Self {
        Self::start_program(Path::new(env!("CARGO_BIN_EXE_vhost-zcache")), guests, arguments)
    }

    /// Starts a daemon of this program.
    pub(crate) fn start_program(program: &Path, guests: &[&str], arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = UnixDatagram::bind(directory.path().join("notify")).expect("the manager's socket");
        let store = Arc::<Mutex<Store>>::default();
        let kept = Arc::clone(&store);
        thread::spawn(move || while keep_next(&socket, &kept) {});
        let log = NamedTempFile::new().expect("a file for the log");
        let (guests, arguments) = (owned(guests), owned(arguments));
        let child = spawn(program, &directory, &log, &guests, &arguments, &store);
        let managed = Self { store, directory, log, guests, arguments, child };
        managed.await_ready(1);
        managed
    }

    fn await_ready(&self, times: usize) {
        eventually("the daemon is ready", || self.store.lock().expect("the store").ready >= times);
    }

    /// A guest's socket.
    pub(crate) fn socket(&self, number: usize) -> PathBuf {
        self.directory.path().join(format!("{}.sock", self.guests[number].split(',').next().expect("a name")))
    }

    /// What the daemons have logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log.path()).expect("the log")
    }

    /// Lines of the log that contain some text.
    pub(crate) fn lines(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }

    /// Names of the files that are kept.
    pub(crate) fn kept(&self) -> Vec<String> {
        self.settle();
        let store = self.store.lock().expect("the store");
        store.files.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Files that the manager has not taken, because it has them.
    pub(crate) fn refused(&self) -> usize {
        self.store.lock().expect("the store").refused
    }

    /// Signs of life that the daemons have given.
    pub(crate) fn signs(&self) -> usize {
        self.store.lock().expect("the store").signs
    }

    /// Loses a file whose name begins so.
    pub(crate) fn lose(&self, prefix: &str) {
        let mut store = self.store.lock().expect("the store");
        let at = store.files.iter().position(|(name, _)| name.starts_with(prefix)).expect("the file");
        store.files.remove(at);
    }

    /// The file of this name.
    pub(crate) fn file(&self, name: &str) -> fs::File {
        let store = self.store.lock().expect("the store");
        let (_, file) = store.files.iter().find(|(known, _)| known == name).expect("the file");
        file.try_clone().expect("a descriptor").into()
    }

    /// The manifest.
    pub(crate) fn manifest(&self) -> Manifest {
        Manifest::open(self.file("zcache-manifest")).expect("the manifest")
    }

    /// What was sent to the manager was taken by it.
    fn settle(&self) {
        let socket = UnixDatagram::unbound().expect("a socket");
        let before = self.store.lock().expect("the store").ready;
        socket.send_to(b"READY=1", self.directory.path().join("notify")).expect("the manager");
        eventually("the manager has heard all", || self.store.lock().expect("the store").ready > before);
    }

    /// The worker's process.
    pub(crate) fn worker(&self) -> Option<u32> {
        self.processes().into_iter().find(|process| {
            fs::read_to_string(format!("/proc/{process}/cmdline")).is_ok_and(|all| all.contains("--worker-link"))
        })
    }

    fn processes(&self) -> Vec<u32> {
        let keeper = self.child.id();
        let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Sends the keeper a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the daemon is alive");
    }

    /// Ends the keeper by a signal, when it is not in the middle of a conversation. Its processes
    /// are all gone then, as systemd waits for it.
    pub(crate) fn end(&mut self, signal: Signal) -> ExitStatus {
        let manifest = self.manifest();
        eventually("the keeper has noted all", || {
            // Of numbers that nobody has there is nothing.
            (0..manifest.guests()).all(|guest| manifest.guest(guest).is_none_or(|(_, touched)| !touched))
        });
        let processes = self.processes();
        self.signal(signal);
        let status = wait(&mut self.child);
        let start = Instant::now();
        while processes.iter().any(|process| is_alive(&process.to_string())) {
            assert!(start.elapsed() < PATIENCE, "processes are left");
            thread::yield_now();
        }
        status
    }

    /// Starts the daemon again, with what is kept.
    pub(crate) fn again(&mut self) {
        let ready = self.ready();
        self.launch(Path::new(env!("CARGO_BIN_EXE_vhost-zcache")));
        self.await_ready(ready + 1);
    }

    /// As often as the daemon was ready.
    fn ready(&self) -> usize {
        self.settle();
        self.store.lock().expect("the store").ready
    }

    /// Starts a daemon of this program, with what is kept.
    pub(crate) fn launch(&mut self, program: &Path) {
        self.child = spawn(program, &self.directory, &self.log, &self.guests, &self.arguments, &self.store);
    }

    /// Waits for the end of a daemon that does not go on.
    pub(crate) fn wait_for_end(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// The next daemon has these guests and arguments.
    pub(crate) fn configure(&mut self, guests: &[&str], arguments: &[&str]) {
        (self.guests, self.arguments) = (owned(guests), owned(arguments));
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        println!("{}", self.log());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn spawn(
    program: &Path,
    directory: &TempDir,
    log: &NamedTempFile,
    guests: &[String],
    arguments: &[String],
    store: &Arc<Mutex<Store>>,
) -> Child {
    let store = store.lock().expect("the store");
    let files: Vec<OwnedFd> = store.files.iter().map(|(_, file)| file.try_clone().expect("a descriptor")).collect();
    let names: Vec<&str> = store.files.iter().map(|(name, _)| name.as_str()).collect();
    // The shell becomes the daemon, and knows its number.
    let mut command = Command::new("sh");
    command.args(["-c", "export LISTEN_PID=$$; exec \"$0\" \"$@\""]).arg(program).stdin(Stdio::null());
    command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
    command.env("NOTIFY_SOCKET", directory.path().join("notify"));
    // A sign of life is given at each look.
    command.env("WATCHDOG_USEC", "1000000");
    if !getuid().is_root() {
        command.env(vhost_zcache::sandbox::probe::WATCHED, "");
    }
    for guest in guests {
        let (name, options) = guest.split_once(',').map_or((guest.as_str(), ""), |(name, options)| (name, options));
        let path = directory.path().join(format!("{name}.sock")).display().to_string();
        let socket = if options.is_empty() { path } else { format!("{path},{options}") };
        command.args(["--socket-path", &socket]);
    }
    command.args(["--stats-socket", &directory.path().join("stats").display().to_string()]);
    command.args(["--log-level", "info"]).args(arguments);
    command.stderr(log.reopen().expect("the log"));
    let numbers: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
    // SAFETY: it makes system calls with numbers that were made before, and nothing else.
    unsafe { command.pre_exec(move || place(&numbers)) };
    command.spawn().expect("the daemon starts")
}

/// Gives descriptors the numbers from 3 on.
fn place(numbers: &[RawFd]) -> std::io::Result<()> {
    let high = 3 + i32::try_from(numbers.len()).unwrap_or(i32::MAX) + 512;
    for (at, number) in (0..).zip(numbers) {
        // SAFETY: only numbers of this process are concerned, which executes a program next.
        if unsafe { libc::dup2(*number, high + at) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    for at in 0..i32::try_from(numbers.len()).unwrap_or(0) {
        // SAFETY: as above.
        unsafe { libc::dup2(high + at, 3 + at) };
        // SAFETY: as above.
        unsafe { libc::close(high + at) };
    }
    Ok(())
}

/// Takes one message; `false` when there will be none.
fn keep_next(socket: &UnixDatagram, store: &Mutex<Store>) -> bool {
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let Ok(received) = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) else { return false };
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            files.extend(received);
        }
    }
    let text = String::from_utf8_lossy(&bytes[..received.bytes]).into_owned();
    let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or_default().to_owned();
    let mut store = store.lock().expect("the store");
    for line in text.lines() {
        match line {
            "READY=1" => store.ready += 1,
            "WATCHDOG=1" => store.signs += 1,
            "FDSTOREREMOVE=1" => store.files.retain(|(known, _)| *known != name),
            _ => {}
        }
    }
    for file in files {
        // One of each, as systemd has it. And not what has hung up.
        if store.files.iter().any(|(_, known)| is_same(known, &file)) {
            store.refused += 1;
        } else {
            store.files.push((name.clone(), file));
        }
    }
    store.files.retain(|(name, file)| !name.starts_with("zcache-c") || !has_hung_up(file));
    true
}

fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    let this = std::process::id();
    // SAFETY: the kernel looks the numbers up.
    unsafe { libc::syscall(libc::SYS_kcmp, this, this, 0, one.as_raw_fd(), other.as_raw_fd()) == 0 }
}

fn has_hung_up(file: &OwnedFd) -> bool {
    let mut events = [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::empty())];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut events, Some(&now)).is_ok_and(|ready| ready > 0)
}
