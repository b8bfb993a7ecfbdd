// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the store says of itself.

mod common;

use std::time::Duration;

use common::{Numbers, page};
use zcache_store::{
    Background, ColdConfig, GetError, GetMode, Guest, GuestConfig, Key, ObjectId, PAGE_SIZE, PoolId, PoolKind, Scratch,
    Store, StoreConfig,
};

fn key(pool: u32, index: u64) -> Key {
    Key { pool: PoolId(pool), object: ObjectId([1; 24]), index }
}

fn store() -> Store {
    let cold = Some(ColdConfig { after: Duration::from_secs(8), cpu_percent: 10 });
    let config = StoreConfig { background: Background::Manual, shards: 1, cold, ..StoreConfig::new(1 << 30) };
    Store::new(config).expect("a store is made")
}

fn guest(store: &Store) -> Guest {
    store.register_guest(GuestConfig::new("a"))
}

#[test]
fn counters_of_a_pool_go_on_when_it_has_ended() {
    let guest = guest(&store());
    let mut scratch = Scratch::new();
    let mut out = [0; PAGE_SIZE];
    for (pool, kind) in [(1, PoolKind::Ephemeral), (2, PoolKind::Persistent)] {
        for _ in 0..2 {
            guest.create_pool(PoolId(pool), kind).expect("a pool is made");
            guest.put(&mut scratch, &key(pool, 0), &page(1)).expect("there is room");
            let missed = guest.get(&mut scratch, &key(pool, 1), GetMode::Plain, &mut out);
            assert_eq!(missed, Err(GetError::Miss));
            guest.destroy_pool(PoolId(pool)).expect("the pool is there");
        }
    }
    let ended = guest.stats().ended_pools;
    for counters in [ended.ephemeral, ended.persistent] {
        assert_eq!((counters.puts, counters.gets, counters.hits), (2, 2, 0), "{counters:?}");
    }
}

#[test]
fn pages_that_were_tried_again_are_counted() {
    let store = store();
    let guest = guest(&store);
    guest.create_pool(PoolId(1), PoolKind::Persistent).expect("a pool is made");
    let mut scratch = Scratch::new();
    let mut random = Numbers::new(1);
    for index in 0..64 {
        // Few different letters, of which zstd makes more than LZ4.
        let page = [0; PAGE_SIZE].map(|_: u8| u8::try_from(random.below(16)).expect("a small number"));
        guest.put(&mut scratch, &key(1, index), &page).expect("there is room");
    }
    assert_eq!(store.stats().background.cold_tried, 0);
    for second in 0..40 {
        store.maintain(Duration::from_secs(second), Duration::from_secs(1));
    }
    let (background, contents) = (store.stats().background, store.stats().contents);
    assert_eq!(background.cold_tried, 64);
    assert_eq!((background.cold_smaller, contents.cold), (64, 64));
}
