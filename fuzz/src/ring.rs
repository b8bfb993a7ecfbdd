// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A ring over an image of guest memory, with requests in it that mostly make sense. Each chain is
//! followed a second time by a plain walker, which must come to the same; the device may write to
//! what the walker found writable and to the used ring, and nowhere else; and a chain that is
//! served again, as after a death, has the same bytes in it.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::slice;
use std::sync::{Arc, OnceLock};

use arbitrary::{Arbitrary, Unstructured};
use rustix::fs::{MemfdFlags, memfd_create};
use vhost_zcache::device::batch::Batch;
use vhost_zcache::device::chain::Chain;
use vhost_zcache::device::execute::Executor;
use vhost_zcache::device::guest_memory::Memory;
use vhost_zcache::device::guest_region::GuestRegion;
use vhost_zcache::device::ring::{Ring, RingFeatures, RingPlace};
use vhost_zcache::device::session::Session;
use vhost_zcache::ledger::Ledger;
use vhost_zcache::ledger::service::Attempt;
use vm_memory::GuestAddress;
use zcache_store::{Background, GuestConfig, Store, StoreConfig};

const BASE: u64 = 0x10_0000;
const SIZE: usize = 0x2_0000;
/// Where the parts of the ring mostly are.
const AVAILABLE: u16 = 0x1000;
const USED: u16 = 0x2000;
/// Where the bytes of chains are, what the device reads and what it writes.
const READABLE: usize = 0x4000;
const WRITABLE: usize = 0x1_2000;
const STRIDE: usize = 0x3000;
const CHAINS: usize = 4;
/// Bytes that are compared at once.
const PIECE: usize = 64;

#[derive(Arbitrary, Debug)]
struct Scene<'a> {
    /// The size is a power of two, mostly.
    size: u8,
    odd_place: Option<[u16; 3]>,
    features: u8,
    used: u16,
    ahead: u8,
    heads: [u8; 8],
    chains: Vec<Spec>,
    written: Vec<(u32, &'a [u8])>,
}

/// A chain as a driver makes it.
#[derive(Arbitrary, Debug)]
struct Spec {
    requests: Vec<Asked>,
    /// How many bytes its first descriptor has.
    cut: u16,
    indirect: bool,
    /// More or fewer bytes than it should have.
    slack: i8,
}

#[derive(Arbitrary, Debug, Clone, Copy)]
struct Asked {
    opcode: u8,
    flags: u8,
    pool: u8,
    object: u8,
    index: u8,
    odd: Option<(u8, u8)>,
}

struct Workplace {
    file: File,
    memory: Memory,
    ledger: Ledger,
    store: Store,
}

fn workplace() -> Workplace {
    let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).expect("a file is made"));
    file.set_len(SIZE as u64).expect("it can be of that length");
    let region = GuestRegion::map(&file, 0, GuestAddress(BASE), SIZE as u64).expect("it can be mapped");
    let memory = Memory::from_regions(vec![region]).expect("one region is no overlap");
    let (ledger, _) = Ledger::create(1, 1).expect("there is memory");
    let config = StoreConfig { background: Background::Manual, shards: 1, ..StoreConfig::new(4 << 20) };
    Workplace { file, memory, ledger, store: Store::new(config).expect("a store is made") }
}

/// Makes an image of the bytes, and has the device serve the ring in it.
pub fn run(data: &[u8]) {
    static WORKPLACE: OnceLock<Workplace> = OnceLock::new();
    let Workplace { file, memory, ledger, store } = WORKPLACE.get_or_init(workplace);
    let Ok(scene) = Unstructured::new(data).arbitrary::<Scene<'_>>() else { return };
    let place = scene.place();
    let mut image = Image(vec![0; SIZE]);
    scene.paint(place, &mut image);
    file.write_all_at(&image.0, 0).expect("it can be written");

    let features = RingFeatures { event_idx: scene.features & 1 != 0, indirect: scene.features & 2 != 0 };
    let queue = &ledger.queues(0)[0];
    queue.forget();
    let guest = store.register_guest(GuestConfig::new("fuzz"));
    let session = Arc::new(Session::new(guest, vec![[7; 16]], ledger.session(0), 1));
    let mut device = Device { file, memory, features, place, image };
    if let Ok(ring) = Ring::start(place, features, memory) {
        device.serve(ring, Executor::new(Arc::clone(&session), queue), scene.features & 4 != 0);
    }
    drop(session);
    store.maintain(std::time::Duration::ZERO, std::time::Duration::ZERO);
}

struct Device<'a> {
    file: &'a File,
    memory: &'a Memory,
    features: RingFeatures,
    place: RingPlace,
    /// The memory as it was last.
    image: Image,
}

impl Device<'_> {
    fn serve(&mut self, mut ring: Ring, executor: Executor, dies: bool) {
        let (mut chain, mut batch) = (Chain::default(), Batch::default());
        let used = offset(self.place.used)..offset(self.place.used) + 6 + 8 * usize::from(self.place.size);
        // The device has a word of its own behind the used ring, and flags before it.
        let with_event = used.start..used.end + 2;
        for taken in 0.. {
            assert!(taken <= self.place.size, "more chains than the ring has entries");
            if ring.disable_kicks(self.memory).is_err() {
                return;
            }
            self.expect_changes(slice::from_ref(&with_event));
            let head = match ring.take(self.memory, &mut chain) {
                Ok(None) => break,
                Ok(Some(head)) => head,
                Err(_) => {
                    self.expect_changes(&[]);
                    return;
                }
            };
            let walked = self.image.walk(self.place, head.index, self.features.indirect);
            let Some(walked) = walked else { panic!("a chain was taken that makes no sense") };
            let lengths = |buffers: &[vhost_zcache::device::guest_memory::Buffer]| -> Vec<usize> {
                buffers.iter().map(|buffer| buffer.length() as usize).collect()
            };
            let found = (lengths(chain.readable()), lengths(chain.writable()));
            assert_eq!(found, (walked.readable, walked.writable.iter().map(Range::len).collect()));

            assert_eq!(executor.queue().take(head.index), Attempt::From(0));
            let served = batch.serve(self.memory, &chain, &executor, 0).expect("all buffers are in memory");
            let writable: usize = walked.writable.iter().map(Range::len).sum();
            assert!(served.written as usize <= writable, "{served:?} of {writable} bytes");
            self.expect_changes(&walked.writable);
            // What overlaps is written in an order, and is something else when it was read before.
            if dies && served.well_formed && !overlap(&walked.all) {
                let Attempt::From(first) = executor.queue().take(head.index) else { panic!("it was served once") };
                let again = batch.serve(self.memory, &chain, &executor, first).expect("it was there before");
                assert_eq!(again, served, "a chain is served otherwise after a death");
                self.expect_changes(&[]);
            }
            if ring.complete(self.memory, head, served.written).is_err() {
                return;
            }
            executor.queue().complete();
            self.expect_changes(slice::from_ref(&used));
            if ring.needs_notification(self.memory).is_err() {
                return;
            }
        }
        let _ = ring.enable_kicks(self.memory);
        self.expect_changes(slice::from_ref(&with_event));
    }

    /// Nothing but these parts has changed since the last look.
    fn expect_changes(&mut self, allowed: &[Range<usize>]) {
        let mut now = vec![0; SIZE];
        self.file.read_exact_at(&mut now, 0).expect("it can be read");
        let before = std::mem::replace(&mut self.image.0, now);
        // Piece by piece, as the compiler has each comparison of bytes told to the fuzzer.
        let pieces = before.chunks(PIECE).zip(self.image.0.chunks(PIECE)).enumerate();
        for (number, (before, now)) in pieces.filter(|(_, (before, now))| before != now) {
            for at in (0..now.len()).filter(|at| before[*at] != now[*at]) {
                let at = number * PIECE + at;
                assert!(allowed.iter().any(|range| range.contains(&at)), "byte {at:#x} was written, of {allowed:x?}");
            }
        }
    }
}

fn overlap(ranges: &[Range<usize>]) -> bool {
    ranges
        .iter()
        .enumerate()
        .any(|(n, one)| ranges[n + 1..].iter().any(|other| one.start < other.end && other.start < one.end))
}

/// Offset in the image of an address that is in memory.
fn offset(address: u64) -> usize {
    usize::try_from(address.wrapping_sub(BASE)).unwrap_or(usize::MAX)
}

impl Scene<'_> {
    fn place(&self) -> RingPlace {
        let size = if self.size < 0xf0 { 1 << (self.size % 4) } else { u16::from(self.size) << 3 };
        let [descriptors, available, used] =
            self.odd_place.unwrap_or([0, AVAILABLE, USED]).map(|offset| BASE + u64::from(offset));
        RingPlace { size, descriptors, available, used }
    }

    fn paint(&self, place: RingPlace, image: &mut Image) {
        let entries = place.size.max(1);
        for (number, chain) in self.chains.iter().take(CHAINS).enumerate() {
            chain.paint(number, place, image);
        }
        let next = self.used.wrapping_add(self.ahead.into());
        image.put(offset(place.used).wrapping_add(2), &self.used.to_le_bytes());
        image.put(offset(place.available).wrapping_add(2), &next.to_le_bytes());
        for (slot, head) in (0..entries).zip(self.heads) {
            let head = if head < 0xc0 { u16::from(head % 4) * 2 } else { head.into() };
            let slot = usize::from(self.used.wrapping_add(slot) % entries);
            image.put(offset(place.available).wrapping_add(4 + 2 * slot), &head.to_le_bytes());
        }
        for (at, bytes) in &self.written {
            image.put(*at as usize % SIZE, bytes);
        }
    }
}

impl Spec {
    fn paint(&self, number: usize, place: RingPlace, image: &mut Image) {
        let requests = &self.requests[..self.requests.len().min(3)];
        let mut bytes = u64::try_from(requests.len()).unwrap_or(0).to_le_bytes().to_vec();
        requests.iter().for_each(|asked| bytes.extend(asked.bytes()));
        let of_opcode = |opcode| requests.iter().filter(|asked| asked.bytes()[..2] == [opcode, 0]).count();
        for put in 0..of_opcode(4) {
            bytes.extend([self.cut.to_le_bytes()[0].wrapping_add(put.to_le_bytes()[0]); 4096]);
        }
        let writable = 16 * requests.len() + 4096 * of_opcode(5);
        let (from, to) = (READABLE + STRIDE * number, WRITABLE + STRIDE * number);
        image.put(from, &bytes);
        let at = |offset: usize| BASE + offset as u64;
        let first = bytes.len().min(usize::from(self.cut));
        let length = |length: usize| u32::try_from(length).unwrap_or(0);
        let slack = |bytes: usize| length(bytes).saturating_add_signed(self.slack.saturating_sub(100).max(0).into());
        if self.indirect {
            let table = 0x3000 + 0x100 * number;
            image.descriptor(table, 0, at(from), length(first), 1, 1);
            image.descriptor(table, 1, at(from + first), length(bytes.len() - first), 1, 2);
            image.descriptor(table, 2, at(to), slack(writable), 2, 0);
            image.descriptor(offset(place.descriptors), 2 * number, at(table), 48, 4, 0);
        } else {
            let next = u16::try_from(2 * number + 1).unwrap_or(0);
            image.descriptor(offset(place.descriptors), 2 * number, at(from), length(bytes.len()), 1, next);
            image.descriptor(offset(place.descriptors), 2 * number + 1, at(to), slack(writable), 2, 0);
        }
    }
}

impl Asked {
    /// The request, mostly well formed.
    fn bytes(self) -> [u8; 48] {
        let mut bytes = [0; 48];
        bytes[0] = self.opcode % 11;
        bytes[4] = self.pool % 4;
        match bytes[0] {
            1 => (bytes[4], bytes[8], bytes[24], bytes[28]) = (0, self.object % 2, 1, self.flags % 2),
            2 => {
                bytes[2] = self.flags % 4;
                let uuid = if bytes[2] == 2 { 7 } else { 0 };
                bytes[8..24].fill(uuid);
            }
            3 | 9 => {}
            10 => bytes[4] = 0,
            8 => bytes[8] = self.object % 2,
            opcode => {
                (bytes[8], bytes[32]) = (self.object % 2, self.index % 4);
                bytes[40] = if opcode == 7 { 1 + self.flags % 4 } else { 0 };
                bytes[2] = if opcode == 5 { self.flags % 2 } else { 0 };
            }
        }
        if let Some((at, byte)) = self.odd {
            bytes[usize::from(at) % 48] = byte;
        }
        bytes
    }
}

/// Guest memory.
struct Image(Vec<u8>);

/// What the walker found: lengths of what can be read, places of what can be written, and of all.
struct Walked {
    readable: Vec<usize>,
    writable: Vec<Range<usize>>,
    all: Vec<Range<usize>>,
}

impl Image {
    /// Writes what of the bytes is in memory.
    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(to) = self.0.get_mut(at..) {
            let length = bytes.len().min(to.len());
            to[..length].copy_from_slice(&bytes[..length]);
        }
    }

    fn descriptor(&mut self, table: usize, number: usize, address: u64, length: u32, flags: u16, next: u16) {
        let mut raw = address.to_le_bytes().to_vec();
        raw.extend(length.to_le_bytes());
        raw.extend(flags.to_le_bytes());
        raw.extend(next.to_le_bytes());
        self.put(table.wrapping_add(16 * number), &raw);
    }

    /// The bytes at a guest-physical address, if there are so many.
    fn at(&self, address: u64, length: usize) -> Option<&[u8]> {
        let start = usize::try_from(address.checked_sub(BASE)?).ok()?;
        self.0.get(start..start.checked_add(length)?)
    }

    fn u16(&self, address: u64) -> Option<u16> {
        Some(u16::from_le_bytes(*self.at(address, 2)?.first_chunk()?))
    }

    /// Follows the chain with this index in the available ring, if it makes sense: ZC-DEV-43.
    fn walk(&self, place: RingPlace, index: u16, indirect: bool) -> Option<Walked> {
        let slot = u64::from(index % place.size);
        let mut number = self.u16(place.available + 4 + 2 * slot)?;
        let (mut table, mut entries) = (place.descriptors, u32::from(place.size));
        let mut walked = Walked { readable: Vec::new(), writable: Vec::new(), all: Vec::new() };
        let (mut nested, mut seen) = (false, 0);
        loop {
            if u32::from(number) >= entries {
                return None;
            }
            let raw = self.at(table.checked_add(16 * u64::from(number))?, 16)?;
            let address = u64::from_le_bytes(*raw.first_chunk()?);
            let length = u32::from_le_bytes(*raw[8..].first_chunk()?);
            let flags = u16::from_le_bytes(*raw[12..].first_chunk()?);
            let next = u16::from_le_bytes(*raw[14..].first_chunk()?);
            if flags & 4 != 0 {
                let usable = indirect && !nested && flags & 1 == 0 && length > 0 && length.is_multiple_of(16);
                if !usable || self.at(address, length as usize).is_none() {
                    return None;
                }
                (table, entries, number, nested) = (address, length / 16, 0, true);
                continue;
            }
            seen += 1;
            if seen > place.size {
                return None;
            }
            if length > 0 {
                self.at(address, length as usize)?;
                let range = offset(address)..offset(address) + length as usize;
                walked.all.push(range.clone());
                if flags & 2 != 0 {
                    walked.writable.push(range);
                } else {
                    walked.readable.push(range.len());
                }
            }
            if flags & 2 == 0 && !walked.writable.is_empty() && length > 0 {
                return None;
            }
            if flags & 1 == 0 {
                return Some(walked);
            }
            number = next;
        }
    }
}
