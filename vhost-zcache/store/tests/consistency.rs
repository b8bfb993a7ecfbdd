// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Many threads on few keys. Every operation records when it began and ended, and what it saw; then
//! each get is checked against all puts and flushes of its key: it may return a page only if its
//! put could have been the last one, and may miss only if something allows it.

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use common::{Numbers, page};
use zcache_store::{
    Background, ColdConfig, GetError, GetMode, Guest, GuestConfig, Key, ObjectId, PAGE_SIZE, PoolId, PoolKind,
    PutError, Scratch, Store, StoreConfig,
};

const THREADS: u32 = 4;
const OPERATIONS: u32 = 6000;
const INDEXES: u64 = 24;

/// What an operation did to its key, or saw there.
#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Put(u32),
    Refused,
    Flushed,
    Hit(u32),
    /// A hit that took the page out.
    Taken(u32),
    Miss,
}

#[derive(Clone, Copy, Debug)]
struct Event {
    began: u64,
    ended: u64,
    what: What,
}

impl Event {
    /// The value the key has after this, if it has one.
    fn leaves(&self) -> Option<Option<u32>> {
        match self.what {
            What::Put(seed) => Some(Some(seed)),
            What::Refused | What::Flushed | What::Taken(_) => Some(None),
            What::Hit(_) | What::Miss => None,
        }
    }
}

/// Whether a hit of `seed` at `get` contradicts the history: its put must have begun before the get
/// ended, and no other change may lie wholly between the two.
fn check_hit(history: &[Event], get: &Event, seed: u32) -> Result<(), String> {
    let put = history
        .iter()
        .find(|event| event.what == What::Put(seed))
        .ok_or_else(|| format!("{get:?} returned a page that nobody put"))?;
    if put.began > get.ended {
        return Err(format!("{get:?} returned the page of a later {put:?}"));
    }
    let between = history.iter().find(|event| {
        let change = event.leaves().is_some_and(|left| left != Some(seed));
        change && event.began > put.ended && event.ended < get.began
    });
    between.map_or(Ok(()), |change| Err(format!("{get:?} returned the page of {put:?} after {change:?}")))
}

/// Whether a miss at `get` contradicts the history of a persistent key: some put ended before the
/// get began, and nothing that removes began after it had begun. A put under way removes: if it has
/// to make room it lets go of the older page first.
fn check_miss(history: &[Event], get: &Event) -> Result<(), String> {
    let last = history
        .iter()
        .filter(|event| matches!(event.what, What::Put(_)) && event.ended < get.began)
        .max_by_key(|event| event.began);
    let Some(put) = last else { return Ok(()) };
    let removed = history.iter().any(|event| {
        let under_way = event.ended > get.began && matches!(event.what, What::Put(_));
        let removes = event.leaves() == Some(None) && event.ended > put.began;
        event.began < get.ended && (removes || under_way)
    });
    if removed { Ok(()) } else { Err(format!("{get:?} missed the page of {put:?}")) }
}

/// Whether a hit after a miss contradicts the history: a failed get stays failed until a put.
fn check_return(history: &[Event], get: &Event, seed: u32) -> Result<(), String> {
    let Some(put) = history.iter().find(|event| event.what == What::Put(seed)) else { return Ok(()) };
    let missed =
        history.iter().find(|event| event.what == What::Miss && event.began > put.ended && event.ended < get.began);
    missed.map_or(Ok(()), |miss| Err(format!("{get:?} returned the page of {put:?} after {miss:?}")))
}

struct Worker<'a> {
    guest: &'a Guest,
    clock: &'a AtomicU64,
    random: Numbers,
    thread: u32,
    scratch: Scratch,
    events: Vec<(Key, Event)>,
}

impl Worker<'_> {
    fn run(mut self, pools: &[PoolId]) -> Vec<(Key, Event)> {
        for operation in 0..OPERATIONS {
            let pool = *self.random.pick(pools);
            let object = ObjectId([u8::from(self.random.below(2) == 1); 24]);
            let key = Key { pool, object, index: self.random.below(INDEXES) * 61 };
            let seed = operation << 4 | self.thread;
            match self.random.below(20) {
                0..8 => self.record(key, |guest, scratch| match guest.put(scratch, &key, &page(seed)) {
                    Ok(()) => What::Put(seed),
                    Err(PutError::Refused(_)) => What::Refused,
                    Err(error) => panic!("put returned {error:?}"),
                }),
                8 => self.record(key, |guest, _| {
                    guest.flush_page(&key).expect("the pool exists");
                    What::Flushed
                }),
                9 => {
                    let began = self.clock.fetch_add(1, SeqCst);
                    self.guest.flush_object(pool, &object).expect("the pool exists");
                    let ended = self.clock.fetch_add(1, SeqCst);
                    for index in 0..INDEXES {
                        let key = Key { index: index * 61, ..key };
                        self.events.push((key, Event { began, ended, what: What::Flushed }));
                    }
                }
                roll => {
                    let mode = if roll < 12 && pool != pools[0] { GetMode::Exclusive } else { GetMode::Plain };
                    self.record(key, |guest, scratch| get(guest, scratch, &key, mode));
                }
            }
        }
        self.events
    }

    fn record(&mut self, key: Key, work: impl FnOnce(&Guest, &mut Scratch) -> What) {
        let began = self.clock.fetch_add(1, SeqCst);
        let what = work(self.guest, &mut self.scratch);
        let ended = self.clock.fetch_add(1, SeqCst);
        self.events.push((key, Event { began, ended, what }));
    }
}

fn get(guest: &Guest, scratch: &mut Scratch, key: &Key, mode: GetMode) -> What {
    let mut out = [0; PAGE_SIZE];
    match guest.get(scratch, key, mode, &mut out) {
        Ok(()) => {
            let seed = common::seed_of(&out).expect("a get returned no page that was put");
            if mode == GetMode::Exclusive { What::Taken(seed) } else { What::Hit(seed) }
        }
        Err(GetError::Miss) => What::Miss,
        Err(error) => panic!("get returned {error:?}"),
    }
}

fn check(events: Vec<(Key, Event)>, persistent: impl Fn(PoolId) -> bool) {
    let mut histories: HashMap<Key, Vec<Event>> = HashMap::new();
    for (key, event) in events {
        histories.entry(key).or_default().push(event);
    }
    let mut hits = 0;
    for (key, history) in &histories {
        for event in history {
            let outcome = match event.what {
                What::Hit(seed) | What::Taken(seed) => {
                    hits += 1;
                    check_hit(history, event, seed).and_then(|()| check_return(history, event, seed))
                }
                What::Miss if persistent(key.pool) => check_miss(history, event),
                _ => Ok(()),
            };
            outcome.unwrap_or_else(|error| panic!("{key:?}: {error}"));
        }
    }
    assert!(hits > 1000, "only {hits} gets found a page: the test tells nothing");
}

fn run(limit: u64, seed: u32) {
    let cold = ColdConfig { after: Duration::from_millis(8), cpu_percent: 100 };
    let config = StoreConfig { cold: Some(cold), shards: 2, ..StoreConfig::new(limit) };
    assert_eq!(config.background, Background::Thread);
    let store = Store::new(config).expect("a store is made");
    let guest = store.register_guest(GuestConfig::new("a"));
    let pools = [PoolId(0), PoolId(1), PoolId(2)];
    let kinds = [PoolKind::Persistent, PoolKind::Ephemeral, PoolKind::SharedEphemeral([1; 16])];
    for (pool, kind) in pools.into_iter().zip(kinds) {
        guest.create_pool(pool, kind).expect("a pool is made");
    }
    let clock = AtomicU64::new(0);
    let events = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let worker = Worker {
                    guest: &guest,
                    clock: &clock,
                    random: Numbers::new(u64::from(seed * THREADS + thread)),
                    thread,
                    scratch: Scratch::new(),
                    events: Vec::new(),
                };
                scope.spawn(move || worker.run(&pools))
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no worker panics")).collect()
    });
    store.check().expect("the store is consistent");
    assert!(store.stats().physical_bytes <= limit, "the store is above its limit");
    check(events, |pool| pool == pools[0]);
}

#[test]
fn no_get_contradicts_the_history_with_room() {
    run(64 << 20, 1);
}

#[test]
fn no_get_contradicts_the_history_without_room() {
    run(300 << 10, 2);
}

#[test]
fn the_checker_rejects_what_it_should() {
    let at = |began, ended, what| Event { began, ended, what };
    let put = [at(0, 1, What::Put(1)), at(2, 3, What::Put(2)), at(4, 5, What::Flushed)];
    assert!(check_hit(&put, &at(6, 7, What::Hit(1)), 1).is_err(), "an overwritten page is stale");
    assert!(check_hit(&put, &at(6, 7, What::Hit(2)), 2).is_err(), "a flushed page is stale");
    assert!(check_hit(&put, &at(3, 5, What::Hit(2)), 2).is_ok(), "a flush may come after");
    assert!(check_hit(&put, &at(0, 1, What::Hit(2)), 2).is_err(), "a page is not there before its put");
    assert!(check_miss(&put[..1], &at(6, 7, What::Miss)).is_err(), "a page was lost");
    assert!(check_miss(&put, &at(6, 7, What::Miss)).is_ok(), "a flushed page is gone");
    let replaced = [put[0], at(5, 8, What::Put(2))];
    assert!(check_miss(&replaced, &at(6, 7, What::Miss)).is_ok(), "a page is being replaced");
    assert!(check_miss(&replaced, &at(9, 10, What::Miss)).is_err(), "a page was lost after it was replaced");
    let missed = [put[0], at(2, 3, What::Miss)];
    assert!(check_return(&missed, &at(4, 5, What::Hit(1)), 1).is_err(), "a page came back");
}
