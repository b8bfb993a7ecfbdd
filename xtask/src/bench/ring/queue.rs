// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver's side of a split ring with fixed slots, a request and a page each.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use zcache_protocol::{Batch, Opcode, PAGE_SIZE, Request, RequestResult, Status};
use zerocopy::{FromZeros, IntoBytes};

use super::shared::Shared;

/// Entries of a ring.
pub(super) const ENTRIES: u16 = 256;
/// Descriptors of a chain: what the device reads, and what it writes.
const PER_CHAIN: u16 = 2;
/// Chains that may be under way.
pub(super) const SLOTS: u16 = ENTRIES / PER_CHAIN;

const HEADER: usize = size_of::<Batch>() + size_of::<Request>();
const RESULT: usize = size_of::<RequestResult>();
/// Bytes of a slot: two pages to read and two to write, so that pages of the device are its own.
const SLOT: usize = 4 * PAGE_SIZE;
/// Bytes of a ring: descriptors, available and used ring in a page each.
const RING: usize = 3 * PAGE_SIZE;
/// Bytes of shared memory that a queue takes.
pub(super) const QUEUE_BYTES: usize = RING + SLOTS as usize * SLOT;

const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// A queue in shared memory.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) memory: Arc<Shared>,
    start: usize,
    pub(super) kick: EventFd,
    pub(super) call: EventFd,
    available: u16,
    used: u16,
    free: Vec<u16>,
    /// Kicks sent.
    pub(super) kicks: u64,
}

/// A chain that was used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    pub(super) slot: u16,
    pub(super) status: u16,
}

impl Queue {
    /// The queue at an offset of the memory. Guest addresses are offsets.
    pub(super) fn new(memory: Arc<Shared>, start: usize) -> Result<Self> {
        let queue = Self {
            memory,
            start,
            kick: EventFd::new(EFD_NONBLOCK)?,
            call: EventFd::new(EFD_NONBLOCK)?,
            available: 0,
            used: 0,
            free: (0..SLOTS).collect(),
            kicks: 0,
        };
        for slot in 0..SLOTS {
            let (readable, writable) = (queue.slot(slot), queue.slot(slot) + 2 * PAGE_SIZE);
            queue.descriptor(slot * PER_CHAIN, readable, HEADER, NEXT, slot * PER_CHAIN + 1);
            queue.descriptor(slot * PER_CHAIN + 1, writable, RESULT + PAGE_SIZE, WRITE, 0);
        }
        queue.want_interrupt(false);
        Ok(queue)
    }

    pub(super) fn descriptors(&self) -> usize {
        self.start
    }

    pub(super) fn available_ring(&self) -> usize {
        self.start + PAGE_SIZE
    }

    pub(super) fn used_ring(&self) -> usize {
        self.start + 2 * PAGE_SIZE
    }

    /// What the device reads of a slot.
    pub(super) fn slot(&self, slot: u16) -> usize {
        self.start + RING + usize::from(slot) * SLOT
    }

    /// Where the page of a GET is.
    pub(super) fn page_of(&self, slot: u16) -> usize {
        self.slot(slot) + 2 * PAGE_SIZE + RESULT
    }

    fn descriptor(&self, number: u16, address: usize, length: usize, flags: u16, next: u16) {
        let at = self.descriptors() + 16 * usize::from(number);
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.memory.write(at, &(address as u64).to_le_bytes());
        self.memory.write(at + 8, &length.to_le_bytes());
        self.memory.store(at + 12, flags);
        self.memory.store(at + 14, next);
    }

    /// The request that is in a slot, for messages.
    pub(super) fn asked(&self, slot: u16) -> String {
        let mut request = Request::new_zeroed();
        self.memory.read(self.slot(slot) + size_of::<Batch>(), request.as_mut_bytes());
        format!("{request:?}")
    }

    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Requests under way.
    pub(super) fn under_way(&self) -> usize {
        usize::from(SLOTS) - self.free.len()
    }

    /// Makes a request available, with the page of a PUT, and kicks if the device asks for it.
    pub(super) fn submit(&mut self, request: &Request, page: Option<&[u8; PAGE_SIZE]>) -> Result<u16> {
        let slot = self.free.pop().context("the ring is full")?;
        let at = self.slot(slot);
        self.memory.write(at, Batch { count: 1.into(), ..Batch::default() }.as_bytes());
        self.memory.write(at + size_of::<Batch>(), request.as_bytes());
        let mut length = HEADER;
        if let Some(page) = page {
            self.memory.write(at + HEADER, page);
            length += PAGE_SIZE;
        }
        self.descriptor(slot * PER_CHAIN, at, length, NEXT, slot * PER_CHAIN + 1);
        let entry = self.available_ring() + 4 + 2 * usize::from(self.available % ENTRIES);
        self.memory.store(entry, slot * PER_CHAIN);
        let old = self.available;
        self.available = old.wrapping_add(1);
        self.memory.store(self.available_ring() + 2, self.available);
        fence(Ordering::SeqCst);
        let event = self.memory.load(self.used_ring() + 4 + 8 * usize::from(ENTRIES));
        if event == old {
            self.kicks += 1;
            self.kick.write(1)?;
        }
        Ok(slot)
    }

    /// Whether the device is to interrupt at the next used chain.
    fn want_interrupt(&self, wanted: bool) {
        let event = if wanted { self.used } else { self.used.wrapping_sub(1) };
        self.memory.store(self.available_ring() + 4 + 2 * usize::from(ENTRIES), event);
        fence(Ordering::SeqCst);
    }

    /// The next used chain, if there is one.
    pub(super) fn poll(&mut self) -> Option<Used> {
        if self.memory.load(self.used_ring() + 2) == self.used {
            return None;
        }
        let entry = self.used_ring() + 4 + 8 * usize::from(self.used % ENTRIES);
        let slot = self.memory.load(entry) / PER_CHAIN;
        self.used = self.used.wrapping_add(1);
        let status = self.memory.load(self.slot(slot) + 2 * PAGE_SIZE);
        self.free.push(slot);
        Some(Used { slot, status })
    }

    /// Keeps the index that is to be interrupted at far from what will be used next.
    pub(super) fn keep_quiet(&self) {
        if self.used.is_multiple_of(ENTRIES) {
            self.want_interrupt(false);
        }
    }

    /// Looks until a chain is used.
    pub(super) fn spin(&mut self) -> Used {
        loop {
            if let Some(used) = self.poll() {
                self.keep_quiet();
                return used;
            }
            std::hint::spin_loop();
        }
    }

    /// Sleeps until the device interrupts.
    pub(super) fn wait(&mut self) -> Result<Used> {
        self.want_interrupt(true);
        loop {
            if let Some(used) = self.poll() {
                self.want_interrupt(false);
                return Ok(used);
            }
            let patience = Timespec::try_from(Duration::from_secs(5))?;
            let ready = poll(&mut [PollFd::from_borrowed_fd(borrow(&self.call), PollFlags::IN)], Some(&patience))?;
            ensure!(ready > 0, "the device does not answer");
            let _ = self.call.read();
        }
    }

    /// A request that has to be answered OK.
    pub(super) fn ask(&mut self, request: &Request, page: Option<&[u8; PAGE_SIZE]>) -> Result<u16> {
        self.submit(request, page)?;
        let used = self.spin();
        ensure!(used.status == Status::Ok as u16, "{} was answered with status {}", self.asked(used.slot), used.status);
        Ok(used.slot)
    }
}

/// A request of which only these matter.
pub(super) fn request(opcode: Opcode, pool: u32, flags: u16, body: &[u8]) -> Request {
    let mut request = Request::new_zeroed();
    request.header.opcode = (opcode as u16).into();
    request.header.pool = pool.into();
    request.header.flags = flags.into();
    request.body[..body.len()].copy_from_slice(body);
    request
}

/// The event, for a crate that wants to know that it is open.
pub(super) fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: it is open for as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}
