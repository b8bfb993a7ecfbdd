// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A store's memory file in which something is not as it was written: heads, names, lists of pools,
//! headers of segments. The store is made again, is consistent, and works on. Damage of a few bits
//! never gives another page than was stored. (Who can write any word can write a checksum as well,
//! so for other damage only the rest is asked for.)

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use zcache_store::{
    Background, GetError, GetMode, Guest, GuestConfig, Key, ObjectId, PAGE_SIZE, PoolId, PoolKind, Scratch, Store,
    StoreConfig,
};

use crate::common::page;

const SWAP: PoolId = PoolId(3);
const FILES: PoolId = PoolId(9);
/// Damage of one run.
const MOST: usize = 32;
/// Bits that the checksums find the change of for certain, or as good as.
const FEW: usize = 3;

/// What is done to the data of the file. Places are taken modulo its length.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Damage {
    Flip { bit: u32 },
    Word { at: u16, value: u64 },
    Half { at: u16, value: u32 },
    Copy { from: u16, to: u16, words: u8 },
    Zero { at: u16, words: u8 },
}

/// The data of a memory file, and where it was.
struct Image {
    length: u64,
    pieces: Vec<(u64, Vec<u8>)>,
    there: Vec<(Key, u32)>,
}

/// Damages a copy of the image, and makes a store of it.
pub fn run(data: &[u8]) {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    let image = IMAGE.get_or_init(image);
    let mut bytes = Unstructured::new(data);
    let mut damages = Vec::new();
    while damages.len() < MOST && !bytes.is_empty() {
        let Ok(damage) = bytes.arbitrary() else { break };
        damages.push(damage);
    }
    let mut words: Vec<u64> = image.pieces.iter().flat_map(|(_, piece)| words_of(piece)).collect();
    damages.iter().for_each(|damage| apply(*damage, &mut words));
    let file = file_of(image, &words);

    let rebuilt = Store::rebuild(config(), file, |_| GuestConfig::new("found")).expect("there is memory");
    rebuilt.store.check().unwrap_or_else(|error| panic!("the store is inconsistent: {error}"));
    let only_flips = damages.len() <= FEW && damages.iter().all(|damage| matches!(damage, Damage::Flip { .. }));
    let mut scratch = Scratch::new();
    let mut out = [0; PAGE_SIZE];
    for guest in &rebuilt.guests {
        for (key, seed) in &image.there {
            match guest.get(&mut scratch, key, GetMode::Plain, &mut out) {
                Ok(()) => assert!(!only_flips || out == page(*seed), "{key:?} has another page"),
                Err(GetError::Corrupt) => assert!(!damages.is_empty(), "{key:?} is damaged"),
                Err(error) => assert!(!damages.is_empty(), "{key:?} is lost: {error:?}"),
            }
        }
        use_on(guest, &mut scratch);
    }
    rebuilt.store.maintain(Duration::from_secs(120), Duration::from_millis(20));
    rebuilt.store.check().unwrap_or_else(|error| panic!("the store has become inconsistent: {error}"));
    drop(rebuilt.guests);
    rebuilt.store.maintain(Duration::from_secs(120), Duration::ZERO);
    assert_eq!(rebuilt.store.stats().physical_bytes, 0, "memory of guests that are gone is charged");
}

/// Stores and removes something, whatever was found.
fn use_on(guest: &Guest, scratch: &mut Scratch) {
    let _ = guest.create_pool(SWAP, PoolKind::Persistent);
    for index in 0..8 {
        let key = key(SWAP, 1, index);
        let mut out = [0; PAGE_SIZE];
        if guest.put(scratch, &key, &page(7)).is_ok() {
            assert_eq!(guest.get(scratch, &key, GetMode::Plain, &mut out), Ok(()));
            assert!(out == page(7), "{key:?} has another page than was put");
        }
        let _ = guest.flush_page(&key);
    }
    let _ = guest.flush_pool(FILES);
}

fn config() -> StoreConfig {
    StoreConfig { background: Background::Manual, shards: 1, ..StoreConfig::new(64 << 20) }
}

fn key(pool: PoolId, object: u8, index: u64) -> Key {
    Key { pool, object: ObjectId([object; 24]), index }
}

fn image() -> Image {
    let store = Store::new(config()).expect("a store is made");
    let guest = store.register_guest(GuestConfig::new("a"));
    guest.create_pool(SWAP, PoolKind::Persistent).expect("a pool is made");
    guest.create_pool(FILES, PoolKind::Ephemeral).expect("a pool is made");
    let mut scratch = Scratch::new();
    let mut there = Vec::new();
    for n in 0..24u32 {
        let key = key(if n % 3 == 0 { FILES } else { SWAP }, n.to_le_bytes()[0] % 4, u64::from(n) * 41);
        guest.put(&mut scratch, &key, &page(n)).expect("there is room");
        if n % 5 == 0 {
            assert_eq!(guest.flush_page(&key), Ok(1));
        } else {
            there.push((key, n));
        }
    }
    let file = store.memory_file().expect("a descriptor is left");
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Ok(data) = seek(&file, SeekFrom::Data(at)) {
        at = seek(&file, SeekFrom::Hole(data)).expect("data ends somewhere");
        let mut piece = vec![0; usize::try_from(at - data).expect("it was in memory")];
        file.read_exact_at(&mut piece, data).expect("the file can be read");
        pieces.push((data, piece));
    }
    Image { length: file.metadata().expect("a file has a length").len(), pieces, there }
}

fn words_of(piece: &[u8]) -> impl Iterator<Item = u64> {
    piece.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes))
}

fn file_of(image: &Image, words: &[u64]) -> File {
    let file = File::from(memfd_create("image", MemfdFlags::CLOEXEC).expect("a file is made"));
    file.set_len(image.length).expect("a file can be of that length");
    let mut rest = words;
    for (at, piece) in &image.pieces {
        let (now, later) = rest.split_at(piece.len() / 8);
        let bytes: Vec<u8> = now.iter().flat_map(|word| word.to_le_bytes()).collect();
        file.write_all_at(&bytes, *at).expect("there is memory");
        rest = later;
    }
    file
}

fn apply(damage: Damage, words: &mut [u64]) {
    let length = words.len();
    // What is used lies in the first words of each page; 16 bits reach all of the image.
    let place = |at: u16| usize::from(at) % length;
    match damage {
        Damage::Flip { bit } => {
            let bit = usize::try_from(bit).unwrap_or(0) % (length * 64);
            words[bit / 64] ^= 1 << (bit % 64);
        }
        Damage::Word { at, value } => words[place(at)] = value,
        Damage::Half { at, value } => {
            let word = &mut words[place(at)];
            *word = *word & 0xffff_ffff_0000_0000 | u64::from(value);
        }
        Damage::Copy { from, to, words: count } => {
            for n in 0..usize::from(count) {
                words[(place(to) + n) % length] = words[(place(from) + n) % length];
            }
        }
        Damage::Zero { at, words: count } => {
            for n in 0..usize::from(count) {
                words[(place(at) + n) % length] = 0;
            }
        }
    }
}
