// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The background thread goes on after a failure, and sleeps when there is nothing to do.

mod common;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use common::page;
use zcache_store::{Faults, GuestConfig, Key, ObjectId, PoolId, PoolKind, Scratch, Store, StoreConfig};

const POOL: PoolId = PoolId(0);

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Puts pages into a store and lets its guest go, which leaves memory to be given back.
fn make_garbage(store: &Store) {
    let guest = store.register_guest(GuestConfig::new("a"));
    guest.create_pool(POOL, PoolKind::Persistent).expect("a pool is made");
    let mut scratch = Scratch::new();
    for index in 0..2000 {
        let key = Key { pool: POOL, object: ObjectId([0; 24]), index };
        let seed = u32::try_from(index).expect("a small number");
        guest.put(&mut scratch, &key, &page(seed)).expect("there is room");
    }
}

#[test]
fn a_failure_is_counted_and_the_work_goes_on() {
    let faults = Faults::default();
    let store =
        Store::new(StoreConfig { faults: faults.clone(), ..StoreConfig::new(1 << 30) }).expect("a store is made");
    for failures in 1..3 {
        faults.fail_background(1);
        make_garbage(&store);
        wait_until("the failure on order", || store.stats().background_failures == failures);
        wait_until("memory given back after the failure", || store.stats().physical_bytes == 0);
    }
}

/// Times the threads of this process with that name went to sleep.
fn naps(name: &str) -> u64 {
    let tasks = fs::read_dir("/proc/self/task").expect("/proc is mounted");
    let mut naps = 0;
    for task in tasks.flatten() {
        let is_it = fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name);
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        naps += count.filter(|_| is_it).and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0);
    }
    naps
}

#[test]
fn an_idle_store_is_left_alone() {
    let store = Store::new(StoreConfig::new(1 << 30)).expect("a store is made");
    let guest = store.register_guest(GuestConfig::new("a"));
    guest.create_pool(POOL, PoolKind::Persistent).expect("a pool is made");
    let mut scratch = Scratch::new();
    let key = Key { pool: POOL, object: ObjectId([0; 24]), index: 0 };
    guest.put(&mut scratch, &key, &page(1)).expect("there is room");
    // What there was to do is done when the thread was not woken for a second.
    wait_until("rest", || {
        let before = naps("zcache-store");
        thread::sleep(Duration::from_secs(1));
        naps("zcache-store") <= before + 1
    });
    assert!(naps("zcache-store") > 0, "the thread was not found: this tested nothing");
    // It is there again when it is needed.
    drop(guest);
    wait_until("memory given back", || store.stats().physical_bytes == 0);
}

/// However often somebody changes something, rounds have a rest between them.
#[test]
fn a_store_in_use_is_looked_after_in_rounds() {
    let store = Store::new(StoreConfig { cold: None, ..StoreConfig::new(1 << 30) }).expect("a store is made");
    let guest = store.register_guest(GuestConfig::new("a"));
    guest.create_pool(POOL, PoolKind::Persistent).expect("a pool is made");
    let mut scratch = Scratch::new();
    let (started, before) = (Instant::now(), naps("zcache-store"));
    for n in 0..1000 {
        let key = Key { pool: POOL, object: ObjectId([0; 24]), index: 0 };
        guest.put(&mut scratch, &key, &page(n)).expect("there is room");
        thread::sleep(Duration::from_millis(1));
    }
    let rounds = naps("zcache-store") - before;
    // A round each 20 ms, which a put may have woken the thread for once more.
    let most = started.elapsed().as_millis() / 20 * 2 + 10;
    assert!(u128::from(rounds) <= most, "the thread went to sleep {rounds} times, and {most} should do");
}
