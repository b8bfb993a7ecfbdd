// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kick and call events, which the VMM passes and keeps a hold of.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, sockopt::socket_domain};

use super::stop::StopSignal;

/// An event of the VMM's: mostly an eventfd, but a pipe or a Unix socket serves as well.
#[derive(Debug)]
pub struct PeerEvent(File);

/// What became of a kick event that was ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kick {
    /// It was read, or somebody else has read it.
    Taken,
    /// The ring is to be stopped.
    Stopped,
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
    let usable = match FileType::from_raw_mode(fstat(file)?.st_mode) {
        FileType::Unknown | FileType::Fifo => true,
        FileType::Socket => socket_domain(file)? == AddressFamily::UNIX,
        _ => false,
    };
    if usable {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "neither an eventfd nor a pipe nor a Unix socket"))
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
        check(&file)?;
        Ok(Self(file))
    }

    /// Notifies whoever waits for the event. An event that is full is one that was not noticed
    /// yet, and one that is broken is the VMM's affair: the results are in its ring all the same.
    pub fn signal(&self, stop: &StopSignal) {
        // If the VMM fills it after this look, the write waits, until the ring is to be stopped.
        let mut event = [PollFd::new(self, PollFlags::OUT)];
        let has_room = poll(&mut event, Some(&Timespec::default())).is_ok_and(|ready| ready > 0);
        if !has_room {
            return;
        }
        while rustix::io::write(&self.0, &1u64.to_ne_bytes()) == Err(Errno::INTR) && !stop.is_raised() {}
    }

    /// Takes the kicks that there are, once the event was seen to be ready. If somebody else has
    /// read them since, it may wait for the next one.
    pub fn take(&self, stop: &StopSignal) -> Kick {
        // An eventfd gives the number of kicks; a pipe has bytes for them.
        let mut kicks = [0; 512];
        loop {
            match rustix::io::read(&self.0, &mut kicks) {
                Ok(1..) | Err(Errno::AGAIN) => return Kick::Taken,
                Err(Errno::INTR) if stop.is_raised() => return Kick::Stopped,
                Err(Errno::INTR) => {}
                Ok(0) | Err(_) => return Kick::Dead,
            }
        }
    }
}

impl AsFd for PeerEvent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
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
        let stop = StopSignal::new().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        let kick = PeerEvent::new(File::from(OwnedFd::from(reader))).unwrap();
        writer.write_all(b"x").unwrap();
        assert_eq!(kick.take(&stop), Kick::Taken);
        drop(writer);
        assert_eq!(kick.take(&stop), Kick::Dead);
    }
}
