// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A VMM and a driver in one: connects to a daemon, puts a page and gets it back.
//!
//! ```text
//! vhost-zcache --socket-path /tmp/a.sock &
//! cargo run -p vhost-zcache --example client /tmp/a.sock
//! ```
//!
//! One page of memory is the ring, with a chain of two descriptors: what the device reads, and what
//! it writes. `protocol/SPEC.md` says what is in them.

use std::error::Error;
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;
use zcache_protocol::{
    Batch, HelloBody, KeyBody, Opcode, PAGE_SIZE, POOL_PERSISTENT, PoolBody, Request, RequestHeader, RequestResult,
    VERSION,
};
use zerocopy::{FromBytes, IntoBytes};

/// Entries of the ring.
const ENTRIES: u16 = 2;
/// Guest-physical addresses: the ring's parts, and the two buffers.
const DESCRIPTORS: u64 = 0;
const AVAILABLE: u64 = 0x400;
const USED: u64 = 0x800;
const READABLE: u64 = 0x1000;
const WRITABLE: u64 = 0x4000;
const MEMORY: usize = 0x8000;

struct Driver {
    memory: GuestMemoryMmap<()>,
    kick: EventFd,
    call: EventFd,
    chains: u16,
}

impl Driver {
    /// Makes one request available and waits for its result and what was written behind it.
    fn submit(&mut self, request: &Request, page: &[u8], answer: usize) -> Result<(u16, Vec<u8>), Box<dyn Error>> {
        let batch = Batch { count: 1.into(), ..Batch::default() };
        let readable = [batch.as_bytes(), request.as_bytes(), page].concat();
        let writable = size_of::<RequestResult>() + answer;
        self.memory.write_slice(&readable, GuestAddress(READABLE))?;
        self.describe(0, READABLE, readable.len(), VRING_DESC_F_NEXT)?;
        self.describe(1, WRITABLE, writable, VRING_DESC_F_WRITE)?;

        // The entry names the chain's first descriptor, 0; the index is published after all else.
        self.memory.write_slice(&[0; 2], GuestAddress(AVAILABLE + 4 + u64::from(self.chains % ENTRIES) * 2))?;
        self.chains = self.chains.wrapping_add(1);
        self.memory.store(self.chains.to_le(), GuestAddress(AVAILABLE + 2), Ordering::Release)?;
        self.kick.write(1)?;
        while u16::from_le(self.memory.load(GuestAddress(USED + 2), Ordering::Acquire)?) != self.chains {
            self.call.read()?;
        }

        let mut bytes = vec![0; writable];
        self.memory.read_slice(&mut bytes, GuestAddress(WRITABLE))?;
        let (result, rest) = RequestResult::read_from_prefix(&bytes).map_err(|_| "a short answer")?;
        Ok((result.status.get(), rest.to_vec()))
    }

    fn describe(&self, index: u64, address: u64, length: usize, flags: u32) -> Result<(), Box<dyn Error>> {
        let mut descriptor = [0; 16];
        descriptor[0..8].copy_from_slice(&address.to_le_bytes());
        descriptor[8..12].copy_from_slice(&u32::try_from(length)?.to_le_bytes());
        descriptor[12..14].copy_from_slice(&u16::try_from(flags)?.to_le_bytes());
        descriptor[14..16].copy_from_slice(&1u16.to_le_bytes());
        Ok(self.memory.write_slice(&descriptor, GuestAddress(DESCRIPTORS + 16 * index))?)
    }
}

fn request(opcode: Opcode, flags: u16, pool: u32, body: &[u8]) -> Request {
    let header = RequestHeader { opcode: (opcode as u16).into(), flags: flags.into(), pool: pool.into() };
    let mut request = Request { header, body: [0; 40] };
    request.body.copy_from_slice(body);
    request
}

/// What a VMM does: memory, one ring, its events.
fn connect(socket: &str) -> Result<(Frontend, Driver), Box<dyn Error>> {
    let memfd = memfd_create("guest", MemfdFlags::CLOEXEC)?;
    ftruncate(&memfd, MEMORY as u64)?;
    let file = FileOffset::new(File::from(memfd), 0);
    let memory = GuestMemoryMmap::from_ranges_with_files([(GuestAddress(0), MEMORY, Some(file))])?;
    let host = |address| memory.get_host_address(GuestAddress(address)).map(|host| host as u64);

    let mut frontend = Frontend::from_stream(UnixStream::connect(socket)?, 1);
    frontend.set_owner()?;
    frontend.get_features()?;
    frontend.get_protocol_features()?;
    frontend.set_protocol_features(VhostUserProtocolFeatures::REPLY_ACK)?;
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    frontend.set_features(1 << VIRTIO_F_VERSION_1 | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits())?;
    let region = memory.iter().next().ok_or("no memory")?;
    frontend.set_mem_table(&[VhostUserMemoryRegionInfo::from_guest_region(region)?])?;
    frontend.set_vring_num(0, ENTRIES)?;
    frontend.set_vring_base(0, 0)?;
    let addresses = VringConfigData {
        queue_max_size: ENTRIES,
        queue_size: ENTRIES,
        flags: 0,
        desc_table_addr: host(DESCRIPTORS)?,
        used_ring_addr: host(USED)?,
        avail_ring_addr: host(AVAILABLE)?,
        log_addr: None,
    };
    frontend.set_vring_addr(0, &addresses)?;
    let (kick, call) = (EventFd::new(0)?, EventFd::new(0)?);
    frontend.set_vring_kick(0, &kick)?;
    frontend.set_vring_call(0, &call)?;
    frontend.set_vring_enable(0, true)?;
    Ok((frontend, Driver { memory, kick, call, chains: 0 }))
}

fn main() -> Result<(), Box<dyn Error>> {
    let socket = std::env::args().nth(1).ok_or("which socket?")?;
    // The device is there as long as the connection is.
    let (_connection, mut driver) = connect(&socket)?;

    let hello =
        HelloBody { instance: *b"an example, once", version: VERSION.into(), features: 0.into(), reserved: [0; 16] };
    let (status, _) = driver.submit(&request(Opcode::Hello, 0, 0, hello.as_bytes()), &[], 0)?;
    println!("HELLO: status {status}");

    let pool = PoolBody { uuid: [0; 16], reserved: [0; 24] };
    let create = request(Opcode::PoolCreate, POOL_PERSISTENT, 7, pool.as_bytes());
    println!("POOL_CREATE: status {}", driver.submit(&create, &[], 0)?.0);

    let key = KeyBody { object: [1; 24], index: 42.into(), count: 0.into() };
    let mut page = [0; PAGE_SIZE];
    page[..16].copy_from_slice(b"a page of swap..");
    println!("PUT: status {}", driver.submit(&request(Opcode::Put, 0, 7, key.as_bytes()), &page, 0)?.0);

    let (status, got) = driver.submit(&request(Opcode::Get, 0, 7, key.as_bytes()), &[], PAGE_SIZE)?;
    println!("GET: status {status}, {}", if got == page { "the page that was put" } else { "another page" });
    Ok(())
}
