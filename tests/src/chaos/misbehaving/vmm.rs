// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Messages as bytes, so that each may be wrong.

use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use vmm_sys_util::sock_ctrl_msg::ScmSocket as _;

use super::PATIENCE;
use super::memory::{Memory, QUEUES};

/// Requests by the names of the vhost-user specification.
pub(super) mod request {
    pub(in super::super) const GET_FEATURES: u32 = 1;
    pub(super) const SET_FEATURES: u32 = 2;
    pub(super) const SET_OWNER: u32 = 3;
    pub(in super::super) const SET_MEM_TABLE: u32 = 5;
    pub(super) const SET_VRING_NUM: u32 = 8;
    pub(super) const SET_VRING_ADDR: u32 = 9;
    pub(super) const SET_VRING_BASE: u32 = 10;
    pub(super) const GET_VRING_BASE: u32 = 11;
    pub(super) const SET_VRING_KICK: u32 = 12;
    pub(super) const SET_VRING_CALL: u32 = 13;
    pub(super) const SET_PROTOCOL_FEATURES: u32 = 16;
    pub(super) const SET_VRING_ENABLE: u32 = 18;
}

/// Version 1.
const VERSION: u32 = 1;
/// An acknowledgement is asked for.
pub(super) const NEED_REPLY: u32 = 8;
/// VIRTIO_F_VERSION_1, the protocol's own, and both of the rings'.
const FEATURES: u64 = 0x1_7000_0000;
/// MQ, REPLY_ACK, CONFIG and CONFIGURE_MEM_SLOTS.
const PROTOCOL_FEATURES: u64 = 0x8209;

/// A connection.
#[derive(Debug)]
pub(super) struct Vmm(UnixStream);

impl Vmm {
    pub(super) fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    /// Sends bytes at once.
    pub(super) fn send(&self, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let files: Vec<RawFd> = files.iter().map(|file| file.as_raw_fd()).collect();
        self.0.send_with_fds(&[bytes], &files)?;
        Ok(())
    }

    /// Negotiates, shares memory, and starts all queues at their beginning.
    pub(super) fn set_up(&mut self, memory: &Memory) -> io::Result<()> {
        self.tell(request::SET_OWNER, &[], &[])?;
        self.tell(request::SET_PROTOCOL_FEATURES, &PROTOCOL_FEATURES.to_ne_bytes(), &[])?;
        self.tell(request::SET_FEATURES, &FEATURES.to_ne_bytes(), &[])?;
        self.tell(request::SET_MEM_TABLE, &memory.table(), &[memory.file()])?;
        for queue in 0..QUEUES {
            let number = u64::from(queue).to_ne_bytes();
            self.tell(request::SET_VRING_NUM, &words(&[queue, memory.entries()]), &[])?;
            self.tell(request::SET_VRING_BASE, &words(&[queue, 0]), &[])?;
            self.tell(request::SET_VRING_ADDR, &[words(&[queue, 0]), memory.places(queue)].concat(), &[])?;
            self.tell(request::SET_VRING_CALL, &number, &[memory.call()])?;
            self.tell(request::SET_VRING_KICK, &number, &[memory.kick_of(queue)])?;
            self.ask(request::SET_VRING_ENABLE, &words(&[queue, 1]))?;
        }
        Ok(())
    }

    /// Stops all queues.
    pub(super) fn stop_queues(&mut self) -> io::Result<()> {
        for queue in 0..QUEUES {
            self.tell(request::GET_VRING_BASE, &words(&[queue, 0]), &[])?;
            self.answer()?;
        }
        Ok(())
    }

    fn tell(&self, request: u32, body: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send(&message(request, 0, body), files)
    }

    /// Sends a message and waits until it is acknowledged, whatever is said.
    fn ask(&mut self, request: u32, body: &[u8]) -> io::Result<()> {
        self.send(&message(request, NEED_REPLY, body), &[])?;
        self.answer()
    }

    fn answer(&mut self) -> io::Result<()> {
        let mut header = [0; 12];
        self.0.read_exact(&mut header)?;
        let size = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        io::copy(&mut (&self.0).take(size.into()), &mut io::sink()).map(drop)
    }
}

/// A message.
pub(super) fn message(request: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [words(&[request, VERSION | flags, size]), body.to_vec()].concat()
}

/// 32-bit words of a message.
fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
