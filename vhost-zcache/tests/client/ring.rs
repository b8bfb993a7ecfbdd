// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver's side of one split ring.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use vhost::VringConfigData;
use virtio_bindings::bindings::virtio_ring::VRING_DESC_F_NEXT;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::ram::Ram;

/// One descriptor. Nothing keeps it from being nonsense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest-physical address.
    pub address: u64,
    /// Length.
    pub length: u32,
    /// `VRING_DESC_F_*`.
    pub flags: u16,
    /// Next descriptor, if the flags say so.
    pub next: u16,
}

impl Descriptor {
    /// A descriptor that is the last of its chain.
    pub fn new(address: u64, length: usize, flags: u32) -> Self {
        Self { address, length: length as u32, flags: flags as u16, next: 0 }
    }

    /// Its form in memory.
    pub fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[0..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..16].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// A ring in guest memory, with its events.
pub struct DriverRing {
    /// Entries.
    pub size: u16,
    /// Address of the descriptor table.
    pub descriptors: u64,
    /// Address of the available ring.
    pub available: u64,
    /// Address of the used ring.
    pub used: u64,
    /// Kicks the device.
    pub kick: EventFd,
    /// Tells of used chains.
    pub call: EventFd,
    /// Interrupts seen while waiting.
    pub interrupts: u64,
    /// Kicks that were sent.
    pub kicks: u64,
    /// Wakes when `call` is signalled.
    called: Epoll,
    event_idx: bool,
    next_available: u16,
    /// Index that was published last.
    published: u16,
    next_used: u16,
    free: Vec<u16>,
    /// Descriptors of each outstanding chain by its head.
    chains: HashMap<u16, Vec<u16>>,
}

impl DriverRing {
    /// A ring that nobody serves yet.
    pub fn new(ram: &mut Ram, size: u16, event_idx: bool) -> Self {
        let entries = usize::from(size);
        let call = EventFd::new(EFD_NONBLOCK).expect("eventfd");
        let called = Epoll::new().expect("epoll");
        let event = EpollEvent::new(EventSet::IN, 0);
        called.ctl(ControlOperation::Add, call.as_raw_fd(), event).expect("epoll");
        Self {
            size,
            descriptors: ram.keep(16 * entries),
            available: ram.keep(6 + 2 * entries),
            used: ram.keep(6 + 8 * entries),
            kick: EventFd::new(EFD_NONBLOCK).expect("eventfd"),
            call,
            called,
            interrupts: 0,
            kicks: 0,
            event_idx,
            next_available: 0,
            published: 0,
            next_used: 0,
            free: (0..size).rev().collect(),
            chains: HashMap::new(),
        }
    }

    /// Clears the ring, which the device must not be serving.
    pub fn reset(&mut self, ram: &Ram) {
        let entries = usize::from(self.size);
        ram.write(self.descriptors, &vec![0; 16 * entries]);
        ram.write(self.available, &vec![0; 6 + 2 * entries]);
        ram.write(self.used, &vec![0; 6 + 8 * entries]);
        self.next_available = 0;
        self.published = 0;
        self.next_used = 0;
        self.free = (0..self.size).rev().collect();
        self.chains.clear();
    }

    /// Lets the ring, which the device must not be serving and on which nothing is outstanding,
    /// go on at another index.
    pub fn begin_at(&mut self, ram: &Ram, index: u16) {
        ram.store_u16(self.available + 2, index);
        ram.store_u16(self.used + 2, index);
        self.next_available = index;
        self.published = index;
        self.next_used = index;
    }

    /// Where the ring is, in the VMM's addresses.
    pub fn addresses(&self, ram: &Ram) -> VringConfigData {
        VringConfigData {
            queue_max_size: self.size,
            queue_size: self.size,
            flags: 0,
            desc_table_addr: ram.vmm_address(self.descriptors),
            used_ring_addr: ram.vmm_address(self.used),
            avail_ring_addr: ram.vmm_address(self.available),
            log_addr: None,
        }
    }

    /// Chains that were made available and not seen used.
    pub fn outstanding(&self) -> usize {
        self.chains.len()
    }

    /// Writes one descriptor of the table.
    pub fn write_descriptor(&self, ram: &Ram, index: u16, descriptor: &Descriptor) {
        ram.write(self.descriptors + 16 * u64::from(index), &descriptor.bytes());
    }

    /// Links descriptors into a chain and puts its head on the available ring, without telling
    /// the device.
    pub fn add(&mut self, ram: &Ram, chain: &[Descriptor]) -> u16 {
        let indexes: Vec<u16> = chain.iter().map(|_| self.free.pop().expect("a free descriptor")).collect();
        for (at, descriptor) in chain.iter().enumerate() {
            let mut descriptor = *descriptor;
            if let Some(next) = indexes.get(at + 1) {
                descriptor.flags |= VRING_DESC_F_NEXT as u16;
                descriptor.next = *next;
            }
            self.write_descriptor(ram, indexes[at], &descriptor);
        }
        let head = indexes[0];
        self.chains.insert(head, indexes);
        self.add_head(ram, head);
        head
    }

    /// Puts any number on the available ring, without telling the device.
    pub fn add_head(&mut self, ram: &Ram, head: u16) {
        let slot = u64::from(self.next_available % self.size);
        ram.store_u16(self.available + 4 + 2 * slot, head);
        self.next_available = self.next_available.wrapping_add(1);
    }

    /// Tells the device of all chains added, and kicks if it wants to be kicked.
    pub fn publish(&mut self, ram: &Ram) {
        let old = self.published;
        self.set_available_index(ram, self.next_available);
        fence(Ordering::SeqCst);
        let wanted = if self.event_idx {
            let event = ram.load_u16(self.used + 4 + 8 * u64::from(self.size));
            let new = self.next_available;
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            ram.load_u16(self.used) & 1 == 0
        };
        if wanted {
            self.kick();
        }
    }

    /// Stores any available index.
    pub fn set_available_index(&mut self, ram: &Ram, index: u16) {
        ram.store_u16(self.available + 2, index);
        self.published = index;
    }

    /// Kicks the device.
    pub fn kick(&mut self) {
        self.kicks += 1;
        self.kick.write(1).expect("kick");
    }

    /// The used index.
    pub fn used_index(&self, ram: &Ram) -> u16 {
        ram.load_u16(self.used + 2)
    }

    /// The next used chain, if there is one: its head and the length written.
    pub fn take_used(&mut self, ram: &Ram) -> Option<(u32, u32)> {
        if self.used_index(ram) == self.next_used {
            return None;
        }
        let slot = u64::from(self.next_used % self.size);
        let entry = ram.read(self.used + 4 + 8 * slot, 8);
        let head = u32::from_le_bytes(entry[0..4].try_into().expect("four bytes"));
        let written = u32::from_le_bytes(entry[4..8].try_into().expect("four bytes"));
        self.next_used = self.next_used.wrapping_add(1);
        let known = u16::try_from(head).ok().and_then(|head| self.chains.remove(&head));
        self.free.extend(known.unwrap_or_default());
        Some((head, written))
    }

    /// Waits for the next used chain, sleeping until the device interrupts.
    pub fn wait_used(&mut self, ram: &Ram, patience: Duration) -> Option<(u32, u32)> {
        let end = Instant::now() + patience;
        if self.event_idx {
            ram.store_u16(self.available + 4 + 2 * u64::from(self.size), self.next_used);
            fence(Ordering::SeqCst);
        }
        loop {
            if let Some(used) = self.take_used(ram) {
                return Some(used);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            // Rounded up, so that the last wait ends after the patience and not just before.
            let left = i32::try_from(left.as_millis() + 1).expect("a short time");
            self.called.wait(left, &mut [EpollEvent::default()]).expect("epoll");
            self.interrupts += u64::from(self.call.read().is_ok());
        }
    }
}
