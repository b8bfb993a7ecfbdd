// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which private pools a guest has, written down in the arena.
//!
//! A pool's pages are many and go in steps, in the background. What decides whether they are there
//! for a later process is one word here: a pool is made, flushed or destroyed by one store. Each
//! object's record says which *life* of its pool it belongs to; a flush begins another life, and
//! records of a life that is not in the roster are dropped when the store is rebuilt.

use std::collections::BTreeMap;

use crate::accounting::{Charge, Use};
use crate::arena::header::{self, HEADER_WORDS, Label, Role};
use crate::arena::host::{HOST_PAGE, PAGE_WORDS};
use crate::arena::memory::Segment;
use crate::key::PoolId;
use crate::op::Refusal;
use crate::pool::{MAX_POOLS_PER_GUEST, PoolKind};
use crate::shard::space::record::Life;

const _: () = assert!(HEADER_WORDS + MAX_POOLS_PER_GUEST <= PAGE_WORDS);

/// Bits of an entry above the pool's id: its life, its kind, and that it is one.
const LIFE: u32 = 32;
const PERSISTENT: u64 = 1 << 61;
const VALID: u64 = 1 << 63;
const _: () = assert!(LIFE + Life::BITS <= 61);

/// A private pool as the roster has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) life: Life,
    pub(crate) purpose: Use,
}

/// The list of a guest's private pools, in a segment of its own.
pub(crate) struct Roster {
    // Dropped before the charge: memory is paid for until it is returned.
    segment: Segment,
    _charge: Charge,
    /// Place of each pool among the entries.
    places: BTreeMap<PoolId, usize>,
}

impl Roster {
    /// Writes an empty list into an empty segment, which `charge` pays for.
    pub(crate) fn new(mut segment: Segment, mut charge: Charge, label: Label) -> Result<Self, Refusal> {
        charge.grow(HOST_PAGE as u64)?;
        segment.populate(PAGE_WORDS).map_err(|_| Refusal::NoMemory)?;
        header::write(&mut segment, label, Role::Roster);
        Ok(Self { segment, _charge: charge, places: BTreeMap::new() })
    }

    /// Takes over the list that an earlier process wrote; returns it with the pools that are in it.
    pub(crate) fn adopt(segment: Segment, mut charge: Charge) -> (Self, BTreeMap<PoolId, Entry>) {
        charge.grow_regardless((segment.populated() * 8) as u64);
        let (mut places, mut pools) = (BTreeMap::new(), BTreeMap::new());
        for (place, word) in segment.words()[HEADER_WORDS..].iter().take(MAX_POOLS_PER_GUEST).enumerate() {
            if let Some((pool, entry)) = read(*word) {
                places.insert(pool, place);
                pools.insert(pool, entry);
            }
        }
        (Self { segment, _charge: charge, places }, pools)
    }

    /// Writes down that a pool exists, in that life; an earlier one is over. A guest has at most
    /// [`MAX_POOLS_PER_GUEST`] pools, so there is a place.
    pub(crate) fn set(&mut self, pool: PoolId, life: Life, kind: PoolKind) {
        let words = &self.segment.words()[HEADER_WORDS..];
        let known = self.places.get(&pool).copied();
        let free = || words.iter().take(MAX_POOLS_PER_GUEST).position(|word| *word == 0);
        if let Some(place) = known.or_else(free) {
            let kind = if kind == PoolKind::Persistent { PERSISTENT } else { 0 };
            let entry = VALID | kind | u64::from(life.0) << LIFE | u64::from(pool.0);
            self.segment.publish(HEADER_WORDS + place, entry);
            self.places.insert(pool, place);
        }
    }

    /// Writes down that the guest has left: nothing it had means anything to a later process, which
    /// may come before the memory has gone back.
    pub(crate) fn end(mut self) {
        header::void(&mut self.segment);
    }

    /// Writes down that a pool does not exist any more.
    pub(crate) fn clear(&mut self, pool: PoolId) {
        if let Some(place) = self.places.remove(&pool) {
            self.segment.publish(HEADER_WORDS + place, 0);
        }
    }
}

fn read(word: u64) -> Option<(PoolId, Entry)> {
    let purpose = if word & PERSISTENT != 0 { Use::Kept } else { Use::Evictable };
    let life = Life::of(word >> LIFE);
    let pool = PoolId((word & 0xffff_ffff) as u32);
    (word & VALID != 0).then_some((pool, Entry { life, purpose }))
}
