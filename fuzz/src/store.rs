// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The store against the model of its own tests: with room, in a tight guest, in a tight store.

use arbitrary::{Result, Unstructured};
use zcache_store::{GetMode, PoolKind};

use crate::oracle::{self, GUESTS, INDEXES, Op, Room};

/// Most operations of one run.
const MOST: usize = 200;

/// Makes operations of the bytes, and has the model check the store after each.
pub fn run(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let room = bytes.arbitrary::<u8>().unwrap_or_default() % 3;
    let mut ops = Vec::new();
    while ops.len() < MOST && !bytes.is_empty() {
        let Ok(op) = op(&mut bytes) else { break };
        ops.push(op);
    }
    match room {
        0 => oracle::run(Room::Ample, 256 << 20, None, &ops),
        1 => oracle::run(Room::Tight, 256 << 20, Some(768 << 10), &ops),
        _ => oracle::run(Room::Tight, 1 << 20, None, &ops),
    }
}

fn op(bytes: &mut Unstructured<'_>) -> Result<Op> {
    let [which, place, object] = bytes.arbitrary::<[u8; 3]>()?;
    let (guest, pool) = (usize::from(place >> 4) % GUESTS, u32::from(place & 3));
    let (object, index) = (object & 3, INDEXES[usize::from(object >> 2) % INDEXES.len()]);
    Ok(match which % 32 {
        0..4 => {
            let kind = match bytes.arbitrary::<u8>()? % 4 {
                0 => PoolKind::Ephemeral,
                1 => PoolKind::Persistent,
                uuid => PoolKind::SharedEphemeral([uuid; 16]),
            };
            Op::Create { guest, pool, kind }
        }
        4 => Op::Destroy { guest, pool },
        5 => Op::DestroyEphemeral { guest },
        6 => Op::Reset { guest },
        7 => Op::Replace { guest },
        8 => Op::Rebuild,
        9 => Op::Maintain,
        25 => Op::Find,
        10 => Op::FlushPool { guest, pool },
        11 => Op::FlushObject { guest, pool, object },
        12 | 13 => {
            let count = match bytes.arbitrary::<u8>()? {
                255 => u64::MAX,
                254 => 1 << 63,
                few => few.into(),
            };
            Op::FlushRange { guest, pool, object, first: index, count }
        }
        14 | 15 => Op::FlushPage { guest, pool, object, index },
        16..24 => Op::Put { guest, pool, object, index, seed: bytes.arbitrary::<u16>()?.into() },
        24 => Op::GiveBack { bytes: bytes.arbitrary::<u32>()?.into() },
        number => {
            let mode = if number % 2 == 0 { GetMode::Plain } else { GetMode::Exclusive };
            Op::Get { guest, pool, object, index, mode }
        }
    })
}
