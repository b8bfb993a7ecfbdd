// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory under churn: it comes back, limits hold, guests do not push each other out.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use common::{Numbers, page};
use zcache_store::{
    Background, EvictionPolicy, GetMode, Guest, GuestConfig, Key, ObjectId, PAGE_SIZE, PoolId, PoolKind, PutError,
    Refusal, Scratch, Store, StoreConfig,
};

const POOL: PoolId = PoolId(0);

fn key(index: u64) -> Key {
    Key { pool: POOL, object: ObjectId([0; 24]), index }
}

fn store(limit: u64) -> Store {
    let config = StoreConfig { background: Background::Manual, shards: 4, cold: None, ..StoreConfig::new(limit) };
    Store::new(config).expect("a store is made")
}

fn guest(store: &Store, kind: PoolKind) -> Guest {
    let guest = store.register_guest(GuestConfig::new("a"));
    guest.create_pool(POOL, kind).expect("a pool is made");
    guest
}

/// Pages of the seeds that compress to a few hundred bytes.
fn text(n: u64) -> zcache_store::Page {
    page(u32::try_from(n * 3 + 1).expect("a small number"))
}

#[test]
fn huge_pages_of_the_host_stay_out() {
    if !Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
        println!("skipped: this kernel has no huge pages");
        return;
    }
    let _store = store(1 << 30);
    let maps = fs::read_to_string("/proc/self/smaps").expect("/proc is mounted");
    let ours = maps.lines().skip_while(|line| !line.contains("memfd:zcache-store"));
    let flags = ours.into_iter().find(|line| line.starts_with("VmFlags:")).expect("the arena is mapped");
    assert!(flags.split_whitespace().any(|flag| flag == "nh"), "no MADV_NOHUGEPAGE: {flags}");
}

#[test]
fn many_guests_take_few_mappings() {
    let store = store(1 << 30);
    let mappings = || fs::read_to_string("/proc/self/maps").expect("/proc is mounted").lines().count();
    let mut scratch = Scratch::new();
    let before = mappings();
    let guests: Vec<Guest> = (0..100)
        .map(|_| {
            let guest = guest(&store, PoolKind::Persistent);
            for n in 0..32 {
                let key = Key { pool: POOL, object: ObjectId([n; 24]), index: 0 };
                guest.put(&mut scratch, &key, &text(u64::from(n))).expect("there is room");
            }
            guest
        })
        .collect();
    // The kernel allows 65,530. Each guest has an index in each of four shards.
    let more = mappings() - before;
    assert!(more < 40, "{} guests took {more} mappings", guests.len());
}

#[test]
fn discarded_pages_give_their_memory_back() {
    for kind in [PoolKind::Persistent, PoolKind::Ephemeral] {
        let store = store(1 << 30);
        let guest = guest(&store, kind);
        let mut scratch = Scratch::new();
        for n in 0..20_000 {
            guest.put(&mut scratch, &key(n), &text(n)).expect("there is room");
        }
        let mut random = Numbers::new(1);
        for n in 0..20_000 {
            if random.below(5) > 0 {
                guest.flush_page(&key(n)).expect("the pool exists");
            }
        }
        store.check().expect("the store is consistent");
        let full = store.stats();
        // Room for more growth goes when there was none for some rounds.
        for _ in 0..20 {
            store.maintain(Duration::ZERO, Duration::ZERO);
        }
        store.check().expect("the store is consistent");
        let after = store.stats();
        assert_eq!(after.contents, full.contents, "compaction changed what is stored");
        // 4 shards keep at most 64 KiB of holes each, and their open segments a few pages.
        let most = after.contents.compressed_bytes * 110 / 100 + (1 << 20);
        assert!(after.physical_bytes < most, "{} bytes for {after:?}", after.physical_bytes);
        let mut out = [0; PAGE_SIZE];
        let mut found = 0;
        for n in 0..20_000 {
            if guest.get(&mut scratch, &key(n), GetMode::Plain, &mut out).is_ok() {
                assert!(out == text(n), "page {n} is another after compaction");
                found += 1;
            }
        }
        assert_eq!(found, after.contents.pages, "compaction lost pages");
    }
}

#[test]
fn pages_overwritten_by_ones_as_long_take_their_places() {
    for kind in [PoolKind::Persistent, PoolKind::Ephemeral] {
        let store = store(1 << 30);
        let guest = guest(&store, kind);
        let mut scratch = Scratch::new();
        for n in 0..2_000 {
            guest.put(&mut scratch, &key(n), &text(n)).expect("there is room");
        }
        let before = store.stats().physical_bytes;
        let mut random = Numbers::new(1);
        for _ in 0..6_000 {
            let n = random.below(2_000);
            guest.put(&mut scratch, &key(n), &text(n)).expect("there is room");
        }
        store.check().expect("the store is consistent");
        assert_eq!(store.stats().physical_bytes, before, "{kind:?} pages went elsewhere");
    }
}

#[test]
fn room_made_ahead_of_a_growing_heap_is_given_back_when_it_stops() {
    let store = store(1 << 30);
    let guest = guest(&store, PoolKind::Persistent);
    let mut scratch = Scratch::new();
    let mut round = |pages: std::ops::Range<u64>| {
        for n in pages {
            guest.put(&mut scratch, &key(n), &text(n)).expect("there is room");
        }
        store.maintain(Duration::ZERO, Duration::ZERO);
        store.check().expect("the store is consistent");
        store.stats().physical_bytes
    };
    let full = round(0..20_000);
    let quiet = (0..20).map(|_| round(0..0)).last().unwrap_or(full);
    assert!(quiet + (256 << 10) < full, "of {full} bytes {quiet} stayed when nothing came any more");
    // A little more costs a little more.
    let more = round(20_000..20_001);
    assert!(more < quiet + (1 << 20), "one page took {quiet} bytes to {more}");
}

#[test]
fn what_is_resident_is_what_is_paid_for() {
    let store = store(1 << 30);
    let guest = guest(&store, PoolKind::Persistent);
    let mut scratch = Scratch::new();
    let file = store.memory_file().expect("a descriptor is free");
    let check = |when: &str| {
        store.check().expect("the store is consistent");
        let resident = file.metadata().expect("the file is open").blocks() * 512;
        let stats = store.stats();
        // Besides the index, four shards pay a page each.
        let paid = stats.physical_bytes - stats.index_bytes - 4 * 4096;
        assert_eq!(resident, paid, "{when}: {} bytes of {paid} that are paid for are resident", resident);
        resident
    };
    check("empty");
    for round in 0..20 {
        for n in round * 1000..(round + 1) * 1000 {
            guest.put(&mut scratch, &key(n), &text(n)).expect("there is room");
        }
        check("as it grows");
        store.maintain(Duration::ZERO, Duration::ZERO);
        check("with segments ready for more");
    }
    let full = check("full");
    for n in (0..20_000).filter(|n| n % 5 > 0) {
        guest.flush_page(&key(n)).expect("the pool exists");
    }
    for _ in 0..20 {
        store.maintain(Duration::ZERO, Duration::ZERO);
    }
    let left = check("after discarding most of it");
    assert!(left < full / 3, "{left} of {full} bytes stayed resident with a fifth of the pages");
    guest.flush_pool(POOL).expect("the pool exists");
    store.maintain(Duration::ZERO, Duration::ZERO);
    check("with nothing in it");
}

#[test]
fn a_full_store_keeps_persistent_pages_and_refuses() {
    let store = store(8 << 20);
    let guest = guest(&store, PoolKind::Persistent);
    let mut scratch = Scratch::new();
    let mut kept = Vec::new();
    let mut refused = 0;
    for n in 0..20_000 {
        match guest.put(&mut scratch, &key(n), &text(n)) {
            Ok(()) => kept.push(n),
            Err(error) => {
                assert_eq!(error, PutError::Refused(Refusal::StoreFull));
                refused += 1;
            }
        }
        assert!(store.stats().physical_bytes <= 8 << 20);
    }
    assert!(refused > 0, "a store of 8 MiB took 20,000 pages");
    assert_eq!(guest.stats().pools[0].counters.refused.store_full, refused);
    let mut out = [0; PAGE_SIZE];
    for n in kept {
        assert_eq!(guest.get(&mut scratch, &key(n), GetMode::Plain, &mut out), Ok(()), "page {n} was lost");
    }
    store.check().expect("the store is consistent");
}

#[test]
fn persistent_pages_displace_ephemeral_ones() {
    let store = store(8 << 20);
    let files = guest(&store, PoolKind::Ephemeral);
    let mut scratch = Scratch::new();
    for n in 0..20_000 {
        files.put(&mut scratch, &key(n), &text(n)).expect("ephemeral pages make room for others");
    }
    let swap = guest(&store, PoolKind::Persistent);
    for n in 0..3000 {
        swap.put(&mut scratch, &key(n), &text(n)).expect("ephemeral pages make room");
    }
    assert!(files.stats().pools[0].counters.evicted > 0);
    store.check().expect("the store is consistent");
}

#[test]
fn a_flood_does_not_push_another_guest_out() {
    let store = store(16 << 20);
    let quiet = guest(&store, PoolKind::Ephemeral);
    let loud = guest(&store, PoolKind::Ephemeral);
    let mut scratch = Scratch::new();
    for n in 0..3000 {
        quiet.put(&mut scratch, &key(n), &text(n)).expect("there is room");
    }
    for n in 0..60_000 {
        loud.put(&mut scratch, &key(n), &text(n)).expect("the loud guest evicts its own");
    }
    let left = quiet.stats().contents.pages;
    assert!(left >= 2900, "{left} of 3000 pages are left to the quiet guest, which has less than half");
    // And a newcomer gets its share from the loud one.
    let late = guest(&store, PoolKind::Ephemeral);
    for n in 0..3000 {
        late.put(&mut scratch, &key(n), &text(n)).expect("the loud guest makes room");
    }
    let got = late.stats().contents.pages;
    assert!(got >= 2700, "the newcomer has {got} of 3000 pages");
    store.check().expect("the store is consistent");
}

#[test]
fn limits_hold_while_many_guests_put() {
    let limit = 6 << 20;
    let store = Store::new(StoreConfig { shards: 2, ..StoreConfig::new(limit) }).expect("a store is made");
    thread::scope(|scope| {
        for number in 0..4 {
            let store = &store;
            scope.spawn(move || {
                let kind = if number % 2 == 0 { PoolKind::Persistent } else { PoolKind::Ephemeral };
                let guest = store.register_guest(GuestConfig {
                    memory_limit: Some(2 << 20),
                    ..GuestConfig::new(format!("guest {number}"))
                });
                guest.create_pool(POOL, kind).expect("a pool is made");
                let mut scratch = Scratch::new();
                for n in 0..6000 {
                    let _ = guest.put(&mut scratch, &key(n % 2500), &page(u32::try_from(n).expect("a small number")));
                    if n % 7 == 0 {
                        guest.flush_page(&key(n / 2)).expect("the pool exists");
                    }
                    assert!(store.stats().physical_bytes <= limit, "the store is above its limit");
                    assert!(guest.stats().physical_bytes <= 2 << 20, "a guest is above its limit");
                }
            });
        }
    });
    store.check().expect("the store is consistent");
    common::wait_until_empty(&store);
}

#[test]
fn a_scan_does_not_evict_the_hot_set() {
    let store = store(16 << 20);
    let guest = guest(&store, PoolKind::Ephemeral);
    let mut scratch = Scratch::new();
    let mut out = [0; PAGE_SIZE];
    let hot = 2000;
    for n in 0..hot {
        guest.put(&mut scratch, &key(n), &text(n)).expect("there is room");
    }
    for n in 0..hot {
        guest.get(&mut scratch, &key(n), GetMode::Plain, &mut out).expect("there was room");
    }
    for n in 0..60_000 {
        guest.put(&mut scratch, &key(100_000 + n), &text(n)).expect("ephemeral pages make room");
    }
    let left = (0..hot).filter(|n| guest.get(&mut scratch, &key(*n), GetMode::Plain, &mut out).is_ok()).count();
    assert!(left as u64 >= hot * 98 / 100, "a scan of 30 times the store left {left} of {hot} hot pages");
    store.check().expect("the store is consistent");
}

#[test]
fn a_page_put_again_after_an_exclusive_get_outlives_a_scan() {
    let store = store(16 << 20);
    let guest = guest(&store, PoolKind::Ephemeral);
    let mut scratch = Scratch::new();
    let mut out = [0; PAGE_SIZE];
    for n in 0..5000 {
        guest.put(&mut scratch, &key(n), &text(n)).expect("there is room");
    }
    for n in 0..1000 {
        guest.get(&mut scratch, &key(n), GetMode::Exclusive, &mut out).expect("there was room");
        guest.put(&mut scratch, &key(n), &text(n)).expect("there is room");
    }
    for n in 0..60_000 {
        guest.put(&mut scratch, &key(100_000 + n), &text(n)).expect("ephemeral pages make room");
    }
    let found = |from: u64, scratch: &mut Scratch| {
        let mut out = [0; PAGE_SIZE];
        (from..from + 1000).filter(|n| guest.get(scratch, &key(*n), GetMode::Plain, &mut out).is_ok()).count()
    };
    let (proven, others) = (found(0, &mut scratch), found(3000, &mut scratch));
    assert!(proven >= 950, "{proven} of 1000 pages with a hit are left");
    assert!(others < 100, "{others} of 1000 pages without a hit are left");
}

/// What such a guest works on looks like a scan as long as it is new.
#[test]
fn a_guest_that_turns_to_other_files_finds_them_again() {
    let store = store(16 << 20);
    let guest = guest(&store, PoolKind::Ephemeral);
    let mut scratch = Scratch::new();
    let mut out = [0; PAGE_SIZE];
    // Sets of a third of what the store can hold, each used twice.
    let set = 8000;
    let mut hits = 0;
    for n in 0..8 {
        hits = 0;
        for page in (0..set).chain(0..set) {
            let key = key(n * set + page);
            hits += u64::from(guest.get(&mut scratch, &key, GetMode::Exclusive, &mut out).is_ok());
            guest.put(&mut scratch, &key, &text(page)).expect("ephemeral pages make room");
        }
    }
    assert_eq!(guest.stats().eviction, EvictionPolicy::Clock);
    assert!(hits * 10 >= set * 9, "{hits} of {set} pages of the files in use were kept");
    store.check().expect("the store is consistent");
}
