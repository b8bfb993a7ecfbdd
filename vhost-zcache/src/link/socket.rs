// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One end of the link between keeper and worker.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, FdFlags, fcntl_setfd, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::frontend::budget::MAX_MESSAGE_FILES;

/// Most bytes of a message. The longest names the connections of all guests.
const MAX_MESSAGE: usize = 128 << 10;

/// One end.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Both ends.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptors left.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(one), Self(other)))
    }

    /// The same end once more, for another thread to send by.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptors left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Takes the end that the process was left by its number.
    ///
    /// # Errors
    ///
    /// When it is not open.
    pub fn inherit(number: i32) -> io::Result<Self> {
        inherit(number).map(Self)
    }

    /// Sends a message with files. Waits for room unless `flags` say otherwise.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is no room, others when there is nobody at the other end.
    pub fn send(&self, message: &impl Serialize, files: &[BorrowedFd<'_>], flags: SendFlags) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_MESSAGE_FILES))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = flags | SendFlags::NOSIGNAL;
        match retry_on_intr(|| sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, flags)) {
            Ok(_) => Ok(()),
            // So many files are on their way that there may be no more.
            Err(Errno::TOOMANYREFS) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// The next message with its files; `None` when there will be none any more.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is none and `flags` say not to wait.
    pub fn receive<T: DeserializeOwned>(&self, flags: RecvFlags) -> io::Result<Option<(T, Vec<File>)>> {
        let mut bytes = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_MESSAGE_FILES))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        let received = match retry_on_intr(|| recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags))
        {
            Ok(received) => received.bytes,
            Err(Errno::CONNRESET) => 0,
            Err(error) => return Err(error.into()),
        };
        let mut files = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                files.extend(received.map(File::from));
            }
        }
        if received == 0 {
            return Ok(None);
        }
        Ok(Some((serde_json::from_slice(&bytes[..received])?, files)))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Takes a file that the process was left by its number.
///
/// # Errors
///
/// When it is not open.
pub fn inherit(number: i32) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: fcntl only looks the number up, and fails when it is not open; the borrow ends with
    // the statement.
    fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, FdFlags::CLOEXEC)?;
    // SAFETY: it is open, and whoever has started this process has left it by its number, each
    // once; what was opened since has other numbers.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::message::{Change, Region, ToWorker};
    use std::os::fd::AsFd;

    #[test]
    fn messages_come_apart_and_with_their_files() {
        let (keeper, worker) = Socket::pair().unwrap();
        let region = Region { start: u64::MAX, size: 1, vmm_address: 2, offset: 3 };
        let change = Change::Table(vec![region; MAX_MESSAGE_FILES]);
        let message = ToWorker::Change { guest: 1, change, ticket: Some(3) };
        let file = tempfile::tempfile().unwrap();
        keeper.send(&message, &[file.as_fd(); MAX_MESSAGE_FILES], SendFlags::DONTWAIT).unwrap();
        keeper.send(&ToWorker::Ping, &[], SendFlags::DONTWAIT).unwrap();
        let (received, files) = worker.receive::<ToWorker>(RecvFlags::DONTWAIT).unwrap().unwrap();
        assert_eq!((received, files.len()), (message, MAX_MESSAGE_FILES));
        let (received, files) = worker.receive::<ToWorker>(RecvFlags::DONTWAIT).unwrap().unwrap();
        assert_eq!((received, files.len()), (ToWorker::Ping, 0));
        let none = worker.receive::<ToWorker>(RecvFlags::DONTWAIT).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
        drop(keeper);
        assert!(worker.receive::<ToWorker>(RecvFlags::DONTWAIT).unwrap().is_none());
    }
}
