// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Messages of the vhost-user protocol on a socket: where one ends and the next begins.
//!
//! The `vhost` crate has a reader of its own. It is not used because it gives the connection up,
//! or loses step, for messages that can be answered with an error, and because it waits for the
//! rest of a message and for room to answer, while nothing else at the socket is seen.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recv, recvmsg, send};
use thiserror::Error;
use vhost::vhost_user::message::MAX_MSG_SIZE;
use zerocopy::FromBytes;

use super::budget::MAX_MESSAGE_FILES;

/// Bytes of a header: request, flags and size of the body, in the byte order of the machine.
const HEADER_SIZE: usize = 12;

/// The one version there is, in the lowest two bits of the flags.
const VERSION: u32 = 1;
const VERSION_BITS: u32 = 3;
/// The message is an answer.
const REPLY: u32 = 4;
/// The sender waits for an acknowledgement.
const NEED_REPLY: u32 = 8;

/// Why a connection ends.
#[derive(Debug, Error)]
pub enum End {
    /// The VMM closed it, or ended.
    #[error("disconnected")]
    Disconnected,
    /// The operator has removed the guest.
    #[error("the guest was removed")]
    Removed,
    /// The socket fails.
    #[error("the socket failed: {0}")]
    Broken(io::Error),
    /// A header of which the end of its message cannot be told.
    #[error("a message has flags {flags:#x} and a size of {size} bytes, which is not vhost-user")]
    Nonsense {
        /// Flags of the header.
        flags: u32,
        /// Size of the body.
        size: u32,
    },
}

impl From<Errno> for End {
    fn from(error: Errno) -> Self {
        match error {
            Errno::PIPE | Errno::CONNRESET => Self::Disconnected,
            error => Self::Broken(error.into()),
        }
    }
}

/// A message that has come completely.
#[derive(Debug)]
pub struct Message {
    /// What is asked for: `VHOST_USER_*`.
    pub request: u32,
    /// Whether an acknowledgement is asked for.
    pub need_reply: bool,
    /// Whether it calls itself an answer, although nothing was asked.
    pub is_reply: bool,
    /// What follows the header.
    pub body: Vec<u8>,
    /// Files that came with its first byte.
    pub files: Vec<Rc<File>>,
}

/// Where a channel is.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// What has come of the next message.
    pub incoming: Vec<u8>,
    /// The files that came with it.
    pub files: Vec<Rc<File>>,
    /// What is left to send.
    pub outgoing: Vec<u8>,
}

/// A socket with a VMM at the other end. Nothing here waits.
#[derive(Debug)]
pub struct Channel {
    stream: Rc<UnixStream>,
    /// What has come of the next message.
    incoming: Vec<u8>,
    files: Vec<Rc<File>>,
    /// What is left to send.
    outgoing: Vec<u8>,
}

impl Channel {
    /// A channel at the beginning of a message.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self::at(stream, Progress::default())
    }

    /// A channel on which something was said before.
    #[must_use]
    pub fn at(stream: UnixStream, Progress { incoming, files, outgoing }: Progress) -> Self {
        Self { stream: Rc::new(stream), incoming, files, outgoing }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> Rc<UnixStream> {
        Rc::clone(&self.stream)
    }

    /// Where it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let Self { incoming, files, outgoing, .. } = self;
        Progress { incoming: incoming.clone(), files: files.clone(), outgoing: outgoing.clone() }
    }

    /// What to wait for: the VMM's next message, or that it takes the answers to the last ones.
    #[must_use]
    pub fn events(&self) -> PollFlags {
        if self.outgoing.is_empty() { PollFlags::IN | PollFlags::RDHUP } else { PollFlags::OUT }
    }

    /// Sends what is left to send, as much as goes at once; whether that was all.
    ///
    /// # Errors
    ///
    /// [`End`] when the connection has ended.
    pub fn flush(&mut self) -> Result<bool, End> {
        while !self.outgoing.is_empty() {
            match send(&self.stream, &self.outgoing, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => drop(self.outgoing.drain(..sent)),
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Answers a message. What cannot be sent at once is left for [`Channel::flush`].
    ///
    /// # Errors
    ///
    /// [`End`] when the connection has ended.
    pub fn reply(&mut self, request: u32, body: &[u8]) -> Result<(), End> {
        let size = u32::try_from(body.len()).map_err(|_| End::Broken(io::ErrorKind::InvalidInput.into()))?;
        for word in [request, VERSION | REPLY, size] {
            self.outgoing.extend(word.to_ne_bytes());
        }
        self.outgoing.extend(body);
        self.flush().map(|_| ())
    }

    /// The next message, if all of it has come.
    ///
    /// # Errors
    ///
    /// [`End`] when the connection has ended, or has to.
    pub fn receive(&mut self) -> Result<Option<Message>, End> {
        loop {
            let header = Header::of(&self.incoming)?;
            let wanted = HEADER_SIZE + header.as_ref().map_or(0, |header| header.size);
            let missing = wanted - self.incoming.len();
            if let Some(header) = header
                && missing == 0
            {
                let mut body = std::mem::take(&mut self.incoming);
                body.drain(..HEADER_SIZE);
                return Ok(Some(Message {
                    request: header.request,
                    need_reply: header.flags & NEED_REPLY != 0,
                    is_reply: header.flags & REPLY != 0,
                    body,
                    files: std::mem::take(&mut self.files),
                }));
            }
            match self.read(missing) {
                Ok(0) => return Err(End::Disconnected),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads up to so many bytes. Files are taken with the first byte of a message only, which
    /// bounds them.
    fn read(&mut self, length: usize) -> Result<usize, Errno> {
        let at = self.incoming.len();
        self.incoming.resize(at + length, 0);
        let read = if at == 0 {
            self.read_with_files()
        } else {
            recv(&self.stream, &mut self.incoming[at..], RecvFlags::DONTWAIT).map(|(read, _)| read)
        };
        self.incoming.truncate(at + read.unwrap_or(0));
        read
    }

    fn read_with_files(&mut self) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_MESSAGE_FILES))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffers = [IoSliceMut::new(&mut self.incoming)];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let read = recvmsg(&self.stream, &mut buffers, &mut control, flags)?.bytes;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.files.extend(files.map(File::from).map(Rc::new));
            }
        }
        Ok(read)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

struct Header {
    request: u32,
    flags: u32,
    size: usize,
}

impl Header {
    /// The header, if all of it has come.
    fn of(incoming: &[u8]) -> Result<Option<Self>, End> {
        let Ok(([request, flags, size], _)) = <[u32; 3]>::read_from_prefix(incoming) else {
            return Ok(None);
        };
        let known = VERSION_BITS | REPLY | NEED_REPLY;
        match usize::try_from(size) {
            Ok(bytes) if flags & VERSION_BITS == VERSION && flags & !known == 0 && bytes <= MAX_MSG_SIZE => {
                Ok(Some(Self { request, flags, size: bytes }))
            }
            _ => Err(End::Nonsense { flags, size }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn channel() -> (Channel, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Channel::new(ours), theirs)
    }

    fn message(request: u32, flags: u32, body: &[u8]) -> Vec<u8> {
        let size = u32::try_from(body.len()).unwrap();
        let mut bytes: Vec<u8> = [request, flags, size].iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.extend(body);
        bytes
    }

    #[test]
    fn messages_come_whole_however_they_are_sent() {
        let (mut channel, mut vmm) = channel();
        for byte in message(7, 1 | NEED_REPLY, b"hello") {
            assert!(channel.receive().unwrap().is_none(), "a part was taken for a message");
            vmm.write_all(&[byte]).unwrap();
        }
        vmm.write_all(&message(8, 1, b"")).unwrap();
        let first = channel.receive().unwrap().unwrap();
        assert_eq!((first.request, first.need_reply, &first.body[..]), (7, true, &b"hello"[..]));
        let second = channel.receive().unwrap().unwrap();
        assert_eq!((second.request, second.need_reply, &second.body[..]), (8, false, &b""[..]));
        assert!(channel.receive().unwrap().is_none());
        drop(vmm);
        assert!(matches!(channel.receive(), Err(End::Disconnected)));
    }

    #[test]
    fn a_header_without_an_end_ends_the_connection() {
        for header in [message(1, 0, b""), message(1, 2, b""), message(1, 0x11, b""), message(1, 1, &[0; 4097])] {
            let (mut channel, mut vmm) = channel();
            vmm.write_all(&header).unwrap();
            assert!(matches!(channel.receive(), Err(End::Nonsense { .. })), "{:?}", &header[..12]);
        }
    }

    #[test]
    fn a_vmm_that_does_not_read_is_not_waited_for() {
        let (mut channel, mut vmm) = channel();
        let mut replies = 0u32;
        while channel.events() != PollFlags::OUT {
            channel.reply(replies, &[0; 1000]).unwrap();
            replies += 1;
        }
        let mut bytes = vec![0; 1012 * usize::try_from(replies).unwrap()];
        while channel.events() == PollFlags::OUT {
            let _ = vmm.read(&mut bytes[..1012]).unwrap();
            let _ = channel.flush().unwrap();
        }
    }
}
