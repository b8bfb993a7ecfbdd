// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The memory of a guest that has no kernel: rings and chains, which may all be spoilt.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, memfd_create};
use zcache_protocol::{F_TAKE_BACK, Opcode, PAGE_SIZE, POOL_PERSISTENT, POOL_SHARED, VERSION};

/// Queues of the guest.
pub(super) const QUEUES: u32 = 2;

/// Guest-physical address of the first byte, and the VMM's own.
const BASE: u64 = 0x4000_0000;
const VMM_BASE: u64 = 0x7f00_0000_0000;
const SIZE: u64 = 4 << 20;

/// Each queue has a block with its rings, and one with the data of its chains.
const RINGS: u64 = 0x1_0000;
const DATA: u64 = 0x20_0000;
const AVAILABLE: u64 = 0x4000;
const USED: u64 = 0x8000;
const ENTRIES: u16 = 64;
/// Chains of one batch of requests each, with two descriptors and some room.
const CHAINS: u16 = 16;
const ROOM: u64 = 0x1_0000;
/// Requests of a batch, so that all its pages fit into half of the room.
const REQUESTS: u64 = 7;

const READ_NEXT: u16 = 1;
const WRITE: u16 = 2;
/// Bytes of the shared pool's UUID: `SHARED_UUID`.
const UUID: [u8; 16] = *b"ZCCH\0\0\x40\0\x80\0chaos\x01";

/// Guest memory and the events of its queues.
#[derive(Debug)]
pub(super) struct Memory {
    file: File,
    kicks: [File; QUEUES as usize],
    call: File,
    /// The available index of each queue.
    available: [u16; QUEUES as usize],
}

impl Memory {
    pub(super) fn new() -> io::Result<Self> {
        let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC)?);
        file.set_len(SIZE)?;
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(File::from);
        Ok(Self { file, kicks: [event()?, event()?], call: event()?, available: [0; QUEUES as usize] })
    }

    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub(super) fn kick_of(&self, queue: u32) -> BorrowedFd<'_> {
        self.kicks[queue as usize].as_fd()
    }

    /// Told of used chains of all queues; nobody looks at it.
    pub(super) fn call(&self) -> BorrowedFd<'_> {
        self.call.as_fd()
    }

    /// Entries of each ring.
    pub(super) fn entries(&self) -> u32 {
        ENTRIES.into()
    }

    /// The body of SET_MEM_TABLE.
    pub(super) fn table(&self) -> Vec<u8> {
        [1, BASE, SIZE, VMM_BASE, 0].iter().flat_map(|word: &u64| word.to_ne_bytes()).collect()
    }

    /// The end of the body of SET_VRING_ADDR.
    pub(super) fn places(&self, queue: u32) -> Vec<u8> {
        let rings = VMM_BASE + rings(queue);
        [rings, rings + USED, rings + AVAILABLE, 0].iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    /// Says HELLO and makes three pools, one of each kind.
    pub(super) fn open_session(&mut self, random: &mut Rng) -> io::Result<()> {
        let mut hello = request(Opcode::Hello, 0, 0);
        hello[8..24].fill(random.u8(1..4));
        hello[24..28].copy_from_slice(&VERSION.to_le_bytes());
        let mut shared = request(Opcode::PoolCreate, POOL_SHARED, 2);
        shared[8..24].copy_from_slice(&UUID);
        let requests =
            [hello, request(Opcode::PoolCreate, POOL_PERSISTENT, 0), request(Opcode::PoolCreate, 0, 1), shared];
        self.add_chain(0, &requests, random)?;
        self.publish(0)?;
        self.await_used(super::PATIENCE)
    }

    /// Adds some batches of requests to each queue, most of them in order.
    pub(super) fn add_batches(&mut self, random: &mut Rng) -> io::Result<()> {
        for queue in 0..QUEUES {
            for _ in 0..random.u16(1..CHAINS) {
                let requests: Vec<_> = (0..random.u64(1..=REQUESTS)).map(|_| some_request(random)).collect();
                self.add_chain(queue, &requests, random)?;
            }
        }
        Ok(())
    }

    /// Lets the device have all chains that were added, and some more.
    pub(super) fn publish(&mut self, more: u16) -> io::Result<()> {
        for queue in 0..QUEUES {
            let index = self.available[queue as usize].wrapping_add(more);
            self.write(rings(queue) + AVAILABLE + 2, &index.to_le_bytes())?;
        }
        self.kick()
    }

    pub(super) fn kick(&self) -> io::Result<()> {
        self.kicks.iter().try_for_each(|mut kick| kick.write_all(&1u64.to_ne_bytes()))
    }

    /// Waits until the device has used all chains.
    pub(super) fn await_used(&self, limit: Duration) -> io::Result<()> {
        let end = Instant::now() + limit;
        for queue in 0..QUEUES {
            let mut used = [0; 2];
            while u16::from_le_bytes(used) != self.available[queue as usize] {
                if Instant::now() >= end {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                thread::sleep(Duration::from_micros(200));
                self.file.read_exact_at(&mut used, rings(queue) + USED + 2)?;
            }
        }
        Ok(())
    }

    /// Writes nonsense into descriptors and available rings.
    pub(super) fn spoil(&self, random: &mut Rng) -> io::Result<()> {
        for _ in 0..random.u32(1..6) {
            let queue = random.u32(0..QUEUES);
            match random.u8(0..4) {
                0 => {
                    let head = if random.bool() { random.u16(..) } else { random.u16(0..ENTRIES) };
                    self.write(rings(queue) + AVAILABLE + 4 + 2 * random.u64(0..ENTRIES.into()), &head.to_le_bytes())?;
                }
                1 => self.write(rings(queue) + random.u64(0..USED + 0x100), &[random.u8(..)])?,
                2 => self.write(data(queue, random.u16(0..CHAINS)) + random.u64(0..400), &[random.u8(..)])?,
                _ => {
                    let address = [BASE, BASE + SIZE - 8, BASE + random.u64(0..SIZE), random.u64(..)];
                    let length = [0, 1, 48, 4096, random.u32(..)];
                    self.write_descriptor(
                        queue,
                        random.u16(0..ENTRIES),
                        &Descriptor {
                            address: address[random.usize(..address.len())],
                            length: length[random.usize(..length.len())],
                            flags: random.u16(0..8),
                            next: random.u16(0..ENTRIES + 2),
                        },
                    )?;
                }
            }
        }
        Ok(())
    }

    /// Clears all rings, which are not served.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.available = [0; QUEUES as usize];
        self.write(0, &vec![0; usize::try_from(u64::from(QUEUES) * RINGS).unwrap_or(0)])
    }

    /// Takes the end of the memory away from all who map it, or all of it.
    pub(super) fn cut_off(&self, random: &mut Rng) -> io::Result<()> {
        self.file.set_len(if random.bool() { 0 } else { DATA })
    }

    fn add_chain(&mut self, queue: u32, requests: &[[u8; 48]], random: &mut Rng) -> io::Result<()> {
        let index = self.available[queue as usize];
        let chain = index % CHAINS;
        let of =
            |opcode: Opcode| requests.iter().filter(|request| request[..2] == (opcode as u16).to_le_bytes()).count();
        let mut readable = u64::try_from(requests.len()).unwrap_or(0).to_le_bytes().to_vec();
        readable.extend(requests.iter().flatten());
        for _ in 0..of(Opcode::Put) {
            let (noise, fill) = (random.usize(0..PAGE_SIZE), random.u8(..));
            readable.extend((0..PAGE_SIZE).map(|at| if at < noise { random.u8(..) } else { fill }));
        }
        let place = data(queue, chain);
        self.write(place, &readable)?;
        let writable = 16 * requests.len() + PAGE_SIZE * of(Opcode::Get);
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        self.write_descriptor(
            queue,
            2 * chain,
            &Descriptor {
                address: BASE + place,
                length: length(readable.len()),
                flags: READ_NEXT,
                next: 2 * chain + 1,
            },
        )?;
        self.write_descriptor(
            queue,
            2 * chain + 1,
            &Descriptor { address: BASE + place + ROOM / 2, length: length(writable), flags: WRITE, next: 0 },
        )?;
        self.write(rings(queue) + AVAILABLE + 4 + 2 * u64::from(index % ENTRIES), &(2 * chain).to_le_bytes())?;
        self.available[queue as usize] = index.wrapping_add(1);
        Ok(())
    }

    fn write_descriptor(&self, queue: u32, index: u16, descriptor: &Descriptor) -> io::Result<()> {
        let mut bytes = descriptor.address.to_le_bytes().to_vec();
        bytes.extend(descriptor.length.to_le_bytes());
        bytes.extend(descriptor.flags.to_le_bytes());
        bytes.extend(descriptor.next.to_le_bytes());
        self.write(rings(queue) + 16 * u64::from(index), &bytes)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }
}

/// A descriptor of a ring.
#[derive(Debug)]
struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

fn rings(queue: u32) -> u64 {
    u64::from(queue) * RINGS
}

fn data(queue: u32, chain: u16) -> u64 {
    DATA + (u64::from(queue) * u64::from(CHAINS) + u64::from(chain)) * ROOM
}

fn request(opcode: Opcode, flags: u16, pool: u32) -> [u8; 48] {
    let mut request = [0; 48];
    request[0..2].copy_from_slice(&(opcode as u16).to_le_bytes());
    request[2..4].copy_from_slice(&flags.to_le_bytes());
    request[4..8].copy_from_slice(&pool.to_le_bytes());
    request
}

/// Something to do with a page, or with a pool, or a session; now and then with a wrong byte.
fn some_request(random: &mut Rng) -> [u8; 48] {
    let pool = random.u32(0..4);
    let (opcode, flags) = match random.u8(0..40) {
        0..=22 => (Opcode::Put, 0),
        23..=32 => (Opcode::Get, random.u16(0..2)),
        33..=35 => (Opcode::FlushPage, 0),
        36 => (Opcode::FlushObject, 0),
        37 => (Opcode::PoolDestroy, 0),
        38 if random.bool() => (Opcode::Wanted, 0),
        38 => (Opcode::PoolCreate, u16::from(pool == 0) * POOL_PERSISTENT),
        _ => (Opcode::Hello, 0),
    };
    let has_pool = !matches!(opcode, Opcode::Hello | Opcode::Wanted);
    let mut request = request(opcode, flags, if has_pool { pool } else { 0 });
    match opcode {
        Opcode::Put | Opcode::Get | Opcode::FlushPage => {
            request[8] = random.u8(0..8);
            request[32..34].copy_from_slice(&random.u16(..).to_le_bytes());
        }
        Opcode::FlushObject => request[8] = random.u8(0..8),
        Opcode::Hello => {
            request[8..24].fill(random.u8(1..4));
            request[24..28].copy_from_slice(&VERSION.to_le_bytes());
            request[28..32].copy_from_slice(&random.u32(0..=F_TAKE_BACK).to_le_bytes());
        }
        _ => {}
    }
    if random.u8(0..32) == 0 {
        request[random.usize(0..48)] = random.u8(..);
    }
    request
}
