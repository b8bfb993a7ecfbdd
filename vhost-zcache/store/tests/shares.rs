// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is reserved for a guest it gets, whatever others have put before.

mod common;

use common::page;
use zcache_store::{
    Background, GetMode, Guest, GuestConfig, Key, ObjectId, PAGE_SIZE, PoolId, PoolKind, PutError, Refusal, Scratch,
    Store, StoreConfig,
};

const POOL: PoolId = PoolId(0);
const LIMIT: u64 = 32 << 20;

fn store() -> Store {
    let config = StoreConfig { background: Background::Manual, shards: 4, cold: None, ..StoreConfig::new(LIMIT) };
    Store::new(config).expect("a store is made")
}

fn guest(store: &Store, reserved: u64, kind: PoolKind) -> Guest {
    let config = GuestConfig { reservation: Some(store.reserve(reserved)), ..GuestConfig::new("a") };
    let guest = store.register_guest(config);
    guest.create_pool(POOL, kind).expect("a pool is made");
    guest
}

/// Puts pages until one is refused or there are `most`; returns how many were taken, and why no
/// more.
fn fill(guest: &Guest, most: u64) -> (u64, Option<PutError>) {
    let mut scratch = Scratch::new();
    for index in 0..most {
        let key = Key { pool: POOL, object: ObjectId([0; 24]), index };
        let seed = u32::try_from(index * 3 + 1).expect("a small number");
        if let Err(error) = guest.put(&mut scratch, &key, &page(seed)) {
            return (index, Some(error));
        }
    }
    (most, None)
}

fn left(guest: &Guest, pages: u64) -> u64 {
    let mut scratch = Scratch::new();
    let mut out = [0; PAGE_SIZE];
    let found = (0..pages).filter(|index| {
        let key = Key { pool: POOL, object: ObjectId([0; 24]), index: *index };
        guest.get(&mut scratch, &key, GetMode::Plain, &mut out).is_ok()
    });
    found.count() as u64
}

#[test]
fn a_guest_takes_what_nobody_has_reserved_and_no_more() {
    let store = store();
    let greedy = guest(&store, LIMIT / 4, PoolKind::Persistent);
    let late = store.reserve(LIMIT / 4);
    let (taken, refused) = fill(&greedy, u64::MAX);
    assert_eq!(refused, Some(PutError::Refused(Refusal::Share)));
    let bytes = greedy.stats().physical_bytes;
    assert!(bytes > LIMIT / 8 * 5, "the greedy guest has only {bytes} bytes of three quarters of the store");
    assert!(bytes <= LIMIT / 4 * 3, "the greedy guest has {bytes} bytes, of which some are reserved for others");
    assert_eq!(greedy.stats().pools[0].counters.refused.share, 1);
    assert_eq!(left(&greedy, taken), taken, "accepted pages were lost");

    let config = GuestConfig { reservation: Some(late), ..GuestConfig::new("late") };
    let late = store.register_guest(config);
    late.create_pool(POOL, PoolKind::Persistent).expect("a pool is made");
    fill(&late, u64::MAX);
    let bytes = late.stats().physical_bytes;
    assert!(bytes > LIMIT / 16 * 3, "who came late has only {bytes} bytes of the quarter reserved for it");
    store.check().expect("the store is consistent");
}

#[test]
fn ephemeral_pages_within_a_reservation_are_not_pushed_out() {
    let store = store();
    let files = guest(&store, LIMIT / 4, PoolKind::Ephemeral);
    let (pages, _) = fill(&files, 4000);
    assert!(files.stats().physical_bytes < LIMIT / 4, "the test wants fewer pages");
    let swap = guest(&store, LIMIT / 4, PoolKind::Persistent);
    let (_, refused) = fill(&swap, u64::MAX);
    assert!(refused.is_some(), "the swap of one guest took everything");
    assert_eq!(left(&files, pages), pages, "pages were pushed out that the guest has reserved memory for");
    store.check().expect("the store is consistent");
}

#[test]
fn ephemeral_pages_beyond_a_reservation_give_way_to_reserved_swap() {
    let store = store();
    let files = guest(&store, LIMIT / 4, PoolKind::Ephemeral);
    let swap = guest(&store, LIMIT / 4, PoolKind::Persistent);
    fill(&files, 40_000);
    let before = files.stats().physical_bytes;
    assert!(before > LIMIT / 4 * 3, "ephemeral pages do not use what others have reserved and leave alone: {before}");
    fill(&swap, u64::MAX);
    let bytes = swap.stats().physical_bytes;
    assert!(bytes > LIMIT / 16 * 3, "swap has only {bytes} bytes of the quarter reserved for it");
    store.check().expect("the store is consistent");
}

#[test]
fn what_was_reserved_for_a_guest_that_is_gone_is_free() {
    let store = store();
    drop(guest(&store, LIMIT / 2, PoolKind::Persistent));
    store.maintain(std::time::Duration::ZERO, std::time::Duration::ZERO);
    assert_eq!(store.stats().reserved_bytes, 0);
    let other = guest(&store, 0, PoolKind::Persistent);
    fill(&other, u64::MAX);
    let bytes = other.stats().physical_bytes;
    assert!(bytes > LIMIT / 8 * 7, "{bytes} bytes of an otherwise empty store are used");
}
