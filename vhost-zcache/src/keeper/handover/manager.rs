// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is said to the service manager that has started the daemon, and what it has kept.
//!
//! This is the protocol of systemd's `sd_notify` and its store of file descriptors. The crates for
//! it open a socket for each message, which the keeper cannot do; and it must not wait.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process;
use std::rc::Rc;
use std::time::{Duration, Instant};

use log::{debug, warn};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    connect, sendmsg, socket_with,
};

use super::PREFIX;
use crate::link::socket::inherit;

/// The first descriptor that a manager gives.
const FIRST: i32 = 3;

/// Messages that wait for room at most. What is lost of more the next keeper finds missing.
const MOST_WAITING: usize = 1 << 16;

/// Bytes of all names. The next daemon gets them in one variable of its environment, which may have
/// 128 KiB; one that is longer would keep it from being started.
const MOST_NAMES: usize = 120 << 10;

enum Given {
    Nothing,
    File(Rc<File>),
    Socket(Rc<UnixStream>),
    Door(Rc<UnixListener>),
}

impl Given {
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Nothing => None,
            Self::File(file) => Some(file.as_fd()),
            Self::Socket(socket) => Some(socket.as_fd()),
            Self::Door(socket) => Some(socket.as_fd()),
        }
    }
}

/// The service manager.
pub struct Manager {
    socket: OwnedFd,
    waiting: VecDeque<(String, Given)>,
    /// Names of what it keeps.
    kept: BTreeSet<String>,
    /// Bytes of these.
    bytes: usize,
    watchdog: Option<Watchdog>,
}

/// Signs of life that the manager waits for.
struct Watchdog {
    /// A quarter of the time after which the manager takes the daemon for dead: the keeper looks
    /// twice a second, so a sign may be late by that much.
    period: Duration,
    next: Instant,
}

impl Watchdog {
    /// What the environment asks for (`sd_watchdog_enabled(3)`), if it is this process that is
    /// asked.
    fn from_environment() -> Option<Self> {
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        if env::var_os("WATCHDOG_PID").is_some() && number("WATCHDOG_PID") != Some(process::id().into()) {
            return None;
        }
        let period = Duration::from_micros(number("WATCHDOG_USEC").filter(|time| *time > 0)?) / 4;
        Some(Self { period, next: Instant::now() })
    }

    /// Whether a sign is due, which is given then.
    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = now >= self.next;
        if due {
            self.next = now + self.period;
        }
        due
    }
}

impl Manager {
    /// The manager that the environment names, if there is one, which keeps files of these names.
    ///
    /// # Errors
    ///
    /// When it cannot be reached.
    pub fn from_environment(kept: BTreeSet<String>) -> io::Result<Option<Self>> {
        env::var_os("NOTIFY_SOCKET").map(|name| Self::at(&name, kept)).transpose()
    }

    fn at(name: &OsStr, kept: BTreeSet<String>) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name)?,
            path => SocketAddrUnix::new(path)?,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        connect(&socket, &address)?;
        let bytes = kept.iter().map(|name| name.len() + 1).sum();
        Ok(Self { socket, waiting: VecDeque::new(), kept, bytes, watchdog: Watchdog::from_environment() })
    }

    /// Has a file kept under a name.
    pub fn keep(&mut self, name: &str, file: Rc<File>) {
        // It is kept whatever becomes of the other end, if it has one.
        if self.has_room_for(name) {
            self.push(format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}"), Given::File(file));
        }
    }

    /// Has a listening socket kept.
    pub fn keep_door(&mut self, name: &str, socket: Rc<UnixListener>) {
        if self.has_room_for(name) {
            self.push(format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}"), Given::Door(socket));
        }
    }

    /// Has the socket of a connection kept until its other end is closed.
    pub fn keep_connection(&mut self, name: &str, socket: Rc<UnixStream>) {
        if self.has_room_for(name) {
            self.push(format!("FDSTORE=1\nFDNAME={name}"), Given::Socket(socket));
        }
    }

    /// A file need not be kept any more.
    pub fn forget(&mut self, name: &str) {
        if self.kept.remove(name) {
            self.bytes -= name.len() + 1;
            self.push(format!("FDSTOREREMOVE=1\nFDNAME={name}"), Given::Nothing);
        }
    }

    /// Nothing need be kept any more.
    pub fn forget_all(&mut self) {
        for name in self.kept.clone() {
            self.forget(&name);
        }
    }

    /// Says something.
    pub fn say(&mut self, text: &str) {
        self.push(text.to_owned(), Given::Nothing);
    }

    /// All is well: says so if the manager waits for it by now.
    pub fn give_sign_of_life(&mut self) {
        if self.watchdog.as_mut().is_some_and(Watchdog::is_due) {
            self.say("WATCHDOG=1");
        }
    }

    /// Takes note of a name. What there is no room for is missing to the next keeper, which says
    /// so.
    fn has_room_for(&mut self, name: &str) -> bool {
        let bytes = self.bytes + name.len() + 1;
        let fits = bytes <= MOST_NAMES;
        if fits && self.kept.insert(name.to_owned()) {
            self.bytes = bytes;
        }
        fits
    }

    fn push(&mut self, text: String, file: Given) {
        if self.waiting.len() < MOST_WAITING {
            self.waiting.push_back((text, file));
        }
    }

    /// Sends what there is room for.
    pub fn flush(&mut self) {
        while let Some((text, file)) = self.waiting.front() {
            match send(&self.socket, text, file.as_fd()) {
                Ok(()) => {}
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::TOOMANYREFS) => return,
                Err(error) => warn!("The service manager was not told {:?}: {error}", text.replace('\n', " ")),
            }
            self.waiting.pop_front();
        }
    }
}

fn send(socket: &OwnedFd, text: &str, file: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let files: Vec<BorrowedFd<'_>> = file.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(Errno::INVAL);
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::io::retry_on_intr(|| sendmsg(socket, &[IoSlice::new(text.as_bytes())], &mut control, flags)).map(drop)
}

/// Files that the keeper before has had kept, by their names. Others that were given stay open, and
/// are not passed on. To be called first of all.
#[must_use]
pub fn inherited() -> BTreeMap<String, OwnedFd> {
    let mut kept = BTreeMap::new();
    for (number, name) in given().into_iter().filter(|(_, name)| name.starts_with(PREFIX)) {
        match inherit(number) {
            Ok(file) => drop(kept.insert(name, file)),
            Err(error) => debug!("File {number} ({name}) was not given: {error}"),
        }
    }
    kept
}

/// The number of a file that the manager has given under a name, besides those that were kept.
#[must_use]
pub fn handed(name: &str) -> Option<i32> {
    let given = given().into_iter().filter(|(_, name)| !name.starts_with(PREFIX));
    given.into_iter().find(|(_, known)| known == name).map(|(number, _)| number)
}

/// Files that the manager has given, with their names.
fn given() -> Vec<(i32, String)> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(process::id()) {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    (FIRST..).zip(names.split(':').map(str::to_owned)).take(count).collect()
}
