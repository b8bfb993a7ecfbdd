// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What one operation does under a shard's lock is bounded, whatever guests did before: all others
//! whose pages are in that shard wait meanwhile.

mod common;

use std::thread;

use common::{Numbers, page};
use zcache_store::{
    Background, GetMode, Guest, GuestConfig, Key, ObjectId, PAGE_SIZE, Page, PoolId, PoolKind, Scratch, Store,
    StoreConfig,
};

const POOL: PoolId = PoolId(0);
/// Records that may be handled while a shard is locked once.
const MOST_IN_A_HOLD: u64 = 1300;

fn key(object: u8, index: u64) -> Key {
    Key { pool: POOL, object: ObjectId([object; 24]), index }
}

/// A page that is stored as one word, or none.
fn repeated(n: u64) -> Page {
    let mut page = [0; PAGE_SIZE];
    page.as_chunks_mut::<8>().0.fill((n % 7).to_le_bytes());
    page
}

/// A page that is stored as nothing but its name: its hole has no room for any other record.
fn empty(_: u64) -> Page {
    [0; PAGE_SIZE]
}

/// A page of some hundred bytes.
fn text(n: u64) -> Page {
    page(u32::try_from(n * 3 + 1).expect("a small number"))
}

fn store() -> Store {
    let config = StoreConfig { background: Background::Manual, shards: 1, cold: None, ..StoreConfig::new(1 << 30) };
    Store::new(config).expect("a store is made")
}

fn guest(store: &Store, kind: PoolKind) -> Guest {
    let guest = store.register_guest(GuestConfig::new("a"));
    guest.create_pool(POOL, kind).expect("a pool is made");
    guest
}

/// Fills a pool with pages that came back after a hit, and gets each as often as its record can
/// tell: the most that a page can be spared for.
fn fill(guest: &Guest, pages: u64, content: fn(u64) -> Page) {
    let mut scratch = Scratch::new();
    let mut out = [0; PAGE_SIZE];
    for n in 0..pages {
        guest.put(&mut scratch, &key(1, n), &content(n)).expect("there is room");
        guest.get(&mut scratch, &key(1, n), GetMode::Exclusive, &mut out).expect("there was room");
        guest.put(&mut scratch, &key(1, n), &content(n)).expect("there is room");
    }
    for n in (0..pages).cycle().take(3 * usize::try_from(pages).expect("a small number")) {
        guest.get(&mut scratch, &key(1, n), GetMode::Plain, &mut out).expect("there was room");
    }
}

/// Puts pages into a store that is full, and checks what each put does; returns how many were
/// refused.
fn put_into_full(store: &Store, guest: &Guest, puts: u64) -> u64 {
    let mut scratch = Scratch::new();
    let mut refused = 0;
    for n in 0..puts {
        refused += u64::from(guest.put(&mut scratch, &key(2, n), &text(n)).is_err());
        let most = store.longest_hold();
        assert!(most <= MOST_IN_A_HOLD, "put {n} handled {most} records while it held the lock of a shard");
    }
    store.check().expect("the store is consistent");
    refused
}

#[test]
fn a_put_into_a_heap_whose_pages_were_all_hit_spares_a_few_only() {
    for content in [empty, repeated, text] {
        let store = store();
        let guest = guest(&store, PoolKind::Ephemeral);
        fill(&guest, 20_000, content);
        store.set_memory_limit(store.stats().physical_bytes + 4096);
        assert_eq!(put_into_full(&store, &guest, 500), 0, "puts were refused beside pages that can be evicted");
    }
}

#[test]
fn a_put_frees_a_segment_of_another_guests_pages_in_steps() {
    for content in [empty, repeated, text] {
        let store = store();
        let other = guest(&store, PoolKind::Ephemeral);
        fill(&other, 20_000, content);
        let guest = guest(&store, PoolKind::Persistent);
        store.set_memory_limit(store.stats().physical_bytes + 4096);
        assert_eq!(put_into_full(&store, &guest, 500), 0, "puts were refused beside pages that can be evicted");
    }
}

#[test]
fn a_smaller_limit_is_reached_in_steps() {
    let store = store();
    let guest = guest(&store, PoolKind::Ephemeral);
    fill(&guest, 20_000, repeated);
    let full = store.stats().physical_bytes;
    store.set_memory_limit(full / 4);
    store.check().expect("the store is consistent");
    let (left, most) = (store.stats().physical_bytes, store.longest_hold());
    assert!(left <= full / 4, "{left} bytes are left of {full}, and {} may", full / 4);
    assert!(most <= MOST_IN_A_HOLD, "{most} records were handled while a shard was locked");
}

/// A segment is emptied whose last record is the name of an object, and there is no room for it
/// anywhere: the holes are those of single pages, and the segment that is written to ends with a
/// page of memory. So the object goes, with all its pages.
#[test]
fn an_object_whose_name_finds_no_room_goes_in_steps() {
    let store = store();
    let guest = guest(&store, PoolKind::Ephemeral);
    let mut scratch = Scratch::new();
    // Of a segment's 32,768 words, the header takes 6, the name 5 and a page 4.
    let pages = (32_768 - 6 - 5) / 4 + (40 * 512 - 6) / 4;
    for n in 0..pages {
        guest.put(&mut scratch, &key(1, n), &empty(n)).expect("there is room");
    }
    store.set_memory_limit(store.stats().physical_bytes - (128 << 10));
    store.check().expect("the store is consistent");
    let (left, most) = (store.stats().contents.pages, store.longest_hold());
    assert_eq!(left, 0, "the name found room, so this tested nothing");
    assert!(most <= MOST_IN_A_HOLD, "{most} records were handled while a shard was locked");
}

#[test]
fn segments_are_freed_in_steps_of_many_threads_at_once() {
    let config = StoreConfig { background: Background::Thread, shards: 2, cold: None, ..StoreConfig::new(4 << 20) };
    let store = Store::new(config).expect("a store is made");
    let shared = PoolKind::SharedEphemeral([7; 16]);
    thread::scope(|scope| {
        for number in 0..4_u64 {
            let store = &store;
            scope.spawn(move || {
                let mut scratch = Scratch::new();
                let mut out = [0; PAGE_SIZE];
                let mut random = Numbers::new(number);
                for _ in 0..4 {
                    let guest = store.register_guest(GuestConfig::new("a"));
                    // A store without any room is no fault.
                    let pools = [(PoolKind::Ephemeral, 0), (shared, 1), (PoolKind::Persistent, 2)];
                    let has = pools.map(|(kind, id)| guest.create_pool(PoolId(id), kind).is_ok());
                    for _ in 0..15_000 {
                        let (pool, n) = (u32::try_from(random.below(8)).unwrap_or(0), random.below(6000));
                        // Of eight, five are ephemeral, two are shared and one is persistent.
                        let pool = [0, 0, 0, 0, 0, 1, 1, 2][pool as usize];
                        let index = if pool == 2 { n % 300 } else { n };
                        let key = Key { pool: PoolId(pool), object: ObjectId([(n % 5) as u8; 24]), index };
                        if has[pool as usize] && random.below(3) > 0 {
                            let content = *random.pick(&[empty as fn(u64) -> Page, repeated, repeated, text]);
                            let _ = guest.put(&mut scratch, &key, &content(n));
                        } else {
                            let _ = guest.get(&mut scratch, &key, GetMode::Plain, &mut out);
                        }
                    }
                    store.check().expect("the store is consistent");
                }
            });
        }
    });
    store.check().expect("the store is consistent");
    common::wait_until_empty(&store);
}
