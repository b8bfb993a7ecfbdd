// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host gives no memory: at whichever allocation that begins, the store refuses cleanly, loses
//! nothing it accepted, and goes on when there is memory again.

mod common;

use std::time::Duration;

use common::page;
use zcache_store::{
    Background, Faults, GetMode, GuestConfig, Key, ObjectId, PAGE_SIZE, PoolId, PoolKind, PutError, Refusal, Scratch,
    Store, StoreConfig,
};

const POOL: PoolId = PoolId(0);

fn key(n: u32) -> Key {
    let index = u64::from(n) * u64::from(n) * 977;
    Key { pool: POOL, object: ObjectId([(n % 3) as u8; 24]), index }
}

/// Fills a store whose allocations fail from the `nth` on; returns whether any put was refused.
fn run(nth: u64, kind: PoolKind) -> bool {
    let faults = Faults::default();
    let config =
        StoreConfig { background: Background::Manual, shards: 2, faults: faults.clone(), ..StoreConfig::new(1 << 30) };
    let store = Store::new(config).expect("a store is made");
    let guest = store.register_guest(GuestConfig::new("a"));
    guest.create_pool(POOL, kind).expect("a pool is made");
    let mut scratch = Scratch::new();
    let mut stored = Vec::new();
    let mut refused = false;
    faults.fail_from(nth);
    for n in 0..90 {
        match guest.put(&mut scratch, &key(n), &page(n)) {
            Ok(()) => stored.push(n),
            Err(error) => {
                assert_eq!(error, PutError::Refused(Refusal::NoMemory), "at allocation {nth}");
                refused = true;
            }
        }
    }
    store.maintain(Duration::from_secs(600), Duration::from_secs(1));
    store.check().unwrap_or_else(|error| panic!("at allocation {nth}: {error}"));
    let mut out = [0; PAGE_SIZE];
    for n in stored {
        let got = guest.get(&mut scratch, &key(n), GetMode::Plain, &mut out);
        if kind == PoolKind::Persistent {
            assert_eq!(got, Ok(()), "page {n} was lost at allocation {nth}");
        }
        assert!(got.is_err() || out == page(n), "page {n} is another at allocation {nth}");
    }
    faults.fail_from(0);
    guest.put(&mut scratch, &key(1), &page(7)).expect("there is memory again");
    assert_eq!(guest.get(&mut scratch, &key(1), GetMode::Plain, &mut out), Ok(()));
    store.check().unwrap_or_else(|error| panic!("after allocation {nth}: {error}"));
    drop(guest);
    store.maintain(Duration::from_secs(600), Duration::ZERO);
    assert_eq!(store.stats().physical_bytes, 0, "memory is still charged after allocation {nth}");
    refused
}

#[test]
fn every_allocation_may_fail() {
    for kind in [PoolKind::Persistent, PoolKind::Ephemeral] {
        let mut nth = 1;
        while run(nth, kind) {
            nth += 1;
        }
        assert!(nth > 20, "only {nth} allocations were reached");
    }
}
