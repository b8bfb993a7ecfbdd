// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Guests are asked to take persistent pages back when the host wants more than ephemeral pages can
//! give: those that ask, by weight, beyond their reservations, and never more than they have.

mod common;

use std::ops::Range;
use std::time::Duration;

use common::page;
use zcache_store::{
    Background, GetMode, Guest, GuestConfig, Key, ObjectId, PAGE_SIZE, PoolId, PoolKind, Scratch, Store, StoreConfig,
    Weight,
};

const FILES: PoolId = PoolId(0);
const SWAP: PoolId = PoolId(1);

fn store() -> Store {
    let config = StoreConfig { background: Background::Manual, shards: 4, cold: None, ..StoreConfig::new(256 << 20) };
    Store::new(config).expect("a store is made")
}

/// A guest with swapped pages that do not compress, which asks what it is to take back.
fn guest(store: &Store, name: &str, weight: u16, reserved: u64, pages: u64) -> Guest {
    let weight = Weight::try_from(weight).expect("it is a weight");
    let reservation = Some(store.reserve(reserved));
    let guest = store.register_guest(GuestConfig { weight, reservation, ..GuestConfig::new(name) });
    guest.create_pool(FILES, PoolKind::Ephemeral).expect("a pool is made");
    guest.create_pool(SWAP, PoolKind::Persistent).expect("a pool is made");
    put(&guest, SWAP, 0..pages);
    assert_eq!(guest.wanted().pages, 0, "nobody wants anything yet");
    guest
}

fn key(pool: PoolId, index: u64) -> Key {
    Key { pool, object: ObjectId([(index % 5) as u8; 24]), index }
}

fn put(guest: &Guest, pool: PoolId, pages: Range<u64>) {
    let mut scratch = Scratch::new();
    for index in pages {
        let content = page(u32::try_from(index).expect("a small number") * 3 + 2);
        guest.put(&mut scratch, &key(pool, index), &content).expect("there is room");
    }
}

fn flush(guest: &Guest, pool: PoolId, pages: Range<u64>) {
    for index in pages {
        assert_eq!(guest.flush_page(&key(pool, index)), Ok(1));
    }
}

#[test]
fn an_order_asks_for_what_is_missing_by_weight_and_within_reservations_last() {
    let store = store();
    let light = guest(&store, "light", 100, 0, 2000);
    let heavy = guest(&store, "heavy", 300, 0, 2000);
    let reserved = guest(&store, "reserved", 1, 64 << 20, 2000);
    put(&light, FILES, 0..500);
    let bytes = 1000 * PAGE_SIZE as u64;

    let given = store.give_back(bytes);
    assert!(given.wanted.contains_key("light") && given.wanted.len() == 1, "{given:?}");
    let missing = (bytes - given.given) / PAGE_SIZE as u64;
    let asked = given.wanted["light"];
    assert!((missing - 10..missing + 30).contains(&asked), "{asked} pages are asked for {missing} that are missing");
    assert_eq!(u64::from(light.wanted().pages), asked);
    assert!(light.wanted().again < heavy.wanted().again, "a guest of which pages are wanted asks less often");

    let given = store.give_back(3000 * PAGE_SIZE as u64);
    // Of what stays a quarter is the light guest's.
    let stay = 4000 - (3000 * PAGE_SIZE as u64 - given.given) / PAGE_SIZE as u64;
    for (name, part) in [("light", stay / 4), ("heavy", stay * 3 / 4)] {
        let stays = 2000 - given.wanted[name];
        assert!(stays.abs_diff(part) < 20, "{stays} pages of {name} may stay, which should be {part}: {given:?}");
    }
    assert!(!given.wanted.contains_key("reserved"), "{given:?}");
    let given = store.give_back(4000 * PAGE_SIZE as u64 + store.stats().physical_bytes / 100);
    assert_eq!([given.wanted["light"], given.wanted["heavy"]], [2000; 2], "{given:?}");
    let within = u64::from(reserved.wanted().pages);
    assert!(within < 200, "{within} pages within a reservation are wanted: {given:?}");
    store.relieve_host();
    assert_eq!(u64::from(reserved.wanted().pages), within, "a reservation did not hold");
    let given = store.give_back(u64::MAX);
    assert_eq!(given.wanted["reserved"], 2000, "{given:?}");
    assert_eq!(light.stats().wanted_pages, 2000);
    store.check().expect("the store is consistent");
}

#[test]
fn who_does_not_ask_is_not_asked() {
    let store = store();
    let silent = store.register_guest(GuestConfig::new("silent"));
    silent.create_pool(SWAP, PoolKind::Persistent).expect("a pool is made");
    put(&silent, SWAP, 0..2000);
    let asking = guest(&store, "asking", 100, 0, 1000);
    let given = store.give_back(u64::MAX);
    assert!(given.wanted.contains_key("asking") && given.wanted.len() == 1, "{given:?}");
    assert_eq!(asking.wanted().pages, 1000);
}

#[test]
fn each_page_that_goes_is_one_less_and_nothing_else_changes() {
    let store = store();
    let guest = guest(&store, "a", 100, 0, 1000);
    put(&guest, FILES, 0..100);
    store.give_back(900 * PAGE_SIZE as u64);
    let wanted = u64::from(guest.wanted().pages);
    assert!((50..1000).contains(&wanted), "the test wants a part of the pages to be wanted, not {wanted}");
    put(&guest, FILES, 0..100);
    flush(&guest, FILES, 0..20);
    assert_eq!(u64::from(guest.wanted().pages), wanted, "file pages count");
    flush(&guest, SWAP, 0..20);
    assert_eq!(guest.flush_range(SWAP, &ObjectId([0; 24]), 20, 10), Ok(2));
    assert_eq!(u64::from(guest.wanted().pages), wanted - 22);
    assert_eq!(guest.stats().taken_back_pages, 22);
    put(&guest, SWAP, 1000..1200);
    assert_eq!(u64::from(guest.wanted().pages), wanted - 22, "what is put is wanted as well");
    let mut out = [0; PAGE_SIZE];
    for index in 30..1200 {
        guest.get(&mut Scratch::new(), &key(SWAP, index), GetMode::Plain, &mut out).expect("a page is gone");
    }
    assert_eq!(guest.flush_pool(SWAP), Ok(1178));
    assert_eq!(guest.wanted().pages, 0, "pages are wanted that are not there");
    assert_eq!(guest.stats().taken_back_pages, wanted);
}

#[test]
fn under_pressure_file_pages_go_first() {
    let store = store();
    let guest = guest(&store, "a", 100, 0, 4000);
    put(&guest, FILES, 0..2000);
    let step = store.relieve_host();
    assert!(step.given > 0 && step.wanted.is_empty(), "{step:?}");
    assert_eq!(guest.wanted().pages, 0);
    guest.flush_pool(FILES).expect("the pool is there");
    for _ in 0..16 {
        store.maintain(Duration::ZERO, Duration::ZERO);
    }
    let before = guest.wanted().pages;
    for _ in 0..20 {
        // What was made ready for more is given first.
        store.relieve_host();
    }
    let wanted = guest.wanted().pages;
    // A sixteenth, however often the kernel repeats it.
    assert!(before == 0 && (200..=260).contains(&wanted), "{wanted} pages of 4000 are wanted, {before} before");
}
