// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A driver without a guest: speaks vhost-user to a real daemon and drives its rings.
//!
//! [`daemon::Daemon`] starts the binary. [`Client`] is one guest: it connects to a socket, sets up
//! memory and queues as a VMM and a driver would, and submits batches of [`wire::Req`]. What it
//! sends can be bent at every level: the division into descriptors ([`Shape`]), the bytes of both
//! streams ([`Client::raw`]), single descriptors and indexes ([`ring::DriverRing`]).
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of the client")]
#![allow(clippy::cast_possible_truncation, reason = "a test's sizes are small")]

pub mod daemon;
pub mod ram;
pub mod ring;
pub mod state;
pub mod vmm;
pub mod wire;

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use vhost::VhostBackend;
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
};

use vmm_sys_util::eventfd::EventFd;

use ram::Ram;
use ring::{Descriptor, DriverRing};
use wire::{Answer, PAGE, Page, Req};

/// How long an answer may take before a test fails. A worker that dies on a machine with ten times
/// as much to do as it has processors takes seconds to be followed by another, and an end at which
/// it dies takes as long again: 10 s were too few now and then.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Long enough for a daemon that would answer to have done so, in tests that it does not.
pub const SILENCE: Duration = Duration::from_millis(200);

/// How a client sets itself up.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// Queues to start.
    pub queues: usize,
    /// Entries of each.
    pub queue_size: u16,
    /// Whether to accept `VIRTIO_RING_F_EVENT_IDX`.
    pub event_idx: bool,
    /// Whether to accept `VIRTIO_RING_F_INDIRECT_DESC`.
    pub indirect: bool,
    /// Whether to start the queues.
    pub start: bool,
    /// Bytes of guest memory.
    pub ram: usize,
    /// Pass memory by ADD_MEM_REG instead of SET_MEM_TABLE.
    pub memory_slots: bool,
    /// Whether the memory's file is kept from being shrunk.
    pub sealed: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            queues: 2,
            queue_size: 256,
            event_idx: true,
            indirect: true,
            start: true,
            ram: 16 << 20,
            memory_slots: false,
            sealed: true,
        }
    }
}

impl Setup {
    /// The virtio features it accepts.
    pub fn features(&self) -> u64 {
        let mut features = 1 << VIRTIO_F_VERSION_1 | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        if self.event_idx {
            features |= 1 << VIRTIO_RING_F_EVENT_IDX;
        }
        if self.indirect {
            features |= 1 << VIRTIO_RING_F_INDIRECT_DESC;
        }
        features
    }
}

/// How a chain's streams are divided into descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One descriptor for each stream that is not empty.
    Whole,
    /// Descriptors of so many bytes.
    Pieces(usize),
    /// One indirect descriptor; its table has descriptors of so many bytes.
    Indirect(usize),
}

/// What the device did with a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Length in the used ring.
    pub written: u32,
    /// The whole writable stream. It was filled with 0xee before.
    pub bytes: Vec<u8>,
}

/// A chain that was made available.
#[derive(Debug, Clone)]
#[must_use]
pub struct Posted {
    /// Queue it is on.
    pub queue: usize,
    /// Its first descriptor.
    pub head: u16,
    readable: Option<u64>,
    writable: Vec<(u64, usize)>,
}

impl Posted {
    /// Address of the first byte of the readable stream, for changing it under the device.
    pub fn first_readable(&self) -> u64 {
        self.readable.expect("a chain with something to read")
    }
}

/// One guest.
pub struct Client {
    frontend: Frontend,
    setup: Setup,
    ram: Ram,
    rings: Vec<DriverRing>,
}

impl Client {
    /// Connects with the default setup and says HELLO as instance 1.
    pub fn attach(socket: &Path) -> Self {
        let mut client = Self::connect(socket, Setup::default());
        client.hello(1);
        client
    }

    /// Connects, sets up memory and queues, and starts the queues. No HELLO is said.
    pub fn connect(socket: &Path, setup: Setup) -> Self {
        let stream = UnixStream::connect(socket).unwrap_or_else(|e| panic!("cannot connect to {socket:?}: {e}"));
        Self::from_stream(stream, setup)
    }

    /// As [`Client::connect`], on a connected socket.
    pub fn from_stream(stream: UnixStream, setup: Setup) -> Self {
        // A daemon that hangs fails the test that made it hang.
        stream.set_read_timeout(Some(2 * PATIENCE)).expect("a timeout");
        let mut frontend = Frontend::from_stream(stream, 64);
        frontend.set_owner().expect("SET_OWNER");
        let offered = frontend.get_features().expect("GET_FEATURES");
        let protocol = frontend.get_protocol_features().expect("GET_PROTOCOL_FEATURES");
        let wanted = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::LOG_SHMFD
            | VhostUserProtocolFeatures::DEVICE_STATE;
        assert!(protocol.contains(wanted), "the device offers protocol features {protocol:?} only");
        frontend.set_protocol_features(wanted).expect("SET_PROTOCOL_FEATURES");
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        let queues = frontend.get_queue_num().expect("GET_QUEUE_NUM");
        assert!(setup.queues as u64 <= queues, "the device has {queues} queues only");

        let features = setup.features();
        assert_eq!(offered & features, features, "the device offers features {offered:#x} only");
        frontend.set_features(features).expect("SET_FEATURES");

        let mut ram = if setup.sealed { Ram::new(setup.ram) } else { Ram::unsealed(setup.ram) };
        if setup.memory_slots {
            frontend.add_mem_region(&ram.region()).expect("ADD_MEM_REG");
        } else {
            frontend.set_mem_table(&[ram.region()]).expect("SET_MEM_TABLE");
        }
        let rings = (0..setup.queues).map(|_| DriverRing::new(&mut ram, setup.queue_size, setup.event_idx)).collect();
        let mut client = Self { frontend, setup, ram, rings };
        if setup.start {
            for queue in 0..setup.queues {
                client.start_queue(queue);
            }
        }
        client
    }

    /// Starts a stopped queue where its ring stands.
    pub fn start_queue(&mut self, queue: usize) {
        let base = self.rings[queue].used_index(&self.ram);
        self.start_queue_at(queue, base);
    }

    /// Starts a stopped queue and tells the device some index as its base.
    pub fn start_queue_at(&mut self, queue: usize, base: u16) {
        self.place_queue(queue, base);
        let ring = &self.rings[queue];
        let frontend = &mut self.frontend;
        frontend.set_vring_kick(queue, &ring.kick).expect("SET_VRING_KICK");
        frontend.set_vring_call(queue, &ring.call).expect("SET_VRING_CALL");
        frontend.set_vring_enable(queue, true).expect("SET_VRING_ENABLE");
    }

    /// Says where a stopped queue's ring is, without starting it.
    pub fn place_queue(&mut self, queue: usize, base: u16) {
        let ring = &self.rings[queue];
        let frontend = &mut self.frontend;
        frontend.set_vring_num(queue, ring.size).expect("SET_VRING_NUM");
        frontend.set_vring_base(queue, base).expect("SET_VRING_BASE");
        frontend.set_vring_addr(queue, &ring.addresses(&self.ram)).expect("SET_VRING_ADDR");
    }

    /// Stops a queue; the index at which the device left it.
    pub fn stop_queue(&mut self, queue: usize) -> u16 {
        let base = self.frontend.get_vring_base(queue).expect("GET_VRING_BASE");
        u16::try_from(base).expect("a 16-bit index")
    }

    /// Stops a queue, clears its ring as a driver that resets the device does, and starts it.
    pub fn restart_queue(&mut self, queue: usize) {
        self.stop_queue(queue);
        self.rings[queue].reset(&self.ram);
        self.start_queue(queue);
    }

    /// Stops all queues, as QEMU does when the guest is paused or resets the device.
    pub fn stop_all(&mut self) {
        for queue in 0..self.rings.len() {
            self.frontend.set_vring_enable(queue, false).expect("SET_VRING_ENABLE");
            self.stop_queue(queue);
        }
    }

    /// Sets up everything again and starts all queues where their rings stand, as QEMU does when
    /// the guest goes on.
    pub fn start_all(&mut self) {
        self.frontend.set_features(self.setup.features()).expect("SET_FEATURES");
        self.frontend.set_mem_table(&[self.ram.region()]).expect("SET_MEM_TABLE");
        for queue in 0..self.rings.len() {
            self.start_queue(queue);
        }
    }

    /// Stops all queues, and starts them with clean rings: the reset of a virtio device.
    pub fn reset(&mut self) {
        for queue in 0..self.rings.len() {
            self.stop_queue(queue);
        }
        for queue in 0..self.rings.len() {
            self.rings[queue].reset(&self.ram);
            self.start_queue(queue);
        }
    }

    /// The front-end, for messages that have no method here.
    pub fn frontend(&mut self) -> &mut Frontend {
        &mut self.frontend
    }

    /// Guest memory.
    pub fn ram(&mut self) -> &mut Ram {
        &mut self.ram
    }

    /// A queue's ring together with the memory it is in.
    pub fn ring(&mut self, queue: usize) -> (&mut DriverRing, &mut Ram) {
        (&mut self.rings[queue], &mut self.ram)
    }

    /// Reads configuration space.
    pub fn config(&mut self, offset: u32, size: u32) -> Vec<u8> {
        let wanted = vec![0; size as usize];
        let (_, read) = self
            .frontend
            .get_config(offset, size, VhostUserConfigFlags::empty(), &wanted)
            .unwrap_or_else(|e| panic!("GET_CONFIG of {size} bytes at {offset}: {e}"));
        read
    }

    /// Says HELLO as a numbered instance; the epoch and whether the session was resumed.
    pub fn hello(&mut self, instance: u8) -> (u64, bool) {
        let answer = self.one(Req::hello(instance));
        assert_eq!(answer.status, 0, "HELLO was answered with status {}", answer.status);
        (answer.value, answer.flags == 1)
    }

    /// One request on queue 0.
    pub fn one(&mut self, request: Req) -> Answer {
        self.submit(0, &[request]).remove(0)
    }

    /// One request, of which only the status is of interest, on queue 0.
    pub fn status(&mut self, request: Req) -> u16 {
        self.one(request).status
    }

    /// Submits a batch and waits for its answers.
    pub fn submit(&mut self, queue: usize, requests: &[Req]) -> Vec<Answer> {
        self.submit_as(queue, requests, Shape::Whole)
    }

    /// Submits a batch in some shape and waits for its answers.
    pub fn submit_as(&mut self, queue: usize, requests: &[Req], shape: Shape) -> Vec<Answer> {
        let posted = self.post(queue, requests, shape);
        let done = self.wait(&posted);
        wire::decode(requests, &done)
    }

    /// Makes a batch available and kicks, without waiting.
    pub fn post(&mut self, queue: usize, requests: &[Req], shape: Shape) -> Posted {
        let readable = wire::encode(requests);
        self.post_raw(queue, &readable, wire::writable_size(requests), shape)
    }

    /// Submits any bytes and waits for the device to use the chain.
    pub fn raw(&mut self, queue: usize, readable: &[u8], writable: usize, shape: Shape) -> Done {
        let posted = self.post_raw(queue, readable, writable, shape);
        self.wait(&posted)
    }

    /// Makes a chain of any bytes available and kicks, without waiting.
    pub fn post_raw(&mut self, queue: usize, readable: &[u8], writable: usize, shape: Shape) -> Posted {
        let (piece, indirect) = match shape {
            Shape::Whole => (usize::MAX, false),
            Shape::Pieces(piece) => (piece, false),
            Shape::Indirect(piece) => (piece, true),
        };
        let mut buffers = Vec::new();
        for bytes in readable.chunks(piece) {
            let address = self.ram.borrow(bytes.len());
            self.ram.write(address, bytes);
            buffers.push((address, bytes.len(), 0));
        }
        let first_readable = buffers.first().map(|(address, _, _)| *address);
        let mut written = Vec::new();
        for bytes in vec![0xee; writable].chunks(piece) {
            let address = self.ram.borrow(bytes.len());
            self.ram.write(address, bytes);
            buffers.push((address, bytes.len(), VRING_DESC_F_WRITE));
            written.push((address, bytes.len()));
        }
        let chain: Vec<Descriptor> =
            buffers.iter().map(|(address, length, flags)| Descriptor::new(*address, *length, *flags)).collect();

        let ring = &mut self.rings[queue];
        let head = if indirect {
            let table = self.ram.borrow(16 * chain.len());
            for (index, descriptor) in chain.iter().enumerate() {
                let mut descriptor = *descriptor;
                if index + 1 < chain.len() {
                    descriptor.flags |= VRING_DESC_F_NEXT as u16;
                    descriptor.next = index as u16 + 1;
                }
                self.ram.write(table + 16 * index as u64, &descriptor.bytes());
            }
            ring.add(&self.ram, &[Descriptor::new(table, 16 * chain.len(), VRING_DESC_F_INDIRECT)])
        } else {
            ring.add(&self.ram, &chain)
        };
        ring.publish(&self.ram);
        Posted { queue, head, readable: first_readable, writable: written }
    }

    /// Waits for a chain, which has to be the next one of its queue to be used.
    pub fn wait(&mut self, posted: &Posted) -> Done {
        let (head, written) = self.rings[posted.queue]
            .wait_used(&self.ram, PATIENCE)
            .unwrap_or_else(|| panic!("queue {} did not answer for {PATIENCE:?}", posted.queue));
        assert_eq!(head, u32::from(posted.head), "queue {} was not served in order", posted.queue);
        let mut bytes = Vec::new();
        for (address, length) in &posted.writable {
            bytes.extend(self.ram.read(*address, *length));
        }
        if self.rings.iter().all(|ring| ring.outstanding() == 0) {
            self.ram.give_back();
        }
        Done { written, bytes }
    }

    /// Asserts that a queue uses no chain for a while.
    pub fn expect_silence(&mut self, queue: usize) {
        let used = self.rings[queue].wait_used(&self.ram, SILENCE);
        assert_eq!(used, None, "queue {queue} used a chain (head, written) although it must be silent");
    }

    /// Creates a private pool on queue 0, which has to succeed.
    pub fn create(&mut self, pool: u32, flags: u16) {
        let status = self.status(Req::create(pool, flags, [0; 16]));
        assert_eq!(status, 0, "POOL_CREATE of {pool} was answered with status {status}");
    }

    /// Puts a page on queue 0; the status.
    pub fn put(&mut self, pool: u32, object: u8, index: u64, page: &Page) -> u16 {
        self.status(Req::put(pool, object, index, page))
    }

    /// Gets a page on queue 0; the page of a hit, or the status.
    pub fn get(&mut self, pool: u32, object: u8, index: u64) -> Result<Page, u16> {
        let answer = self.one(Req::get(pool, object, index, 0));
        match answer.status {
            0 => Ok(answer.page.expect("a hit has a page")),
            status => Err(status),
        }
    }
}

/// A page that is recognised by a number and does not compress to nothing.
pub fn page(number: u64) -> Page {
    let mut page = [0; PAGE];
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for word in page.chunks_mut(8).step_by(3) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(number | 1);
        word.copy_from_slice(&state.to_le_bytes());
    }
    page
}

/// Any file as an event to be passed to the daemon.
pub fn as_event(file: impl Into<OwnedFd>) -> EventFd {
    // SAFETY: the descriptor has just been released by its only owner.
    unsafe { EventFd::from_raw_fd(file.into().into_raw_fd()) }
}

/// Waits until something is true.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "after {PATIENCE:?} still not: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
