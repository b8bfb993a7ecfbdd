// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A VMM that says anything: messages as bytes, right or wrong, with any files.

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::PATIENCE;

/// Requests by the names of the vhost-user specification.
pub mod request {
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const SET_VRING_ERR: u32 = 14;
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    pub const GET_QUEUE_NUM: u32 = 17;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const GET_CONFIG: u32 = 24;
    pub const SET_CONFIG: u32 = 25;
    pub const SET_INFLIGHT_FD: u32 = 32;
    pub const RESET_DEVICE: u32 = 34;
    pub const GET_MAX_MEM_SLOTS: u32 = 36;
    pub const ADD_MEM_REG: u32 = 37;
    pub const REM_MEM_REG: u32 = 38;
    pub const SET_DEVICE_STATE_FD: u32 = 42;
    pub const CHECK_DEVICE_STATE: u32 = 43;
}

/// Flags of a message: version 1.
pub const VERSION: u32 = 1;
/// An acknowledgement is asked for.
pub const NEED_REPLY: u32 = 8;

/// A VMM.
pub struct Vmm {
    stream: UnixStream,
}

impl Vmm {
    /// A VMM that has negotiated what it needs to be answered.
    pub fn connect(socket: &Path) -> Self {
        let vmm = Self::on(UnixStream::connect(socket).expect("a connection"));
        vmm.send(request::SET_OWNER, VERSION, &[], &[]);
        vmm.send(request::GET_FEATURES, VERSION, &[], &[]);
        vmm.answer(request::GET_FEATURES);
        // MQ, REPLY_ACK, CONFIG and CONFIGURE_MEM_SLOTS.
        vmm.send(request::SET_PROTOCOL_FEATURES, VERSION, &0x8209u64.to_ne_bytes(), &[]);
        vmm
    }

    /// A VMM that has said nothing.
    pub fn on(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self { stream }
    }

    /// The socket.
    pub fn stream(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// Sends a message.
    pub fn send(&self, request: u32, flags: u32, body: &[u8], files: &[BorrowedFd<'_>]) {
        let size = body.len() as u32;
        let header: Vec<u8> = [request, flags, size].iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.send_bytes(&[&header[..], body].concat(), files);
    }

    /// Sends bytes at once.
    pub fn send_bytes(&self, bytes: &[u8], files: &[BorrowedFd<'_>]) {
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(files)), "room for the files");
        }
        let sent = sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).expect("a message");
        assert_eq!(sent, bytes.len());
    }

    /// The body of the answer to a request.
    pub fn answer(&self, request: u32) -> Vec<u8> {
        let mut header = [0; 12];
        let mut stream = &self.stream;
        stream.read_exact(&mut header).unwrap_or_else(|error| panic!("no answer to message {request}: {error}"));
        let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().expect("four bytes"));
        assert_eq!((word(0), word(4)), (request, VERSION | 4), "the header of the answer to message {request}");
        let mut body = vec![0; word(8) as usize];
        stream.read_exact(&mut body).expect("the rest of the answer");
        body
    }

    /// Sends a message that asks for an acknowledgement; the error in it, 0 for none.
    pub fn ask(&self, request: u32, body: &[u8], files: &[BorrowedFd<'_>]) -> u64 {
        self.send(request, VERSION | NEED_REPLY, body, files);
        u64::from_ne_bytes(self.answer(request).try_into().expect("an acknowledgement is a number"))
    }

    /// Makes sure that the connection stands and is in step.
    pub fn expect_alive(&self, after: &str) {
        let features = self.number(request::GET_FEATURES);
        assert_ne!(features & 1 << 32, 0, "after {after} the answers are out of step");
    }

    /// The answer to a message that is answered by a number.
    pub fn number(&self, request: u32) -> u64 {
        self.send(request, VERSION, &[], &[]);
        u64::from_ne_bytes(self.answer(request).try_into().expect("a number"))
    }

    /// Makes sure that the daemon closes the connection, or has done so.
    pub fn expect_closed(&mut self, why: &str) {
        // What the daemon closed cannot be written to.
        let _ = self.stream.write_all(&[]);
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{why}: not closed: {error}"),
        }
        assert!(rest.is_empty(), "{why}: answered with {rest:02x?}");
    }
}

/// 32-bit words of a message.
pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A region of a memory table: guest-physical address, size, address in the VMM, offset in its
/// file.
pub fn region(start: u64, size: u64, vmm_address: u64, offset: u64) -> Vec<u8> {
    [start, size, vmm_address, offset].iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A whole memory table.
pub fn table(regions: &[Vec<u8>]) -> Vec<u8> {
    [words(&[regions.len() as u32, 0]), regions.concat()].concat()
}

/// A region that comes alone.
pub fn single(region: &[u8]) -> Vec<u8> {
    [&[0; 8], region].concat()
}

/// A memory file that may be shrunk.
pub fn memory_file(size: u64) -> File {
    let file = memfd_create("guest", MemfdFlags::CLOEXEC).expect("memfd");
    ftruncate(&file, size).expect("ftruncate");
    file.into()
}

/// Files for a message.
pub fn borrow(files: &[File]) -> Vec<BorrowedFd<'_>> {
    files.iter().map(AsFd::as_fd).collect()
}
