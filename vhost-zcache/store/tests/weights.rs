// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Under pressure ephemeral memory is shared in the ratio of the guests' weights, and nothing else
//! is at stake: neither reservations nor limits nor persistent pages.

mod common;

use common::{Numbers, page};
use proptest::prelude::*;
use zcache_store::{
    Background, GetMode, Guest, GuestConfig, Key, ObjectId, PAGE_SIZE, PoolId, PoolKind, Scratch, Store, StoreConfig,
    Weight,
};

const FILES: PoolId = PoolId(0);
const SWAP: PoolId = PoolId(1);
const LIMIT: u64 = 12 << 20;

fn store() -> Store {
    let config = StoreConfig { background: Background::Manual, shards: 2, cold: None, ..StoreConfig::new(LIMIT) };
    Store::new(config).expect("a store is made")
}

fn weight(number: u16) -> Weight {
    Weight::try_from(number).expect("it is a weight")
}

fn guest(store: &Store, weight: Weight, reserved: u64, memory_limit: Option<u64>) -> Guest {
    let reservation = Some(store.reserve(reserved));
    let guest = store.register_guest(GuestConfig { weight, reservation, memory_limit, ..GuestConfig::new("a") });
    guest.create_pool(FILES, PoolKind::Ephemeral).expect("a pool is made");
    guest.create_pool(SWAP, PoolKind::Persistent).expect("a pool is made");
    guest
}

fn key(pool: PoolId, index: u64) -> Key {
    Key { pool, object: ObjectId([7; 24]), index }
}

/// A page that does not compress.
fn content(index: u64) -> [u8; PAGE_SIZE] {
    page(u32::try_from(index).expect("a small number") * 3 + 2)
}

/// Guests put pages that nobody has put before, each as often as it says.
struct Puts<'a> {
    guests: &'a [Guest],
    rates: Vec<u64>,
    next: Vec<u64>,
    scratch: Scratch,
    numbers: Numbers,
}

impl<'a> Puts<'a> {
    fn new(guests: &'a [Guest], rates: Vec<u64>) -> Self {
        let next = vec![0; guests.len()];
        Self { guests, rates, next, scratch: Scratch::new(), numbers: Numbers::new(1) }
    }

    /// Puts so many bytes in all.
    fn put(&mut self, bytes: u64) {
        for _ in 0..bytes / PAGE_SIZE as u64 {
            let mut at = self.numbers.below(self.rates.iter().sum());
            let who = self.rates.iter().position(|rate| {
                let here = at < *rate;
                at = at.saturating_sub(*rate);
                here
            });
            let who = who.expect("the number is below the sum");
            let index = self.next[who];
            self.next[who] += 1;
            // Whether it was taken is seen by what is there afterwards.
            let _ = self.guests[who].put(&mut self.scratch, &key(FILES, index), &content(index));
        }
    }
}

fn ephemeral(guest: &Guest) -> u64 {
    guest.stats().physical_bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5, ..ProptestConfig::default() })]

    #[test]
    fn shares_come_to_be_in_the_ratio_of_the_weights(
        weights in prop::collection::vec(1..=8u16, 2..=3),
        rates in prop::collection::vec(1..=4u64, 3),
        factor in prop::sample::select(vec![1u16, 100, 1000]),
    ) {
        let store = store();
        let guests: Vec<Guest> =
            weights.iter().map(|number| guest(&store, weight(number * factor), 0, None)).collect();
        // Who puts little needs longer for a large share.
        let mut puts = Puts::new(&guests, rates[..guests.len()].to_vec());
        puts.put(LIMIT * 8);
        let all: u64 = guests.iter().map(ephemeral).sum();
        prop_assert!(all > LIMIT / 10 * 9, "only {all} bytes of {LIMIT} are used");
        let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        for (guest, weight) in guests.iter().zip(&weights) {
            let fair = all * u64::from(*weight) / sum;
            let has = ephemeral(guest);
            // Segments of 256 KiB, in two shards, are what it can be exact to.
            prop_assert!(
                has.abs_diff(fair) < fair / 8 + (768 << 10),
                "weight {weight} of {weights:?} has {has} bytes, and {fair} would be fair; all put {rates:?}"
            );
        }
        store.check().expect("the store is consistent");
    }

    #[test]
    fn whatever_the_weights_reservations_and_limits_hold_and_swap_stays(
        light in 1..=100u16,
        heavy in 1000..=10_000u16,
        reserved in 3..=4u64,
        limit in 3..=5u64,
    ) {
        let (reserved, limit) = (reserved << 20, limit << 20);
        let store = store();
        // The light one is within its reservation, the heavy one has a limit, the third neither.
        let guests = [
            guest(&store, weight(light), reserved, None),
            guest(&store, weight(heavy), 0, Some(limit)),
            guest(&store, weight(heavy), 0, None),
        ];
        let mut scratch = Scratch::new();
        let (kept, swapped) = ((reserved - (5 << 19)) / PAGE_SIZE as u64, 200);
        for index in 0..kept {
            guests[0].put(&mut scratch, &key(FILES, index), &content(index)).expect("there is room");
        }
        for index in 0..swapped {
            guests[2].put(&mut scratch, &key(SWAP, index), &content(index)).expect("there is room");
        }
        let mut puts = Puts::new(&guests, vec![0, 1, 1]);
        for _ in 0..16 {
            puts.put(LIMIT / 4);
            prop_assert!(ephemeral(&guests[1]) <= limit, "a limit does not hold");
        }
        let mut out = [0; PAGE_SIZE];
        for (guest, pool, pages) in [(&guests[0], FILES, kept), (&guests[2], SWAP, swapped)] {
            for index in 0..pages {
                let got = guest.get(&mut scratch, &key(pool, index), GetMode::Plain, &mut out);
                prop_assert!(got == Ok(()) && out == content(index), "page {index} of {pool:?}: {got:?}");
            }
        }
        store.check().expect("the store is consistent");
    }
}

#[test]
fn a_weight_that_changes_counts_from_then_on() {
    let store = store();
    let guests = [guest(&store, weight(100), 0, None), guest(&store, weight(100), 0, None)];
    let mut puts = Puts::new(&guests, vec![1, 1]);
    puts.put(LIMIT * 3);
    guests[1].set_weight(weight(300));
    assert_eq!(guests[1].stats().weight, weight(300));
    puts.put(LIMIT * 8);
    let [first, second] = [ephemeral(&guests[0]), ephemeral(&guests[1])];
    assert!(second > first * 2, "three times the weight has {second} bytes beside {first}");
}

#[test]
fn guests_that_have_nothing_do_not_count() {
    let store = store();
    let idle: Vec<Guest> = (0..20).map(|_| guest(&store, weight(10_000), 0, None)).collect();
    let guests = [guest(&store, weight(100), 0, None), guest(&store, weight(100), 0, None)];
    let mut puts = Puts::new(&guests, vec![6, 1]);
    puts.put(LIMIT * 8);
    let [first, second] = [ephemeral(&guests[0]), ephemeral(&guests[1])];
    assert!(second > first / 4 * 3, "who puts less has {second} bytes beside {first}");
    drop(idle);
}
