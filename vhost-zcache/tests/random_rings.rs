// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Random rings, chains and requests through the device in this process: whatever is in guest
//! memory, the device gives an answer or an error, keeps within the ring, and does not panic.

use std::sync::Arc;

use vhost_zcache::device::batch::Batch;
use vhost_zcache::device::chain::Chain;
use vhost_zcache::device::execute::Executor;
use vhost_zcache::device::guest_memory::Memory;
use vhost_zcache::device::guest_region::GuestRegion;
use vhost_zcache::device::ring::{Ring, RingFeatures, RingPlace};
use vhost_zcache::device::session::Session;
use vhost_zcache::ledger::Ledger;
use vhost_zcache::ledger::service::Attempt;
use vm_memory::{Bytes, GuestAddress};
use zcache_protocol::{Opcode, Status};
use zcache_store::{GuestConfig, Store, StoreConfig};

const BASE: u64 = 0x10_0000;
const SIZE: usize = 0x4_0000;
const ROUNDS: u64 = 20_000;

/// A small generator of numbers; the same seed gives the same ones.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Mostly one of the likely values, sometimes any.
    fn mostly(&mut self, likely: &[u64]) -> u64 {
        if self.below(16) == 0 {
            return self.next();
        }
        let length = u64::try_from(likely.len()).unwrap();
        likely[usize::try_from(self.below(length)).unwrap()]
    }
}

fn descriptor(memory: &Memory, index: u64, address: u64, length: u64, flags: u64, next: u64) {
    let mut raw = address.to_le_bytes().to_vec();
    raw.extend(&length.to_le_bytes()[..4]);
    raw.extend(&flags.to_le_bytes()[..2]);
    raw.extend(&next.to_le_bytes()[..2]);
    memory.write_slice(&raw, GuestAddress(BASE + 16 * index)).unwrap();
}

fn random_descriptor(memory: &Memory, random: &mut Random) {
    let index = random.below(8);
    let address = random.mostly(&[BASE + 0x8000, BASE + 0x1_0000, BASE + 0x3_fff0, BASE]);
    let length = random.mostly(&[8, 56, 104, 16, 32, 4096, 4112, 0, 48]);
    let flags = random.mostly(&[0, 1, 1, 1, 2, 2, 3, 3, 4]);
    let next = random.mostly(&[1, 2, 3, 4, 5, 6, 7, 0]);
    descriptor(memory, index, address, length, flags, next);
}

/// Writes a batch of some requests, each mostly well formed, and two descriptors for it.
fn chain_of_requests(memory: &Memory, first: u64, random: &mut Random) {
    let count = 1 + random.below(3);
    let mut bytes = count.to_le_bytes().to_vec();
    let (mut puts, mut gets) = (0, 0);
    for _ in 0..count {
        let mut request = [0u8; 48];
        request[0] = random.mostly(&[1, 2, 2, 3, 4, 4, 4, 5, 5, 5, 6, 7, 8, 9]).to_le_bytes()[0];
        match request[0] {
            1 => request[24] = 1,
            4..=7 => request[32] = random.below(3).to_le_bytes()[0],
            _ => {}
        }
        if request[0] == 7 {
            request[40] = 1;
        }
        if random.below(16) == 0 {
            request[usize::try_from(random.below(48)).unwrap()] = 0xff;
        }
        puts += u64::from(request[..2] == [4, 0]);
        gets += u64::from(request[..2] == [5, 0]);
        bytes.extend(request);
    }
    let readable = BASE + 0x8000 + 0x4000 * first;
    memory.write_slice(&bytes, GuestAddress(readable)).unwrap();
    descriptor(memory, first, readable, 8 + 48 * count + 4096 * puts, 1, first + 1);
    let writable = BASE + 0x2_8000 + 0x2000 * first;
    descriptor(memory, first + 1, writable, 16 * count + 4096 * gets, 2, 0);
}

#[test]
fn nothing_in_guest_memory_harms_the_device() {
    let store = Store::new(StoreConfig::new(4 << 20)).unwrap();
    let (ledger, _) = Ledger::create(1, 1).unwrap();
    let guest = store.register_guest(GuestConfig::new("random"));
    let session = Arc::new(Session::new(guest, Vec::new(), ledger.session(0), 1));
    let queue = &ledger.queues(0)[0];
    let executor = Executor::new(session, queue);
    let file = tempfile::tempfile().unwrap();
    file.set_len(SIZE as u64).unwrap();
    let region = GuestRegion::map(&file, 0, GuestAddress(BASE), SIZE as u64).unwrap();
    let memory = Memory::from_regions(vec![region]).unwrap();
    let mut device = Batch::default();
    let mut chain = Chain::default();
    let (mut served, mut malformed, mut refused) = (0u64, 0u64, 0u64);

    for round in 0..ROUNDS {
        let random = &mut Random(round.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for first in [0, 2, 4, 6] {
            chain_of_requests(&memory, first, random);
        }
        for _ in 0..random.below(3) {
            random_descriptor(&memory, random);
        }
        let used = random.next().to_le_bytes();
        let available = random.mostly(&[1, 2, 8]);
        let index = u16::from_le_bytes([used[0], used[1]]).wrapping_add(available.to_le_bytes()[0].into());
        memory.write_slice(&used[..2], GuestAddress(BASE + 0x2002)).unwrap();
        memory.write_slice(&index.to_le_bytes(), GuestAddress(BASE + 0x1002)).unwrap();
        for slot in 0..8 {
            let head = random.mostly(&[0, 2, 4, 6]).to_le_bytes();
            memory.write_slice(&head[..2], GuestAddress(BASE + 0x1004 + 2 * slot)).unwrap();
        }
        let place = RingPlace { size: 8, descriptors: BASE, available: BASE + 0x1000, used: BASE + 0x2000 };
        let features = RingFeatures { event_idx: random.below(2) == 0, indirect: random.below(4) != 0 };

        let Ok(mut ring) = Ring::start(place, features, &memory) else { panic!("round {round}: the layout is right") };
        for taken in 0.. {
            match ring.take(&memory, &mut chain) {
                Ok(None) => break,
                Ok(Some(head)) => {
                    assert!(taken < 8, "round {round}: more chains were taken than the ring has entries");
                    assert_eq!(queue.take(head.index), Attempt::From(0));
                    let done = device.serve(&memory, &chain, &executor, 0).unwrap();
                    assert!(done.written <= 32 * (16 + 4096), "round {round}: {done:?}");
                    served += u64::from(done.well_formed);
                    malformed += u64::from(!done.well_formed);
                    ring.complete(&memory, head, done.written).unwrap();
                    queue.complete();
                    ring.needs_notification(&memory).unwrap();
                }
                Err(_) => {
                    refused += 1;
                    break;
                }
            }
        }
    }
    println!("{served} batches served, {malformed} malformed chains, {refused} refused rings");
    let hits = queue.counters.requests(Some(Opcode::Get), Status::Ok);
    for (what, count) in [("batches", served), ("malformed chains", malformed), ("refused rings", refused)] {
        assert!(count > ROUNDS / 20, "only {count} {what}: the test does not reach what it is for");
    }
    assert!(hits > 0, "no GET ever hit: the test does not reach what it is for");
}
