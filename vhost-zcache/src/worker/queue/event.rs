// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kick and call events, which the VMM passes and keeps a hold of.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::epoll::EventFlags;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, sockopt::socket_domain};

use super::interrupt::{Blocked, PeerCall};

/// An event of the VMM's: mostly an eventfd, but a pipe or a Unix socket serves as well.
#[derive(Debug)]
pub struct PeerEvent {
    file: File,
    /// A pipe or a socket, which gets full.
    is_stream: bool,
}

/// What became of a kick event that was ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kick {
    /// There was a kick, unless somebody else has taken it.
    Taken,
    /// It is closed at its other end, or cannot be read: no kick will come any more.
    Dead,
}

/// Whether a file can be an event.
///
/// Only files on which a call can be interrupted are taken: what the kernel itself implements
/// without a file system (eventfds have no file type), pipes, and sockets without a network.
///
/// # Errors
///
/// When the file cannot be one.
pub fn check(file: &File) -> io::Result<()> {
    is_stream(file).map(|_| ())
}

fn is_stream(file: &File) -> io::Result<bool> {
    match FileType::from_raw_mode(fstat(file)?.st_mode) {
        FileType::Unknown => Ok(false),
        FileType::Fifo => Ok(true),
        FileType::Socket if socket_domain(file)? == AddressFamily::UNIX => Ok(true),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "neither an eventfd nor a pipe nor a Unix socket")),
    }
}

impl PeerEvent {
    /// Takes an event. Whether it blocks is left as it is, because the VMM has the same open file
    /// and may count on it.
    ///
    /// # Errors
    ///
    /// As [`check`].
    pub fn new(file: File) -> io::Result<Self> {
        let is_stream = is_stream(&file)?;
        Ok(Self { file, is_stream })
    }

    /// Notifies whoever waits for the event. An event that is full is one that was not noticed
    /// yet, and one that is broken is the VMM's affair: the results are in its ring all the same.
    ///
    /// # Errors
    ///
    /// [`Blocked`] when the VMM filled it in the moment between the look and the write. That is an
    /// event that was not noticed yet, too.
    pub fn signal(&self, call: &PeerCall) -> Result<(), Blocked> {
        if self.is_ready(PollFlags::OUT) {
            let _ = call.make(|| rustix::io::write(&self.file, &1u64.to_ne_bytes()))?;
        }
        Ok(())
    }

    /// When epoll is to tell of kicks.
    #[must_use]
    pub fn kicks(&self) -> EventFlags {
        // A counter tells of each kick by getting ready again, and is not read: it is not full
        // before the 2^64th kick. A stream has to be read, or it has no room for the next one.
        if self.is_stream { EventFlags::IN } else { EventFlags::IN | EventFlags::ET }
    }

    /// Takes kicks, once epoll has told `flags` of the event.
    ///
    /// # Errors
    ///
    /// [`Blocked`] when somebody else has read them in the moment between the look and the read.
    pub fn take(&self, flags: EventFlags, call: &PeerCall) -> Result<Kick, Blocked> {
        if !flags.contains(EventFlags::IN) {
            return Ok(Kick::Dead);
        }
        if self.is_stream {
            let taken = call.make(|| rustix::io::read(&self.file, &mut [0; 512]))?;
            if !matches!(taken, Ok(1..) | Err(Errno::AGAIN)) {
                return Ok(Kick::Dead);
            }
        }
        Ok(Kick::Taken)
    }

    /// Takes kicks of a ring that nobody looks at for a while, if there are any.
    ///
    /// # Errors
    ///
    /// As [`PeerEvent::take`].
    pub fn drain(&self, call: &PeerCall) -> Result<(), Blocked> {
        if self.is_ready(PollFlags::IN) {
            let _ = call.make(|| rustix::io::read(&self.file, &mut [0; 512]))?;
        }
        Ok(())
    }

    fn is_ready(&self, flags: PollFlags) -> bool {
        let mut event = [PollFd::new(self, flags)];
        poll(&mut event, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }
}

impl AsFd for PeerEvent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};
    use rustix::fs::{OFlags, fcntl_getfl};
    use std::io::Write;
    use std::net::UdpSocket;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn only_what_can_be_interrupted_is_an_event() {
        let (_keep, pipe) = io::pipe().unwrap();
        let (_keep, socket) = UnixStream::pair().unwrap();
        let event = eventfd(0, EventfdFlags::empty()).unwrap();
        for (what, file) in [("an eventfd", event), ("a pipe", pipe.into()), ("a Unix socket", socket.into())] {
            let event = PeerEvent::new(File::from(file)).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(!fcntl_getfl(&event).unwrap().contains(OFlags::NONBLOCK), "{what} was changed under the VMM");
        }
        let network = OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
        let file = OwnedFd::from(tempfile::tempfile().unwrap());
        let zero = OwnedFd::from(File::open("/dev/zero").unwrap());
        let directory = OwnedFd::from(File::open("/").unwrap());
        for (what, file) in
            [("a socket of the network", network), ("a file", file), ("/dev/zero", zero), ("/", directory)]
        {
            assert!(PeerEvent::new(File::from(file)).is_err(), "{what} is no event");
        }
    }

    #[test]
    fn kicks_are_taken_until_the_other_end_closes() {
        let call = PeerCall::default();
        let (reader, mut writer) = io::pipe().unwrap();
        let kick = PeerEvent::new(File::from(OwnedFd::from(reader))).unwrap();
        writer.write_all(b"x").unwrap();
        assert_eq!(kick.take(EventFlags::IN, &call), Ok(Kick::Taken));
        drop(writer);
        assert_eq!(kick.take(EventFlags::IN, &call), Ok(Kick::Dead));
    }
}
