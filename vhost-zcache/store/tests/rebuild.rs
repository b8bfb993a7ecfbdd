// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A store made again from its memory file alone holds what the first one held.

mod common;

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{env, panic};

use common::{copy, page};
use zcache_store::{
    Background, Care, GetError, GetMode, Guest, GuestConfig, Key, ObjectId, PAGE_SIZE, PoolId, PoolKind, PutError,
    Reopened, Reservation, Scratch, Store, StoreConfig, Watch,
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

#[test]
fn who_fails_to_rebuild_leaves_everything_to_the_next() {
    let store = Store::new(config()).expect("a store is made");
    let guest = store.register_guest(GuestConfig::new("a"));
    let there = fill(&guest, 100_000);
    let file = store.memory_file().expect("a file");
    std::mem::forget((guest, store));
    let mut failures = 0;
    for nth in 1.. {
        let config = config();
        config.faults.fail_from(nth);
        let faults = config.faults.clone();
        match Store::rebuild(config, file.try_clone().expect("a file"), |_| GuestConfig::new("a")) {
            Ok(rebuilt) => {
                faults.fail_from(0);
                verify(&rebuilt.guests[0], &there);
                break;
            }
            Err(_) => failures += 1,
        }
    }
    assert!(failures > 0, "the rebuild asks for no memory");
}

/// Notes which guests are looked at.
#[derive(Clone)]
struct Looking {
    care: fn(u32) -> Care,
    at: Arc<Mutex<Vec<u32>>>,
}

impl Looking {
    fn new(care: fn(u32) -> Care) -> Self {
        Self { care, at: Arc::default() }
    }

    /// So many parts of the guest were looked at.
    fn parts(&self, guest: u32) -> usize {
        self.guests().iter().filter(|at| **at == guest).count()
    }

    fn guests(&self) -> Vec<u32> {
        self.at.lock().expect("a list").clone()
    }
}

impl Watch for Looking {
    fn care(&self, guest: u32) -> Care {
        (self.care)(guest)
    }

    fn begins(&self, guest: u32) {
        self.at.lock().expect("a list").push(guest);
    }

    fn ends(&self, _: u32) {}
}

/// Opens a store again.
fn reopen(config: StoreConfig, file: File, guest: &GuestConfig, looking: &Looking) -> Reopened {
    let guests = |_: &dyn Fn(u64) -> Arc<Reservation>, _| guest.clone();
    Store::reopen(config, file, guests, Box::new(looking.clone())).expect("the store is opened again")
}

#[test]
fn a_suspect_comes_last_and_alone_and_another_not_at_all() {
    let store = Store::new(config()).expect("a store is made");
    let guests = ["a", "b", "c"].map(|name| store.register_guest(GuestConfig::new(name)));
    assert_eq!(guests.each_ref().map(Guest::number), [1, 2, 3]);
    let there = guests.each_ref().map(|guest| fill(guest, 100_000));
    let file = store.memory_file().expect("a file");
    std::mem::forget((guests, store));
    let looking = Looking::new(|guest| [Care::Alone, Care::Never, Care::Usual][guest as usize - 1]);
    let found = reopen(config(), file, &GuestConfig::new("found"), &looking);
    // Before anybody is served.
    let looked_at = looking.guests();
    assert!(!looked_at.contains(&2), "it is not to be looked at");
    let last = looked_at.iter().rposition(|guest| *guest == 3).expect("it was looked at");
    // Once for its pools, of which no page is seen.
    let early = looked_at[..last].iter().filter(|guest| **guest == 1).count();
    assert!(early <= 1 && looking.parts(1) > 1, "{looked_at:?}");
    assert_eq!(found.guests.iter().map(Guest::number).collect::<Vec<_>>(), [1, 3]);
    verify(&found.guests[0], &there[0]);
    verify(&found.guests[1], &there[2]);
    assert_eq!(found.recovery.finish().expect("there is memory"), 0, "whole records were dropped");
    assert_eq!(looking.guests(), looked_at, "something was looked at twice");
}

#[test]
fn guests_are_served_before_all_is_found() {
    let store = Store::new(config()).expect("a store is made");
    let guests = ["a", "b", "c"].map(|name| store.register_guest(GuestConfig::new(name)));
    let mut there = guests.each_ref().map(|guest| fill(guest, 100_000));
    let file = store.memory_file().expect("a file");
    std::mem::forget((guests, store));
    let looking = Looking::new(|_| Care::Usual);
    let Reopened { store, mut guests, recovery } = reopen(config(), file, &GuestConfig::new("found"), &looking);
    let mut scratch = Scratch::new();
    let mut out = [0; PAGE_SIZE];
    let pools = [1, 2, 3].map(|guest| looking.parts(guest));
    assert_eq!(pools, [1, 1, 1], "pages were looked for");

    // One goes before anybody has seen its pages, one joins a pool, and asks for a page.
    drop(guests.remove(1));
    guests[0].create_pool(PoolId(12), PoolKind::SharedEphemeral([7; 16])).expect("a pool is joined");
    assert_eq!([1, 2, 3].map(|guest| looking.parts(guest)), pools, "pages were looked for");
    let (key, seed) = there[0][0];
    assert_eq!(guests[0].get(&mut scratch, &key, GetMode::Plain, &mut out), Ok(()));
    assert!(out == page(seed), "{key:?} has another page");
    assert_eq!([1, 2, 3].map(|guest| looking.parts(guest)), [2, 1, 1], "more was looked for than one shard's pages");

    // What is done before all is found holds.
    let files = there[0].iter().filter(|(key, _)| key.pool == FILES).count() as u64;
    assert_eq!(guests[0].flush_pool(FILES), Ok(files));
    there[0].retain(|(key, _)| key.pool != FILES);
    for (key, seed) in there[0].iter_mut().step_by(3) {
        *seed += 1;
        guests[0].put(&mut scratch, key, &page(*seed)).expect("there is room");
    }
    store.maintain(Duration::from_secs(240), Duration::from_secs(1));
    verify(&guests[0], &there[0]);
    assert_eq!(recovery.finish().expect("there is memory"), 0, "whole records were dropped");
    assert_eq!([1, 2, 3].map(|guest| looking.parts(guest)), [5, 1, 5], "some shard was not looked at, or twice");
    store.maintain(Duration::from_secs(240), Duration::ZERO);
    store.check().expect("the store is consistent");
    verify(&guests[0], &there[0]);
    verify(&guests[1], &there[2]);
    drop(guests);
    store.maintain(Duration::from_secs(240), Duration::ZERO);
    assert_eq!(store.stats().physical_bytes, 0, "memory of guests that are gone is still charged");
}

#[test]
fn all_is_paid_for_before_it_is_found_and_limits_hold_after() {
    const LIMIT: u64 = 8 << 20;
    let store = Store::new(config()).expect("a store is made");
    let guest = store.register_guest(GuestConfig::new("a"));
    guest.create_pool(SWAP, PoolKind::Persistent).expect("a pool is made");
    guest.create_pool(FILES, PoolKind::Ephemeral).expect("a pool is made");
    let mut scratch = Scratch::new();
    let (mut files, mut swap) = (0, 0);
    while store.stats().physical_bytes < 2 * LIMIT {
        guest.put(&mut scratch, &key(FILES, 1, files), &page(2)).expect("there is room");
        files += 1;
        if files % 8 == 0 {
            guest.put(&mut scratch, &key(SWAP, 1, swap), &page(2)).expect("there is room");
            swap += 1;
        }
    }
    let file = store.memory_file().expect("a file");
    std::mem::forget((guest, store));
    // It is twice as much as the store, or the guest, may have now.
    for limits in [[LIMIT, 1 << 30], [1 << 30, LIMIT]] {
        let config = StoreConfig { memory_limit: limits[0], ..config() };
        let named = GuestConfig { memory_limit: Some(limits[1]), ..GuestConfig::new("a") };
        let Reopened { store, guests, recovery } = reopen(config, copy(&file), &named, &Looking::new(|_| Care::Usual));
        // Into one shard, more than there are holes in it.
        let indexes = (0..400).map(|n| n / 64 * 256 + n % 64);
        let mut puts = indexes.map(|index| guests[0].put(&mut scratch, &key(SWAP, 2, index), &page(2)));
        assert!(puts.any(|put| matches!(put, Err(PutError::Refused(_)))), "what is stored is not paid for");
        recovery.finish().expect("there is memory");
        let bytes = store.stats().physical_bytes;
        assert!((LIMIT / 2..=LIMIT).contains(&bytes), "{bytes} bytes are charged");
        let mut out = [0; PAGE_SIZE];
        for index in 0..swap {
            let got = guests[0].get(&mut scratch, &key(SWAP, 1, index), GetMode::Plain, &mut out);
            assert!(got == Ok(()) && out == page(2), "page {index} of swap is lost");
        }
        store.check().expect("the store is consistent");
    }
}

/// Says to this program's own process that it is the one that ends.
const CHILD: &str = "ZCACHE_FOUND_IN_PART";

/// Whoever serves guests may catch panics, and must not go on with a part of the pages.
#[test]
fn a_shard_that_is_found_in_part_is_seen_by_nobody() {
    if env::var_os(CHILD).is_none() {
        let program = env::current_exe().expect("this program");
        let name = "a_shard_that_is_found_in_part_is_seen_by_nobody";
        let child = Command::new(program).args(["--exact", name]).env(CHILD, "1").output().expect("it is started");
        assert_eq!(child.status.signal(), Some(libc::SIGABRT), "{child:?}");
        return;
    }
    let store = Store::new(config()).expect("a store is made");
    let guest = store.register_guest(GuestConfig::new("a"));
    let there = fill(&guest, 100_000);
    let file = store.memory_file().expect("a file");
    std::mem::forget((guest, store));
    let config = config();
    let faults = config.faults.clone();
    let found = reopen(config, file, &GuestConfig::new("a"), &Looking::new(|_| Care::Usual));
    faults.fail_from(1);
    let get = || found.guests[0].get(&mut Scratch::new(), &there[0].0, GetMode::Plain, &mut [0; PAGE_SIZE]);
    let _ = panic::catch_unwind(panic::AssertUnwindSafe(get));
}
