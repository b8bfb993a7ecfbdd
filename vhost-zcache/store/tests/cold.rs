// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The cold tier beside everything else: it damages nothing, and it reaches everybody.

mod common;

use std::collections::HashMap;
use std::time::Duration;

use common::{Numbers, page};
use zcache_store::{
    Background, ColdConfig, GetMode, Guest, GuestConfig, Key, ObjectId, PAGE_SIZE, Page, PoolId, PoolKind, Scratch,
    Store, StoreConfig,
};

const POOL: PoolId = PoolId(0);

fn key(index: u64) -> Key {
    Key { pool: POOL, object: ObjectId([1; 24]), index }
}

/// A store whose pages are cold after eight seconds.
fn store(shards: usize) -> Store {
    let cold = Some(ColdConfig { after: Duration::from_secs(8), cpu_percent: 10 });
    let config = StoreConfig { background: Background::Manual, shards, cold, ..StoreConfig::new(1 << 30) };
    Store::new(config).expect("a store is made")
}

fn guest(store: &Store) -> Guest {
    let guest = store.register_guest(GuestConfig::new("a"));
    guest.create_pool(POOL, PoolKind::Persistent).expect("a pool is made");
    guest
}

fn check(guest: &Guest, scratch: &mut Scratch, index: u64, expected: &Page) {
    let mut out = [0; PAGE_SIZE];
    assert_eq!(guest.get(scratch, &key(index), GetMode::Plain, &mut out), Ok(()), "page {index} is lost");
    assert!(out == *expected, "page {index} is another");
}

/// A page of few different letters, of which zstd makes more than LZ4; `seed` decides how many.
fn letters(seed: u64) -> Page {
    let mut random = Numbers::new(seed);
    let mut page = [0; PAGE_SIZE];
    let used = usize::try_from(160 + random.below(3500)).expect("a small number");
    page[..used].fill_with(|| u8::try_from(random.below(16)).expect("a small number"));
    page
}

/// Pages of all sizes are overwritten and flushed while the background goes through them, a few
/// records at a time: whatever it holds on to moves under it.
#[test]
fn pages_that_come_and_go_beside_it_stay_whole() {
    let store = store(1);
    let guest = guest(&store);
    let mut scratch = Scratch::new();
    let mut random = Numbers::new(42);
    let mut there = HashMap::new();
    for round in 0..900 {
        for _ in 0..100 {
            // Some pages are seldom touched, and become cold.
            let index = if random.below(25) == 0 { 100 + random.below(500) } else { random.below(100) };
            if random.below(3) == 0 {
                guest.flush_page(&key(index)).expect("the pool exists");
                there.remove(&index);
            } else {
                let seed = random.below(1 << 32);
                guest.put(&mut scratch, &key(index), &letters(seed)).expect("there is room");
                there.insert(index, seed);
            }
        }
        store.maintain(Duration::from_millis(round * 100), Duration::from_micros(5));
        // Seldom, because what is looked at is not cold.
        if round % 300 == 299 {
            store.check().unwrap_or_else(|error| panic!("in round {round}: {error}"));
            for (index, seed) in &there {
                check(&guest, &mut scratch, *index, &letters(*seed));
            }
        }
    }
    assert!(store.stats().contents.cold > 0, "nothing became cold: this tested nothing");
}

/// A raw page each word of which looks like the head of a cold page of `length` bytes.
fn crafted(length: u64) -> Page {
    let mut random = Numbers::new(1);
    let mut page = [0; PAGE_SIZE];
    for word in page.as_chunks_mut::<8>().0 {
        *word = (random.below(1 << 32) << 32 | 50 << 24 | length << 5 | 1 << 3 | 2).to_le_bytes();
    }
    page
}

/// The background stops behind the first of two pages. They are freed, from the back, and become
/// one hole; a larger page takes it, so that where the background stopped is in its middle.
#[test]
fn where_it_stopped_may_be_in_the_middle_of_a_page() {
    // The second length reaches beyond the segment.
    for length in [100, 0x1fff] {
        let store = store(1);
        let guest = guest(&store);
        let mut scratch = Scratch::new();
        // Two of these have room for one page that does not compress, and one has not.
        let mut random = Numbers::new(3);
        let mut page = [0; PAGE_SIZE];
        page[..2400].fill_with(|| u8::try_from(random.below(256)).expect("a byte"));
        for index in 0..2 {
            guest.put(&mut scratch, &key(index), &page).expect("there is room");
        }
        let now = Duration::from_secs(100);
        // One step, which looks at the first page.
        store.maintain(now, Duration::from_nanos(1));
        guest.flush_page(&key(1)).expect("the pool exists");
        guest.flush_page(&key(0)).expect("the pool exists");
        guest.put(&mut scratch, &key(2), &crafted(length)).expect("there is room");
        store.maintain(now, Duration::from_millis(1));
        store.check().expect("the store is consistent");
        check(&guest, &mut scratch, 2, &crafted(length));
    }
}

/// Every guest's cold pages are recompressed, however many pages another one has.
#[test]
fn a_large_guest_does_not_keep_it_from_a_small_one() {
    let store = store(8);
    let mut scratch = Scratch::new();
    let [large, small] = [(); 2].map(|()| guest(&store));
    for index in 0..100_000 {
        // One repeated word: looked at, and never worth recompressing.
        let seed = u32::try_from(index % 1000).expect("a small number") * 3;
        large.put(&mut scratch, &key(index), &page(seed)).expect("there is room");
    }
    for index in 0..1000 {
        small.put(&mut scratch, &key(index), &letters(index)).expect("there is room");
    }
    let mut rounds = 0;
    while small.stats().contents.cold < 1000 {
        rounds += 1;
        assert!(rounds < 4000, "of 1000 pages {} are cold after {rounds} rounds", small.stats().contents.cold);
        store.maintain(Duration::from_secs(60), Duration::from_millis(1));
    }
    small.flush_pool(POOL).expect("the pool exists");
    store.maintain(Duration::from_secs(60), Duration::ZERO);
    store.check().expect("the store is consistent");
}
