// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host gets memory back: from where it should, as much as it wants, and nothing that was
//! given comes again.

mod common;

use std::thread;
use std::time::Duration;

use common::page;
use rustix::fs::{SeekFrom, seek};
use zcache_store::{
    Background, GetError, GetMode, Guest, GuestConfig, Key, ObjectId, PAGE_SIZE, PoolId, PoolKind, PutError, Refusal,
    Scratch, Store, StoreConfig, Weight,
};

const FILES: PoolId = PoolId(0);
const SWAP: PoolId = PoolId(1);

fn config() -> StoreConfig {
    StoreConfig { background: Background::Manual, shards: 4, cold: None, ..StoreConfig::new(256 << 20) }
}

fn store() -> Store {
    Store::new(config()).expect("a store is made")
}

fn guest(store: &Store, name: &str, weight: u16, reserved: u64) -> Guest {
    let weight = Weight::try_from(weight).expect("it is a weight");
    let reservation = Some(store.reserve(reserved));
    let guest = store.register_guest(GuestConfig { weight, reservation, ..GuestConfig::new(name) });
    guest.create_pool(FILES, PoolKind::Ephemeral).expect("a pool is made");
    guest.create_pool(SWAP, PoolKind::Persistent).expect("a pool is made");
    guest
}

fn key(pool: PoolId, index: u64) -> Key {
    Key { pool, object: ObjectId([(index % 5) as u8; 24]), index }
}

/// A page that does not compress.
fn content(index: u64) -> [u8; PAGE_SIZE] {
    page(u32::try_from(index).expect("a small number") * 3 + 2)
}

fn put(guest: &Guest, pool: PoolId, pages: std::ops::Range<u64>) {
    let mut scratch = Scratch::new();
    for index in pages {
        guest.put(&mut scratch, &key(pool, index), &content(index)).expect("there is room");
    }
}

/// Pages that are there; all of them must be what was put.
fn left(guest: &Guest, pool: PoolId, pages: std::ops::Range<u64>) -> u64 {
    let mut scratch = Scratch::new();
    let mut out = [0; PAGE_SIZE];
    let is_there = |index: &u64| match guest.get(&mut scratch, &key(pool, *index), GetMode::Plain, &mut out) {
        Ok(()) => {
            assert!(out == content(*index), "page {index} is another");
            true
        }
        Err(GetError::Miss) => false,
        Err(error) => panic!("page {index}: {error}"),
    };
    pages.filter(is_there).count() as u64
}

#[test]
fn all_ephemeral_memory_and_no_persistent_page_is_given() {
    let store = store();
    let guest = guest(&store, "a", 100, 0);
    put(&guest, FILES, 0..4000);
    put(&guest, SWAP, 0..1000);
    let before = store.stats().physical_bytes;
    let given = store.give_back(u64::MAX);
    store.check().expect("the store is consistent");
    let after = store.stats().physical_bytes;
    assert!(given.ephemeral["a"] > 4000 * PAGE_SIZE as u64, "{given:?}");
    assert!(before - after >= given.given, "{given:?}, and {before} bytes have become {after}");
    assert_eq!(left(&guest, FILES, 0..4000), 0, "ephemeral pages stay");
    assert_eq!(left(&guest, SWAP, 0..1000), 1000, "persistent pages were given");
    assert_eq!(guest.stats().pools[0].counters.evicted, 4000);
    store.maintain(Duration::ZERO, Duration::ZERO);
    store.check().expect("the store is consistent");
    put(&guest, FILES, 0..4000);
    assert_eq!(left(&guest, FILES, 0..4000), 4000, "the store is of no use any more");
    store.check().expect("the store is consistent");
}

#[test]
fn as_much_is_given_as_was_asked_for() {
    let store = store();
    let guest = guest(&store, "a", 100, 0);
    put(&guest, FILES, 0..12_000);
    for asked in [1, 300 << 10, 5 << 20, 12 << 20] {
        let given = store.give_back(asked);
        assert_eq!(given.asked, asked);
        assert!(given.given >= asked, "{given:?}");
        // A quarter of the pages is in each shard.
        assert!(given.given < asked + (8 << 20), "{given:?}");
        store.check().expect("the store is consistent");
    }
    assert!(left(&guest, FILES, 0..12_000) > 3000, "much more was given than was asked for");
}

#[test]
fn of_a_part_of_a_shard_what_is_oldest_is_given() {
    let store = store();
    let guest = guest(&store, "a", 100, 0);
    put(&guest, FILES, 0..12_000);
    let given = store.give_back(4 << 20);
    assert!(given.given < 5 << 20, "{given:?}");
    let gone = 6000 - left(&guest, FILES, 0..6000);
    assert!(gone * PAGE_SIZE as u64 > given.given / 4 * 3, "{gone} pages of the older half are gone: {given:?}");
    store.check().expect("the store is consistent");
}

#[test]
fn what_many_guests_give_in_whole_shards_is_as_much_as_was_asked_for() {
    let store = store();
    let names: Vec<String> = (0..8).map(|number| format!("guest {number}")).collect();
    let guests: Vec<Guest> = names.iter().map(|name| guest(&store, name, 100, 0)).collect();
    for guest in &guests {
        put(guest, FILES, 0..2000);
    }
    // Two MiB and a little are in each shard.
    for asked in [10 << 20, 15 << 20] {
        let given = store.give_back(asked);
        assert!((asked..asked + (3 << 20)).contains(&given.given), "{given:?}");
        let share = asked / names.len() as u64;
        assert!(given.ephemeral.values().all(|bytes| *bytes < share + (3 << 20)), "{given:?}");
        store.check().expect("the store is consistent");
    }
}

/// The kernel splits a huge page of which a part is given back, which takes it longer than giving
/// all of it.
#[test]
fn half_of_what_a_guest_has_is_given_in_whole_huge_pages() {
    const BLOCK: u64 = 2 << 20;
    let store = store();
    let guest = guest(&store, "a", 100, 0);
    for step in 0..200 {
        put(&guest, FILES, step * 128..(step + 1) * 128);
        store.maintain(Duration::ZERO, Duration::ZERO);
    }
    // What was made ready ahead goes back.
    for _ in 0..16 {
        store.maintain(Duration::ZERO, Duration::ZERO);
    }
    let file = store.memory_file().expect("a descriptor is left");
    // Blocks are in the second half of the file.
    let length = file.metadata().expect("the file's length").len();
    let resident = |from: u64, bytes: u64| {
        let pages = (from..from + bytes).step_by(PAGE_SIZE);
        pages.filter(|at| seek(&file, SeekFrom::Data(*at)) == Ok(*at)).count() as u64
    };
    let blocks = || {
        let mut found = (0, 0);
        let mut at = length / 2;
        while let Ok(data) = seek(&file, SeekFrom::Data(at)) {
            let start = data / BLOCK * BLOCK;
            let whole = resident(start, BLOCK) * PAGE_SIZE as u64 == BLOCK;
            *(if whole { &mut found.0 } else { &mut found.1 }) += 1;
            at = start + BLOCK;
        }
        found
    };
    let (whole, _) = blocks();
    assert!(whole > 24, "the test wants blocks: {whole}");
    store.give_back(50 << 20);
    let (left, parts) = blocks();
    assert!(left < whole * 2 / 3, "{left} of {whole} whole blocks are left");
    assert!(parts < whole / 2, "of {parts} blocks a part is left, of {whole} before");
}

#[test]
fn what_is_nobodys_goes_first() {
    let store = store();
    let guest = guest(&store, "a", 100, 0);
    put(&guest, FILES, 0..2000);
    let gone = store.register_guest(GuestConfig::new("gone"));
    gone.create_pool(FILES, PoolKind::Persistent).expect("a pool is made");
    put(&gone, FILES, 0..4000);
    drop(gone);
    let given = store.give_back(8 << 20);
    assert!(given.garbage >= 8 << 20, "{given:?}");
    assert_eq!(left(&guest, FILES, 0..2000), 2000, "pages were evicted although there was garbage: {given:?}");
}

#[test]
fn guests_give_by_weight_and_within_their_reservations_last() {
    let store = store();
    let light = guest(&store, "light", 100, 0);
    let heavy = guest(&store, "heavy", 10_000, 0);
    let reserved = guest(&store, "reserved", 1, 64 << 20);
    for guest in [&light, &heavy, &reserved] {
        put(guest, FILES, 0..4000);
    }
    let given = store.give_back(6 << 20);
    assert!(given.ephemeral.contains_key("light") && given.ephemeral.len() == 1, "{given:?}");
    let given = store.give_back(18 << 20);
    assert!(given.ephemeral.contains_key("heavy") && !given.ephemeral.contains_key("reserved"), "{given:?}");
    assert_eq!(left(&reserved, FILES, 0..4000), 4000, "a reservation did not hold while others had something");
    let given = store.give_back(u64::MAX);
    assert!(given.ephemeral.contains_key("reserved"), "{given:?}");
    store.check().expect("the store is consistent");
}

#[test]
fn what_was_given_does_not_come_back_in_another_process() {
    let store = store();
    let guest = guest(&store, "a", 100, 0);
    put(&guest, FILES, 0..4000);
    put(&guest, SWAP, 0..1000);
    let file = store.memory_file().expect("a descriptor is left");
    store.give_back(6 << 20);
    let there = left(&guest, FILES, 0..4000);
    assert!((1..4000).contains(&there), "the test wants some pages left, not {there}");
    std::mem::forget((guest, store));
    let rebuilt = Store::rebuild(config(), file, |_| GuestConfig::new("a")).expect("the store is made again");
    rebuilt.store.check().expect("the store is consistent");
    let [guest] = &rebuilt.guests[..] else { panic!("the guest is missing") };
    assert_eq!(left(guest, FILES, 0..4000), there, "pages came back, or are lost");
    assert_eq!(left(guest, SWAP, 0..1000), 1000, "persistent pages are lost");
}

#[test]
fn others_are_served_meanwhile() {
    let store = store();
    let guest = guest(&store, "a", 100, 0);
    put(&guest, FILES, 0..8000);
    put(&guest, SWAP, 0..1000);
    thread::scope(|threads| {
        let worker = threads.spawn(|| {
            for round in 0..4 {
                put(&guest, SWAP, 1000 + round * 500..1500 + round * 500);
                put(&guest, FILES, round * 1000..round * 1000 + 1000);
                left(&guest, FILES, 0..8000);
                for index in 0..500 {
                    guest.flush_page(&key(FILES, round * 1000 + index)).expect("the pool is there");
                }
            }
        });
        while !worker.is_finished() {
            store.give_back(3 << 20);
        }
    });
    assert_eq!(left(&guest, SWAP, 0..3000), 3000, "persistent pages are lost");
    store.check().expect("the store is consistent");
}

#[test]
fn a_frozen_guest_stores_nothing_new_and_loses_nothing() {
    let store = store();
    let guest = guest(&store, "a", 100, 0);
    put(&guest, SWAP, 0..100);
    guest.set_frozen(true);
    assert!(guest.stats().frozen);
    let mut scratch = Scratch::new();
    let refused = guest.put(&mut scratch, &key(SWAP, 7), &content(8));
    assert_eq!(refused, Err(PutError::Refused(Refusal::Frozen)));
    assert_eq!(guest.stats().pools[1].counters.refused.frozen, 1);
    assert_eq!(left(&guest, SWAP, 0..100), 99, "the key of a refused put holds nothing, all others what they held");
    assert_eq!(guest.flush_page(&key(SWAP, 8)), Ok(1));
    guest.set_frozen(false);
    put(&guest, SWAP, 7..9);
    assert_eq!(left(&guest, SWAP, 0..100), 100);
}
