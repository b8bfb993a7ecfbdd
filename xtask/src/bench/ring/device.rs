// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A guest without a guest: connects to the daemon as a VMM does, and speaks to it as a driver.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use zcache_protocol::{HelloBody, KeyBody, Opcode, PAGE_SIZE, POOL_PERSISTENT, Request, VERSION};
use zerocopy::{FromZeros, IntoBytes};

use super::queue::{ENTRIES, QUEUE_BYTES, Queue, request};
use super::shared::Shared;

/// The pool that a guest has.
const POOL: u32 = 1;

/// `VIRTIO_F_VERSION_1` and `VIRTIO_RING_F_EVENT_IDX`, as bits.
const FEATURES: u64 = 1 << 32 | 1 << 29;

/// A guest that is connected, with a pool of its own.
pub(super) struct Device {
    /// The connection ends with it.
    _frontend: Frontend,
    pub(super) queues: Vec<Queue>,
}

impl Device {
    pub(super) fn connect(socket: &Path, queues: usize) -> Result<Self> {
        let mut device = Self::attach(socket, queues)?;
        device.queues[0].ask(&hello(), None)?;
        device.queues[0].ask(&pool(), None)?;
        Ok(device)
    }

    /// One that has said no HELLO.
    pub(super) fn attach(socket: &Path, queues: usize) -> Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| format!("no daemon at {}", socket.display()))?;
        let mut frontend = Frontend::from_stream(stream, queues as u64);
        frontend.set_owner()?;
        frontend.get_features()?;
        frontend.get_protocol_features()?;
        frontend.set_protocol_features(VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK)?;
        frontend.set_features(FEATURES | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits())?;
        let memory = Arc::new(Shared::new(queues * QUEUE_BYTES)?);
        frontend.set_mem_table(&[VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: memory.length() as u64,
            userspace_addr: memory.address(),
            mmap_offset: 0,
            mmap_handle: memory.descriptor(),
        }])?;
        let queues = (0..queues)
            .map(|number| {
                let queue = Queue::new(Arc::clone(&memory), number * QUEUE_BYTES)?;
                let address = |offset: usize| memory.address() + offset as u64;
                frontend.set_vring_num(number, ENTRIES)?;
                frontend.set_vring_base(number, 0)?;
                frontend.set_vring_addr(
                    number,
                    &VringConfigData {
                        queue_max_size: ENTRIES,
                        queue_size: ENTRIES,
                        flags: 0,
                        desc_table_addr: address(queue.descriptors()),
                        used_ring_addr: address(queue.used_ring()),
                        avail_ring_addr: address(queue.available_ring()),
                        log_addr: None,
                    },
                )?;
                frontend.set_vring_kick(number, &queue.kick)?;
                frontend.set_vring_call(number, &queue.call)?;
                frontend.set_vring_enable(number, true)?;
                Ok(queue)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { _frontend: frontend, queues })
    }

    /// Stores pages under their numbers.
    pub(super) fn fill(&mut self, pages: &[[u8; PAGE_SIZE]]) -> Result<()> {
        for (number, page) in pages.iter().enumerate() {
            self.queues[0].ask(&put(number), Some(page))?;
        }
        if pages.is_empty() {
            return Ok(());
        }
        // As it was put, it comes back.
        let slot = self.queues[0].ask(&get(0), None)?;
        let mut first = [0; PAGE_SIZE];
        let queue = &self.queues[0];
        queue.memory.read(queue.page_of(slot), &mut first);
        ensure!(pages.first() == Some(&first), "a page came back as another one");
        Ok(())
    }
}

/// Objects have as many pages as files of a megabyte.
/// A session begins.
pub(super) fn hello() -> Request {
    let hello = HelloBody { instance: [1; 16], version: VERSION.into(), ..HelloBody::new_zeroed() };
    request(Opcode::Hello, 0, 0, hello.as_bytes())
}

/// The pool is made.
pub(super) fn pool() -> Request {
    request(Opcode::PoolCreate, POOL, POOL_PERSISTENT, &[])
}

fn key(number: usize) -> KeyBody {
    let mut object = [0; 24];
    object[..8].copy_from_slice(&(number as u64 / 256).to_le_bytes());
    KeyBody { object, index: (number as u64 % 256).into(), count: 0.into() }
}

pub(super) fn put(number: usize) -> Request {
    request(Opcode::Put, POOL, 0, key(number).as_bytes())
}

pub(super) fn get(number: usize) -> Request {
    request(Opcode::Get, POOL, 0, key(number).as_bytes())
}

/// Flushes the object of that page.
pub(super) fn flush(number: usize) -> Request {
    let mut key = key(number);
    key.index = 0.into();
    request(Opcode::FlushObject, POOL, 0, key.as_bytes())
}
