// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Random operations against a plain map that knows the rules of transcendent memory.

mod common;
mod oracle;

use oracle::{GUESTS, INDEXES, Op, Room, run};
use proptest::prelude::*;
use zcache_store::{GetMode, PoolKind};

fn kind() -> impl Strategy<Value = PoolKind> {
    prop_oneof![
        Just(PoolKind::Ephemeral),
        Just(PoolKind::Persistent),
        (0..2u8).prop_map(|uuid| PoolKind::SharedEphemeral([uuid; 16])),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let guest = 0..GUESTS;
    let pool = 0..4u32;
    let object = 0..3u8;
    let index = prop::sample::select(&INDEXES[..]);
    let mode = prop_oneof![Just(GetMode::Plain), Just(GetMode::Exclusive)];
    let count = prop_oneof![0..70u64, Just(u64::MAX), Just(1 << 63)];
    prop_oneof![
        6 => (guest.clone(), pool.clone(), kind())
            .prop_map(|(guest, pool, kind)| Op::Create { guest, pool, kind }),
        1 => (guest.clone(), pool.clone()).prop_map(|(guest, pool)| Op::Destroy { guest, pool }),
        1 => guest.clone().prop_map(|guest| Op::DestroyEphemeral { guest }),
        1 => guest.clone().prop_map(|guest| Op::Reset { guest }),
        1 => guest.clone().prop_map(|guest| Op::Replace { guest }),
        40 => (guest.clone(), pool.clone(), object.clone(), index.clone(), any::<u32>())
            .prop_map(|(guest, pool, object, index, seed)|
                Op::Put { guest, pool, object, index, seed }),
        40 => (guest.clone(), pool.clone(), object.clone(), index.clone(), mode)
            .prop_map(|(guest, pool, object, index, mode)|
                Op::Get { guest, pool, object, index, mode }),
        6 => (guest.clone(), pool.clone(), object.clone(), index.clone())
            .prop_map(|(guest, pool, object, index)|
                Op::FlushPage { guest, pool, object, index }),
        4 => (guest.clone(), pool.clone(), object.clone(), index, count)
            .prop_map(|(guest, pool, object, first, count)|
                Op::FlushRange { guest, pool, object, first, count }),
        2 => (guest.clone(), pool.clone(), object)
            .prop_map(|(guest, pool, object)| Op::FlushObject { guest, pool, object }),
        1 => (guest, pool).prop_map(|(guest, pool)| Op::FlushPool { guest, pool }),
        2 => Just(Op::Maintain),
        2 => prop_oneof![Just(u64::MAX), 1..1u64 << 20].prop_map(|bytes| Op::GiveBack { bytes }),
        1 => Just(Op::Rebuild),
        1 => Just(Op::Find),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn with_room_the_store_is_the_map(ops in prop::collection::vec(op(), 1..400)) {
        run(Room::Ample, 256 << 20, None, &ops);
    }

    #[test]
    fn a_tight_guest_loses_only_what_it_may(ops in prop::collection::vec(op(), 1..400)) {
        run(Room::Tight, 256 << 20, Some(768 << 10), &ops);
    }

    #[test]
    fn a_tight_store_loses_only_what_it_may(ops in prop::collection::vec(op(), 1..400)) {
        run(Room::Tight, 1 << 20, None, &ops);
    }
}
