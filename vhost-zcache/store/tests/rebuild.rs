// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A store made again from its memory file alone holds what the first one held.

mod common;

use std::time::Duration;

use common::page;
use zcache_store::{
    Background, GetError, GetMode, Guest, GuestConfig, Key, ObjectId, PAGE_SIZE, PoolId, PoolKind, Scratch, Store,
    StoreConfig,
};

const SWAP: PoolId = PoolId(3);
const FILES: PoolId = PoolId(9);

fn config() -> StoreConfig {
    StoreConfig { background: Background::Manual, shards: 4, ..StoreConfig::new(1 << 30) }
}

fn key(pool: PoolId, object: u8, index: u64) -> Key {
    Key { pool, object: ObjectId([object; 24]), index }
}

/// Puts, overwrites and flushes; returns what must be there afterwards.
fn fill(guest: &Guest, seed: u32) -> Vec<(Key, u32)> {
    let mut scratch = Scratch::new();
    guest.create_pool(SWAP, PoolKind::Persistent).expect("a pool is made");
    guest.create_pool(FILES, PoolKind::Ephemeral).expect("a pool is made");
    let mut there = Vec::new();
    for n in 0..3000u32 {
        let pool = if n % 3 == 0 { FILES } else { SWAP };
        let key = key(pool, (n % 7) as u8, u64::from(n) * 41 % 5000);
        guest.put(&mut scratch, &key, &page(n)).expect("there is room");
        guest.put(&mut scratch, &key, &page(n + seed)).expect("there is room");
        if n % 5 == 0 {
            assert_eq!(guest.flush_page(&key), Ok(1));
            there.retain(|(other, _)| *other != key);
        } else {
            there.retain(|(other, _)| *other != key);
            there.push((key, n + seed));
        }
    }
    there
}

fn verify(guest: &Guest, there: &[(Key, u32)]) {
    let mut scratch = Scratch::new();
    let mut out = [0; PAGE_SIZE];
    for (key, seed) in there {
        assert_eq!(guest.get(&mut scratch, key, GetMode::Plain, &mut out), Ok(()), "{key:?} is lost");
        assert!(out == page(*seed), "{key:?} has another page");
    }
    assert_eq!(guest.stats().contents.pages, there.len() as u64, "pages came back that were flushed");
}

#[test]
fn everything_in_private_pools_comes_back() {
    let store = Store::new(config()).expect("a store is made");
    let guests = [store.register_guest(GuestConfig::new("a")), store.register_guest(GuestConfig::new("b"))];
    let there = [fill(&guests[0], 100_000), fill(&guests[1], 200_000)];
    // Some pages are in the cold tier, some segments were compacted.
    store.maintain(Duration::from_secs(120), Duration::from_millis(20));
    let numbers = guests.each_ref().map(Guest::number);
    let file = store.memory_file().expect("a descriptor is left");
    let before = guests.each_ref().map(|guest| guest.stats().contents);
    // As after kill -9: nothing of the first store runs again, nothing is cleaned up.
    std::mem::forget((guests, store));

    let rebuilt = Store::rebuild(config(), file, |number| GuestConfig::new(format!("guest {number}")))
        .expect("the store is made again");
    rebuilt.store.check().expect("the store is consistent");
    assert_eq!(rebuilt.dropped_records, 0, "whole records were dropped");
    assert_eq!(rebuilt.guests.len(), 2, "a guest is missing");
    for guest in &rebuilt.guests {
        let at = numbers.iter().position(|number| *number == guest.number()).expect("the guest is one of the two");
        assert_eq!(guest.stats().contents, before[at]);
        assert_eq!(guest.stats().name, format!("guest {}", numbers[at]));
        verify(guest, &there[at]);
    }
    let charged: u64 = rebuilt.guests.iter().map(|guest| guest.stats().physical_bytes).sum();
    assert_eq!(rebuilt.store.stats().physical_bytes, charged);

    // And it works on: overwriting, flushing, compacting, new guests.
    let guest = &rebuilt.guests[0];
    let there = fill(guest, 300_000);
    rebuilt.store.maintain(Duration::from_secs(240), Duration::from_secs(1));
    rebuilt.store.check().expect("the store is consistent");
    let mut scratch = Scratch::new();
    let mut out = [0; PAGE_SIZE];
    for (key, seed) in &there {
        assert_eq!(guest.get(&mut scratch, key, GetMode::Plain, &mut out), Ok(()));
        assert!(out == page(*seed));
    }
    let new = rebuilt.store.register_guest(GuestConfig::new("c"));
    assert!(!numbers.contains(&new.number()), "a number is used twice");
    drop(rebuilt.guests);
    rebuilt.store.maintain(Duration::from_secs(240), Duration::ZERO);
    rebuilt.store.check().expect("the store is consistent");
    assert_eq!(rebuilt.store.stats().physical_bytes, 0, "memory of guests that are gone is still charged");
}

#[test]
fn damage_is_never_wrong_data() {
    let store = Store::new(config()).expect("a store is made");
    let guest = store.register_guest(GuestConfig::new("a"));
    let there = fill(&guest, 100_000);
    let file = store.memory_file().expect("a descriptor is left");
    std::mem::forget((guest, store));
    // Every 64 KiB one byte is another.
    let mut at = 1000;
    let length = file.metadata().expect("a file has a length").len().min(64 << 20);
    while at < length {
        common::damage(&file, at);
        at += 65_536;
    }
    let rebuilt = Store::rebuild(config(), file, |_| GuestConfig::new("a")).expect("the store is made again");
    rebuilt.store.check().expect("the store is consistent");
    let mut scratch = Scratch::new();
    let mut out = [0; PAGE_SIZE];
    let (mut hits, mut corrupt) = (0, 0);
    for (key, seed) in &there {
        match rebuilt.guests[0].get(&mut scratch, key, GetMode::Plain, &mut out) {
            Ok(()) => {
                assert!(out == page(*seed), "{key:?} has another page");
                hits += 1;
            }
            Err(GetError::Corrupt) => corrupt += 1,
            Err(error) => assert!(matches!(error, GetError::Miss | GetError::NoPool(_))),
        }
    }
    assert!(corrupt > 0, "no damage was found");
    assert!(hits > there.len() / 2, "most pages are undamaged, but only {hits} came back");
}

#[test]
fn what_was_flushed_does_not_come_back_with_what_was_stored_after() {
    let store = Store::new(config()).expect("a store is made");
    let guest = store.register_guest(GuestConfig::new("a"));
    guest.create_pool(SWAP, PoolKind::Persistent).expect("a pool is made");
    let mut scratch = Scratch::new();
    for object in 0..40 {
        for index in 0..64 {
            guest.put(&mut scratch, &key(SWAP, object, index), &page(1000)).expect("there is room");
        }
    }
    assert_eq!(guest.flush_pool(SWAP), Ok(40 * 64));
    // The memory of what was flushed has not been given back, and these get the same numbers.
    for object in 100..140 {
        guest.put(&mut scratch, &key(SWAP, object, 0), &page(u32::from(object))).expect("there is room");
    }
    let file = store.memory_file().expect("a descriptor is left");
    std::mem::forget((guest, store));

    let rebuilt = Store::rebuild(config(), file, |_| GuestConfig::new("a")).expect("the store is made again");
    rebuilt.store.check().expect("the store is consistent");
    let there: Vec<_> = (100..140).map(|object| (key(SWAP, object, 0), u32::from(object))).collect();
    verify(&rebuilt.guests[0], &there);
}

#[test]
fn a_file_that_is_no_store_is_an_error() {
    let file = tempfile::tempfile().expect("a file is made");
    assert!(Store::rebuild(config(), file, |_| GuestConfig::new("a")).is_err());
}
