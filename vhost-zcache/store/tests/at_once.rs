// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is removed many pages at a time goes at once, and its memory follows in the background; it
//! does not come back with a rebuild in between, and takes nothing along that came later.

mod common;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use common::page;
use zcache_store::{
    Background, GetError, GetMode, Guest, GuestConfig, Key, ObjectId, PAGE_SIZE, PoolId, PoolKind, Scratch, Store,
    StoreConfig,
};

const PAGES: u64 = 4000;
const SWAP: PoolId = PoolId(1);
const FILES: PoolId = PoolId(2);

fn config() -> StoreConfig {
    StoreConfig { background: Background::Manual, shards: 4, cold: None, ..StoreConfig::new(1 << 30) }
}

fn key(pool: PoolId, object: u8, index: u64) -> Key {
    Key { pool, object: ObjectId([object; 24]), index }
}

fn put(guest: &Guest, pool: PoolId, object: u8, pages: u64) {
    let mut scratch = Scratch::new();
    for n in 0..pages {
        let seed = u32::try_from(n * 3 + 1).expect("a small number");
        guest.put(&mut scratch, &key(pool, object, n), &page(seed)).expect("there is room");
    }
}

/// Pages of an object that are found, each of which must be right.
fn found(guest: &Guest, pool: PoolId, object: u8) -> u64 {
    let mut scratch = Scratch::new();
    let mut out = [0; PAGE_SIZE];
    let mut found = 0;
    for n in 0..PAGES {
        if guest.get(&mut scratch, &key(pool, object, n), GetMode::Plain, &mut out).is_ok() {
            let seed = u32::try_from(n * 3 + 1).expect("a small number");
            assert!(out == page(seed), "page {n} of object {object} is another");
            found += 1;
        }
    }
    found
}

/// A guest with two objects in either pool.
fn filled(store: &Store) -> Guest {
    let guest = store.register_guest(GuestConfig::new("a"));
    for (pool, kind) in [(SWAP, PoolKind::Persistent), (FILES, PoolKind::Ephemeral)] {
        guest.create_pool(pool, kind).expect("a pool is made");
        for object in 1..3 {
            put(&guest, pool, object, PAGES);
        }
    }
    guest
}

/// A way in which pages go, and what is left of each pool's first and second object.
type Case = (&'static str, fn(&Guest) -> u64, u64, [[u64; 2]; 2]);

const CASES: [Case; 5] = [
    ("a pool is destroyed", |guest| guest.destroy_pool(SWAP).expect("it is there"), 2 * PAGES, [[0; 2], [PAGES; 2]]),
    ("a pool is flushed", |guest| guest.flush_pool(SWAP).expect("it is there"), 2 * PAGES, [[0; 2], [PAGES; 2]]),
    (
        "an object is flushed",
        |guest| guest.flush_object(SWAP, &ObjectId([1; 24])).expect("the pool is there"),
        PAGES,
        [[0, PAGES], [PAGES; 2]],
    ),
    ("ephemeral pools go", Guest::destroy_ephemeral_pools, 2 * PAGES, [[PAGES; 2], [0; 2]]),
    ("all pools go", Guest::reset, 4 * PAGES, [[0; 2]; 2]),
];

fn check_left(what: &str, guest: &Guest, left: [[u64; 2]; 2]) {
    for (pool, left) in [SWAP, FILES].into_iter().zip(left) {
        for (object, left) in (1..3).zip(left) {
            assert_eq!(found(guest, pool, object), left, "after {what}: pages of object {object} in {pool:?}");
        }
    }
}

#[test]
fn pages_go_at_once_and_their_memory_follows() {
    for (what, remove, pages, left) in CASES {
        let store = Store::new(config()).expect("a store is made");
        let guest = filled(&store);
        let before = store.stats().physical_bytes;
        assert_eq!(remove(&guest), pages, "{what}: pages removed");
        assert_eq!(store.stats().physical_bytes, before, "{what}: memory was given back by the request");
        check_left(what, &guest, left);
        store.check().unwrap_or_else(|error| panic!("{what}: {error}"));
        for _ in 0..20 {
            store.maintain(Duration::ZERO, Duration::ZERO);
        }
        store.check().unwrap_or_else(|error| panic!("{what}, and memory followed: {error}"));
        check_left(what, &guest, left);
        let after = store.stats();
        let kept = 4 * PAGES - pages;
        assert_eq!(after.contents.pages, kept, "{what}: pages counted");
        let most = before * kept / (4 * PAGES) + (1 << 20);
        assert!(after.physical_bytes < most, "{what}: {} of {before} bytes are left", after.physical_bytes);
    }
}

#[test]
fn a_rebuild_in_between_brings_nothing_back() {
    for (what, remove, _, left) in CASES {
        let store = Store::new(config()).expect("a store is made");
        let guest = filled(&store);
        remove(&guest);
        let has = [SWAP, FILES].map(|pool| guest.has_pool(pool));
        let file = store.memory_file().expect("a descriptor is left");
        // As after kill -9: nothing of the first store runs again, nothing is cleaned up.
        std::mem::forget((guest, store));
        let rebuilt = Store::rebuild(config(), file, |_| GuestConfig::new("a")).expect("the store is made again");
        rebuilt.store.check().unwrap_or_else(|error| panic!("{what}: {error}"));
        let guest = &rebuilt.guests[0];
        assert_eq!([SWAP, FILES].map(|pool| guest.has_pool(pool)), has, "{what}: pools after the rebuild");
        check_left(what, guest, left);
        // Nor do pages that are put now mix with what was there.
        for (pool, kind) in [(SWAP, PoolKind::Persistent), (FILES, PoolKind::Ephemeral)] {
            guest.create_pool(pool, kind).expect("a pool is made");
            put(guest, pool, 1, 10);
        }
        rebuilt.store.maintain(Duration::ZERO, Duration::ZERO);
        rebuilt.store.check().unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

#[test]
fn a_guest_that_left_does_not_come_back() {
    let store = Store::new(config()).expect("a store is made");
    drop(filled(&store));
    assert!(store.stats().garbage_bytes > 0, "memory was given back by whoever let the guest go");
    let file = store.memory_file().expect("a descriptor is left");
    std::mem::forget(store);
    let rebuilt = Store::rebuild(config(), file, |_| GuestConfig::new("a")).expect("the store is made again");
    assert_eq!(rebuilt.guests.len(), 0, "a guest came back that had left");
    assert_eq!(rebuilt.store.stats().physical_bytes, 0);
}

#[test]
fn a_pool_without_pages_comes_back() {
    let store = Store::new(config()).expect("a store is made");
    let guest = store.register_guest(GuestConfig::new("a"));
    guest.create_pool(SWAP, PoolKind::Persistent).expect("a pool is made");
    let file = store.memory_file().expect("a descriptor is left");
    std::mem::forget((guest, store));
    let rebuilt = Store::rebuild(config(), file, |_| GuestConfig::new("a")).expect("the store is made again");
    assert!(rebuilt.guests[0].has_pool(SWAP), "the pool is lost");
}

#[test]
fn who_stays_in_a_shared_pool_keeps_its_pages_and_their_names() {
    let store = Store::new(config()).expect("a store is made");
    let shared = PoolKind::SharedEphemeral([7; 16]);
    let [leaver, stayer] = ["leaver", "stayer"].map(|name| {
        let guest = store.register_guest(GuestConfig::new(name));
        guest.create_pool(FILES, shared).expect("a pool is made");
        guest
    });
    // The first page of each object is the leaver's, and so is the name.
    for object in 1..3 {
        put(&leaver, FILES, object, PAGES / 2);
    }
    let mut scratch = Scratch::new();
    for object in 1..3 {
        for n in PAGES / 2..PAGES {
            let seed = u32::try_from(n * 3 + 1).expect("a small number");
            stayer.put(&mut scratch, &key(FILES, object, n), &page(seed)).expect("there is room");
        }
    }
    assert_eq!(leaver.destroy_pool(FILES), Ok(PAGES), "pages of the leaver");
    for round in 0..20 {
        for object in 1..3 {
            assert_eq!(found(&stayer, FILES, object), PAGES / 2, "pages of object {object} in round {round}");
        }
        store.check().unwrap_or_else(|error| panic!("in round {round}: {error}"));
        store.maintain(Duration::ZERO, Duration::ZERO);
    }
    let left = leaver.stats().physical_bytes;
    // The leaver's own domain has a page for each of its shards.
    assert_eq!(left, 4 * 4096, "the leaver pays for pages that are gone");
    drop(stayer);
    store.maintain(Duration::ZERO, Duration::ZERO);
    assert_eq!(store.stats().physical_bytes, left, "the pool outlived its members");
}

/// Memory that is on its way back is there for whoever needs it now.
#[test]
fn a_full_store_takes_pages_as_soon_as_a_pool_has_gone() {
    let store = Store::new(StoreConfig { memory_limit: 8 << 20, ..config() }).expect("a store is made");
    let guest = store.register_guest(GuestConfig::new("a"));
    let mut scratch = Scratch::new();
    for round in 0..4 {
        guest.create_pool(SWAP, PoolKind::Persistent).expect("a pool is made");
        let mut n = 0;
        let seed = |n: u64| u32::try_from(n * 3 + 1).expect("a small number");
        while guest.put(&mut scratch, &key(SWAP, 1, n), &page(seed(n))).is_ok() {
            n += 1;
        }
        assert!(n > 5000, "round {round}: the store took {n} pages only");
        guest.destroy_pool(SWAP).expect("it is there");
        store.check().expect("the store is consistent");
    }
}

/// A flush that meets the end of its pool on other queues leaves the pool alone that takes its
/// place.
#[test]
fn a_flush_concerns_its_own_pool_only() {
    let store = Store::new(StoreConfig { shards: 64, ..config() }).expect("a store is made");
    let guest = store.register_guest(GuestConfig::new("a"));
    let other = PoolId(6);
    let stop = AtomicBool::new(false);
    let mut lost = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                let _ = guest.flush_pool(FILES);
            }
        });
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                let _ = guest.flush_object(FILES, &ObjectId([3; 24]));
            }
        });
        let mut scratch = Scratch::new();
        let mut out = [0; PAGE_SIZE];
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(3) {
            guest.create_pool(FILES, PoolKind::Ephemeral).expect("a pool is made");
            guest.destroy_pool(FILES).expect("it is there");
            guest.create_pool(other, PoolKind::Persistent).expect("a pool is made");
            for object in 0..16 {
                guest.put(&mut scratch, &key(other, object, 0), &[7; PAGE_SIZE]).expect("there is room");
            }
            for object in 0..16 {
                let got = guest.get(&mut scratch, &key(other, object, 0), GetMode::Plain, &mut out);
                lost += u64::from(got == Err(GetError::Miss));
            }
            guest.destroy_pool(other).expect("it is there");
        }
        stop.store(true, Relaxed);
    });
    assert_eq!(lost, 0, "accepted pages of another pool are lost");
    store.check().expect("the store is consistent");
}
