// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The store's figures, as the document has them.

use uuid::Uuid;
use zcache_report::{
    BackgroundReport, Contents, Counters, EndedPools, EvictionPolicy, GuestReport, PoolKind, PoolReport, Refusals,
    StoreReport,
};
use zcache_store as store;

/// The whole store.
pub(super) fn store(stats: &store::StoreStats) -> StoreReport {
    StoreReport {
        physical_bytes: stats.physical_bytes,
        memory_limit: stats.memory_limit,
        index_bytes: stats.index_bytes,
        reserved_bytes: stats.reserved_bytes,
        garbage_bytes: stats.garbage_bytes,
        background_failures: stats.background_failures,
        guests: stats.guests,
        contents: contents(&stats.contents),
        ratio: stats.ratio,
        background: BackgroundReport {
            compacted_segments: stats.background.compacted_segments,
            cold_tried: stats.background.cold_tried,
            cold_smaller: stats.background.cold_smaller,
            relief_steps: stats.background.relief_steps,
            relief_bytes: stats.background.relief_bytes,
        },
    }
}

/// What the store knows of a guest; the rest is left as it is without a connection.
pub(super) fn guest(stats: &store::GuestStats) -> GuestReport {
    GuestReport {
        physical_bytes: stats.physical_bytes,
        wanted_pages: stats.wanted_pages,
        taken_back_pages: stats.taken_back_pages,
        eviction: match stats.eviction {
            store::EvictionPolicy::S3Fifo => EvictionPolicy::S3Fifo,
            store::EvictionPolicy::Clock => EvictionPolicy::Clock,
        },
        contents: contents(&stats.contents),
        pools: stats.pools.iter().map(pool).collect(),
        ended_pools: EndedPools {
            ephemeral: counters(&stats.ended_pools.ephemeral),
            persistent: counters(&stats.ended_pools.persistent),
        },
        ..GuestReport::default()
    }
}

fn pool(stats: &store::PoolStats) -> PoolReport {
    let (kind, uuid) = match stats.kind {
        store::PoolKind::Ephemeral => (PoolKind::Ephemeral, None),
        store::PoolKind::Persistent => (PoolKind::Persistent, None),
        store::PoolKind::SharedEphemeral(uuid) => (PoolKind::Shared, Some(Uuid::from_bytes(uuid))),
    };
    PoolReport { id: stats.id.0, kind, uuid, contents: contents(&stats.contents), counters: counters(&stats.counters) }
}

fn contents(stats: &store::Contents) -> Contents {
    let store::Contents { pages, same_filled, raw, cold, compressed_bytes } = *stats;
    Contents { pages, same_filled, raw, cold, compressed_bytes }
}

fn counters(stats: &store::Counters) -> Counters {
    let store::Counters { puts, refused, gets, hits, corrupt, flushed, evicted } = *stats;
    let store::Refusals { guest_limit, share, store_full, no_memory, frozen } = refused;
    let refused = Refusals { guest_limit, share, store_full, no_memory, frozen };
    Counters { puts, refused, gets, hits, corrupt, flushed, evicted }
}
