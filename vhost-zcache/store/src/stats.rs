// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Snapshots of the counters. Bytes are bytes, pages are 4 KiB guest pages; counters only grow
//! while their pool, guest or store lives, gauges say what is there now.

use crate::engine::victim::Weight;
use crate::key::PoolId;
use crate::op::Refusal;
use crate::pool::PoolKind;
use crate::shard::evict::Policy as EvictionPolicy;

/// Refused puts by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// The guest's limit was reached.
    pub guest_limit: u64,
    /// The guest has its share, and the rest is reserved for others.
    pub share: u64,
    /// The store was full.
    pub store_full: u64,
    /// The host gave no memory.
    pub no_memory: u64,
    /// The guest was frozen.
    pub frozen: u64,
}

impl Refusals {
    /// Counts one refusal.
    pub(crate) fn count(&mut self, reason: Refusal) {
        match reason {
            Refusal::GuestLimit => self.guest_limit += 1,
            Refusal::Share => self.share += 1,
            Refusal::StoreFull => self.store_full += 1,
            Refusal::NoMemory => self.no_memory += 1,
            Refusal::Frozen => self.frozen += 1,
        }
    }

    /// All refusals.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.guest_limit + self.share + self.store_full + self.no_memory + self.frozen
    }
}

/// What happened in a pool, or in all pools of a guest or of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Puts that found their pool, refused ones included.
    pub puts: u64,
    /// Refused puts by reason.
    pub refused: Refusals,
    /// Gets that found their pool.
    pub gets: u64,
    /// Gets that found a page, damaged ones included.
    pub hits: u64,
    /// Gets that found a damaged page.
    pub corrupt: u64,
    /// Pages removed by flushes of any kind.
    pub flushed: u64,
    /// Pages the store dropped to make room.
    pub evicted: u64,
}

/// What is there now. Pages that were removed many at a time count until their memory follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Pages held.
    pub pages: u64,
    /// Of these, pages of one repeated word.
    pub same_filled: u64,
    /// Of these, pages stored as they are because they do not compress.
    pub raw: u64,
    /// Of these, pages in the cold tier.
    pub cold: u64,
    /// Sum of the stored sizes, without headers or any other overhead.
    pub compressed_bytes: u64,
}

impl Contents {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.pages += other.pages;
        self.same_filled += other.same_filled;
        self.raw += other.raw;
        self.cold += other.cold;
        self.compressed_bytes += other.compressed_bytes;
    }
}

impl Counters {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.puts += other.puts;
        self.refused.guest_limit += other.refused.guest_limit;
        self.refused.share += other.refused.share;
        self.refused.store_full += other.refused.store_full;
        self.refused.no_memory += other.refused.no_memory;
        self.refused.frozen += other.refused.frozen;
        self.gets += other.gets;
        self.hits += other.hits;
        self.corrupt += other.corrupt;
        self.flushed += other.flushed;
        self.evicted += other.evicted;
    }
}

/// One pool, as one guest sees it.
#[derive(Clone, Debug)]
pub struct PoolStats {
    /// The guest's number of the pool.
    pub id: PoolId,
    /// The pool's kind.
    pub kind: PoolKind,
    /// Contents; of a shared pool, all members' pages.
    pub contents: Contents,
    /// Events; of a shared pool, all members'.
    pub counters: Counters,
}

/// What happened in a guest's private pools that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndedPools {
    /// In ephemeral ones.
    pub ephemeral: Counters,
    /// In persistent ones.
    pub persistent: Counters,
}

/// One guest.
#[derive(Clone, Debug)]
pub struct GuestStats {
    /// The name it was registered with.
    pub name: String,
    /// Physical bytes charged: pages, index, overhead and fragmentation.
    pub physical_bytes: u64,
    /// Limit of `physical_bytes`, if any.
    pub memory_limit: Option<u64>,
    /// Bytes of persistent pages that other guests cannot keep it from having.
    pub reserved_bytes: u64,
    /// How much ephemeral memory it is to have beside others.
    pub weight: Weight,
    /// Nothing new is stored for it.
    pub frozen: bool,
    /// Persistent pages that it is to take back.
    pub wanted_pages: u64,
    /// Persistent pages that went while it was to take some back.
    pub taken_back_pages: u64,
    /// How pages of its own ephemeral pools make room for others at the moment.
    pub eviction: EvictionPolicy,
    /// Pages that are charged to this guest, in its own and in shared pools.
    pub contents: Contents,
    /// Its pools.
    pub pools: Vec<PoolStats>,
    /// Private pools it had.
    pub ended_pools: EndedPools,
}

/// What the background has done besides requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackgroundStats {
    /// Segments it has emptied into holes of others, and given back.
    pub compacted_segments: u64,
    /// Pages that had become cold, and were tried with the denser codec.
    pub cold_tried: u64,
    /// Of these, pages that it made smaller.
    pub cold_smaller: u64,
    /// Times that a host which was short of memory got some back.
    pub relief_steps: u64,
    /// Bytes that it got.
    pub relief_bytes: u64,
}

/// The whole store.
#[derive(Clone, Debug)]
pub struct StoreStats {
    /// Physical bytes charged to all guests together.
    pub physical_bytes: u64,
    /// Limit of `physical_bytes`.
    pub memory_limit: u64,
    /// Of these, bytes of the index.
    pub index_bytes: u64,
    /// Of the limit, bytes that guests can count on for their persistent pages.
    pub reserved_bytes: u64,
    /// Of the physical bytes, those of pools and guests that are gone, on their way to the host.
    pub garbage_bytes: u64,
    /// Times the background failed by a defect of the store, and was started again.
    pub background_failures: u64,
    /// What else it has done.
    pub background: BackgroundStats,
    /// Registered guests.
    pub guests: u64,
    /// Everything held.
    pub contents: Contents,
    /// Bytes of guest pages held per physical byte; 0 when empty.
    pub ratio: f64,
}
